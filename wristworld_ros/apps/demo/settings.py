"""What the demonstration plays, for how long, and the settings of its nodes that follow from it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from wristworld_ros.errors import UserError
from wristworld_ros.setting import check, setting
from wristworld_ros.settings import CameraSettings, NodeSettings, StreamSettings

# Far from the seeds that training sets are made with.
DEMO_SEED = 900_000
PLAYED_WIDTH = 320  # pixels; wider videos are played at this width
# What a virtual wrist is told, the least first; `all` runs the last one live and the others on its recorded sets.
MODES = ('rgb', 'calibrated', 'rgbd')
ALL = 'all'
TOLD = {
    'rgb': 'images alone, as published',
    'calibrated': 'images, calibration, TF, joint states, robot description',
    'rgbd': 'images, depth, calibration, TF, joint states, robot description',
}


@dataclass(frozen=True)
class DemoSettings:
    """What the demonstration runs on, and for how long."""

    seconds: float = setting(60.0, 'How long is recorded, seconds.', low=1.0, high=86400.0)
    rate: float | None = setting(
        10.0,
        'Frames per second of the cameras; auto uses the rate of the first video (10 for the simulator).',
        low=0.1,
        high=120.0,
        none='auto',
    )
    mode: str = setting(
        ALL,
        'With the simulator: what the virtual wrist is told. rgb: images alone, as published; calibrated: also calibration, TF, joint states and robot description; rgbd: depth too; all: rgbd live, then the others on the same recorded images. Videos are images alone.',
        choices=(ALL, *MODES),
    )
    demo_seed: int = setting(DEMO_SEED, 'With the simulator: which episodes are played.', low=0, high=2**31 - 1)
    view: bool = setting(False, 'Show it live in the browser (rerun).')
    view_bind: str = setting(
        '127.0.0.1',
        'IP address that the live view is served on, without a password: this machine alone, or 0.0.0.0 for every machine that reaches it.',
    )
    patience: float = setting(240.0, 'How long the first wrist frame may take, seconds.', low=1.0, high=3600.0)


def live_mode(demo: DemoSettings, source: str) -> str:
    """The mode that runs live, of `MODES`."""
    if source == 'videos':
        return MODES[0]
    return MODES[-1] if demo.mode == ALL else demo.mode


def replayed_modes(demo: DemoSettings, source: str) -> tuple[str, ...]:
    """The modes that are run afterwards, on the recorded sets."""
    return MODES[:-1] if demo.mode == ALL and source == 'simulator' else ()


def check_demo(demo: DemoSettings) -> None:
    """Raise UserError for the first value that is not allowed."""
    check(demo)
    try:
        ipaddress.ip_address(demo.view_bind)
    except ValueError:
        raise UserError(f'Setting view_bind is {demo.view_bind!r}', 'give an IP address of this machine') from None


def camera_settings(demo: DemoSettings, videos: Sequence[Path], wrist_video: Path | None) -> CameraSettings:
    """What the camera node plays.

    Args:
        demo: Rate and seed.
        videos: One file per anchor camera; empty plays the simulator.
        wrist_video: Recording of a real wrist camera, or None.

    Raises:
        UserError: A video is missing or cannot be decoded, or there is only a wrist video.
    """
    if not videos:
        if wrist_video:
            raise UserError('A wrist video was given without anchor videos', 'name the anchor videos with --anchors')
        rate = 10.0 if demo.rate is None else demo.rate
        mode = live_mode(demo, 'simulator')
        return CameraSettings(
            source='simulator', anchors=['left', 'right'], rate=rate, seed=demo.demo_seed, depth=mode == 'rgbd',
            robot=mode != 'rgb', objects=True,
        )  # fmt: skip
    if demo.mode in MODES[1:]:
        raise UserError(
            f'Setting mode is {demo.mode}, and videos are images alone', 'leave --mode out, or play the simulator'
        )
    from wristworld_ros.data.video import VideoReader

    readers = [VideoReader(Path(path)) for path in [*videos, *([wrist_video] if wrist_video else [])]]
    width, height = readers[0].width, readers[0].height
    if width > PLAYED_WIDTH:
        width, height = PLAYED_WIDTH, max(2, round(PLAYED_WIDTH * height / width / 2) * 2)
    names = ['left', 'right'] if len(videos) == 2 else [f'view{i + 1}' for i in range(len(videos))]
    return CameraSettings(
        source='videos', videos=[str(v) for v in videos], wrist_video=str(wrist_video) if wrist_video else None,
        anchors=names, rate=demo.rate, width=width, height=height,
    )  # fmt: skip


def node_settings(stream: StreamSettings, cameras: CameraSettings, mode: str = MODES[0]) -> NodeSettings:
    """The node subscribes to these cameras, starts by itself, and publishes invalid frames to the recorder too.

    Args:
        stream: Of the model.
        cameras: What is played.
        mode: What the node is told, of `MODES`. A simulated desk's wrist camera is known: its mount, and its calibration.
    """
    given = {f.name: getattr(stream, f.name) for f in fields(StreamSettings)}
    known: dict[str, Any] = {'use_depth': 'auto' if mode == 'rgbd' else 'never'}
    if mode == 'rgb':
        known |= {'use_tf': 'never', 'use_robot_model': 'never'}
    else:
        from wristworld_ros.ros.transforms import pose_text
        from wristworld_ros.sim.stream import wrist_mount

        known |= {'wrist_mount': pose_text(wrist_mount(cameras.seed)), 'wrist_camera_info': 'true_wrist/camera_info'}
    settings = NodeSettings(**given, **known, anchors=list(cameras.anchors), publish_invalid=True, autostart=True)
    check(settings)
    return settings


def node_remappings(cameras: CameraSettings, mode: str) -> list[str]:
    """ROS arguments for images alone: the node is not to hear even the calibrations of the anchors."""
    if mode != 'rgb':
        return []
    return [
        word for name in cameras.anchors for word in ('-r', f'anchor_{name}/camera_info:=unheard/{name}/camera_info')
    ]
