"""Reads ROS 2 bags as episodes. A bag is read through once when it is opened, for stamps, transforms and joints; images stay in it.

The first anchor camera is the clock: a frame is one of its images, with the image of every other camera that was taken nearest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.data.episode import DataSet, Episode, EpisodeCamera, GripperUnit, check_indices, role_of
from wristworld_ros.data.formats.rosbag import is_bag
from wristworld_ros.data.formats.rosbag.content import FIX, IMAGES, BagContent, Stream, read_bag, stored_messages
from wristworld_ros.data.formats.rosbag.images import color_image, depth_image
from wristworld_ros.data.matching import nearest
from wristworld_ros.errors import UserError

GRIPPERS: dict[str, GripperUnit] = {
    'gripper_closed': 'closed',
    'gripper': 'unknown',
}  # joints that are no fingers in metres
_BASES = (r'.*_link0', r'(.*_)?base_link', r'(.*_)?base')
_HANDS = (r'.*_hand', r'.*_link8', r'tool0', r'.*_tcp')
_ARM_JOINT = re.compile(r'.*joint_?\d+')


class BagSet(DataSet):
    """A bag, or a folder of bags.

    Args:
        path: The bag or folder.
        base_frame: TF frame of the robot's base; None finds it by its name.

    Raises:
        UserError: There is no bag.
    """

    format = 'ROS 2 bag'

    def __init__(self, path: str | Path, base_frame: str | None = None):
        self.path, self.base_frame = Path(path), base_frame
        self.bags = [self.path] if is_bag(self.path) else sorted(filter(is_bag, self.path.iterdir()))
        if not self.bags:
            raise UserError(f'There is no bag in {self.path}', 'give a bag, or a folder of bags')

    def __len__(self) -> int:
        return len(self.bags)

    def episode(self, index: int) -> BagEpisode:
        """See `DataSet.episode`; the bag is read through once."""
        bag = self.bags[index]
        content = read_bag(bag)
        color = {name: stream.sorted() for name, stream in content.color.items() if stream.stamps}
        if not color:
            raise UserError(f'{bag} holds no colour images ({", ".join(IMAGES)})', "record the cameras' topics")
        cameras, facts = _cameras(content, color), content.facts
        clock = next((camera.name for camera in cameras if camera.role == 'anchor'), cameras[0].name)
        if facts and facts.clock in color:
            clock = facts.clock
        stamps = np.asarray(color[clock].stamps, np.int64)
        base = self.base_frame or (facts.base_frame if facts else _named(content.tree.frames, _BASES))
        poses, intrinsics = {}, {}
        for name, stream in color.items():
            info = content.infos.get(_info_topic(stream.topic))
            if info is not None and info.k[0] > 0:
                since, values = zip(*sorted(content.intrinsics[_info_topic(stream.topic)], key=lambda pair: pair[0]))
                taken = np.asarray(stream.stamps, np.int64)
                at = np.searchsorted(since, taken[nearest(taken, stamps)], side='right') - 1
                intrinsics[name] = np.stack(values).astype(np.float64).reshape(-1, 3, 3)[at.clip(0)]
            frame = stream.first.header.frame_id
            if base and frame in content.tree.frames:
                T_camera_base = content.tree.lookup(frame, base, stamps)
                if T_camera_base is not None:
                    poses[name] = T_camera_base
        hand = facts.hand_frame if facts else _named(content.tree.frames, _HANDS)
        T_base_hand = content.tree.lookup(base, hand, stamps) if base and hand else None
        joints, gripper, unit = _joints(content, stamps)
        rate = 1e9 / float(np.median(np.diff(stamps))) if len(stamps) > 1 else 10.0
        link = facts.hand_link if facts else hand or ''
        return BagEpisode(
            path=bag,
            name=f'bag {bag.name}',
            cameras=cameras,
            fps=facts.fps if facts else round(rate, 3),
            stamps_ns=stamps,
            language=facts.language if facts else tuple(content.texts[:1]),
            success=facts.success if facts else None,
            joints=joints,
            gripper=gripper,
            gripper_unit=unit,
            T_base_hand=T_base_hand,
            hand_link=link if T_base_hand is not None else '',
            gripper_link=facts.gripper_link if facts else '',
            actions=_actions(content, stamps),
            meta=(facts.meta if facts else {}) | {'base_frame': base, 'distortion': _distortion(content, color)},
            color=color,
            depth_streams={name: stream.sorted() for name, stream in content.depth.items() if stream.stamps},
            intrinsics=intrinsics,
            poses=poses,
        )


@dataclass(frozen=True, kw_only=True)
class BagEpisode(Episode):
    """A bag. color, depth_streams: where each camera's images are in it. intrinsics, poses: K and T_camera_world by camera."""

    color: dict[str, Stream]
    depth_streams: dict[str, Stream]
    intrinsics: dict[str, np.ndarray]
    poses: dict[str, np.ndarray]

    def read(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Episode.read`."""
        entry = self.camera(camera)
        shape = (entry.height, entry.width, 3)
        return self._stack(self.color[entry.name], color_image, indices, shape, np.dtype(np.uint8))

    def read_depth(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Episode.read_depth`."""
        entry = self.camera(camera)
        if not entry.has_depth:
            return super().read_depth(camera, indices)
        shape = (entry.height, entry.width)
        return self._stack(self.depth_streams[entry.name], depth_image, indices, shape, np.dtype(np.float32))

    def times_ns(self, camera: str) -> np.ndarray:
        """See `Episode.times_ns`."""
        stamps = np.asarray(self.color[self.camera(camera).name].stamps, np.int64)
        return stamps[nearest(stamps, self.stamps_ns)]

    def frame_id(self, camera: str) -> str:
        """TF frame of a camera, as its images say."""
        return self.color[self.camera(camera).name].first.header.frame_id.lstrip('/')

    def logged_ns(self) -> np.ndarray:
        """When the image was logged whose stamp each frame has, int64 [T]."""
        clock = next(stream for stream in self.color.values() if np.array_equal(stream.stamps, self.stamps_ns))
        return np.asarray(clock.logged, np.int64)

    def K(self, camera: str) -> np.ndarray | None:
        """See `Episode.K`; of the images as they are, distorted where `meta['distortion']` says so."""
        return self.intrinsics.get(self.camera(camera).name)

    def T_camera_world(self, camera: str) -> np.ndarray | None:
        """See `Episode.T_camera_world`."""
        return self.poses.get(self.camera(camera).name)

    def broken_frames(self, camera: str) -> list[tuple[int, str]]:
        """See `Episode.broken_frames`."""
        entry = self.camera(camera)
        kinds = [(self.color[entry.name], color_image, 3)]
        if entry.has_depth:
            kinds.append((self.depth_streams[entry.name], depth_image, 2))
        found = []
        for stream, decode, sides in kinds:
            places = nearest(np.asarray(stream.stamps, np.int64), self.stamps_ns)
            for place, message in stored_messages(self.path, stream, np.unique(places)):
                try:
                    shape = decode(message, f'message {place} on {stream.topic} of {self.path}').shape
                    why = '' if shape == (entry.height, entry.width, 3)[:sides] else f'it is {shape[1]}x{shape[0]}'
                except UserError as error:
                    why = error.what
                found += [(int(frame), why) for frame in np.flatnonzero(places == place) if why]
        return sorted(found)

    def counts(self) -> Iterator[str]:
        """See `Episode.counts`."""
        for camera in self.cameras:
            late = np.abs(self.times_ns(camera.name) - self.stamps_ns) / 1e9
            far = np.flatnonzero(late > 1.5 / self.fps)
            if len(far):
                more = f', nor near {len(far) - 1} more' if len(far) > 1 else ''
                yield f"camera '{camera.name}' has no image within {late[far[0]]:.3f} s of frame {far[0]}{more}."
            depth = self.depth_streams.get(camera.name)
            if depth is not None and not camera.has_depth:
                yield f"depth of camera '{camera.name}' ({depth.topic}) is not of its images' size, so it is not registered to them."

    def _stack(
        self, stream: Stream, decode, indices: Sequence[int] | np.ndarray, shape: tuple[int, ...], kind: np.dtype
    ) -> np.ndarray:
        numbers = check_indices(indices, len(self))
        places = nearest(np.asarray(stream.stamps, np.int64), self.stamps_ns[numbers])
        out = np.empty((len(numbers), *shape), kind)
        for place, message in stored_messages(self.path, stream, np.unique(places)):
            source = f'message {place} on {stream.topic} of {self.path}'
            image = decode(message, source)
            if image.shape != shape:
                raise UserError(
                    f'{source} is {image.shape[1]}x{image.shape[0]}, and the first was {shape[1]}x{shape[0]}', FIX
                )
            out[places == place] = image
        return out


def _cameras(content: BagContent, color: dict[str, Stream]) -> tuple[EpisodeCamera, ...]:
    found = []
    for name, stream in sorted(color.items()):
        height, width = _size(stream.first, f'the first message on {stream.topic}', False)
        depth = content.depth.get(name)
        registered = depth is not None and _size(depth.first, f'the first message on {depth.topic}', True) == (
            height,
            width,
        )
        role = content.facts.roles.get(name) if content.facts else None
        found.append(EpisodeCamera(name, role or role_of(name), width, height, registered))
    return tuple(found)


def _size(message: Any, source: str, depth: bool) -> tuple[int, int]:
    if hasattr(message, 'encoding'):
        return message.height, message.width
    image = depth_image(message, source) if depth else color_image(message, source)
    return image.shape[0], image.shape[1]


def _info_topic(topic: str) -> str:
    """The topic of a camera's calibration, beside that of its images."""
    base = topic.removesuffix('/compressed').removesuffix('/compressedDepth')
    return base.rpartition('/')[0] + '/camera_info'


def _distortion(content: BagContent, color: dict[str, Stream]) -> dict[str, list[float]]:
    """Coefficients of the cameras whose images are distorted."""
    infos = {name: content.infos.get(_info_topic(stream.topic)) for name, stream in color.items()}
    return {name: list(map(float, info.d)) for name, info in infos.items() if info is not None and np.any(info.d)}


def _joints(content: BagContent, stamps: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None, GripperUnit]:
    """Positions of the arm's joints [T, J] and of the gripper [T] at some times, of the topic that says most of them; and the gripper's
    unit: the gap between the fingers in metres, or what the name of its one joint says."""
    best: tuple[list[str], set[str], list] = ([], set(), [])
    for said in content.joints.values():
        names = {name for _, positions in said for name in positions}
        arm = sorted((n for n in names if 'finger' not in n and _ARM_JOINT.fullmatch(n)), key=_natural)
        if len(arm) > len(best[0]) or not best[1]:
            best = arm, names, said
    arm, names, said = best
    joints = _interpolated(said, arm, stamps) if arm else None
    fingers = sorted(name for name in names if 'finger_joint' in name)
    if fingers:
        return joints, _interpolated(said, fingers, stamps).sum(1), 'metres'
    for name, unit in GRIPPERS.items():
        if name in names:
            return joints, _interpolated(said, [name], stamps)[:, 0], unit
    return joints, None, 'unknown'


def _actions(content: BagContent, stamps: np.ndarray) -> np.ndarray | None:
    """Actions [T, A], at each frame the one that was logged nearest; None where there are none, or of several lengths."""
    if not content.actions or len({len(values) for _, values in content.actions}) > 1:
        return None
    logged = np.array([time for time, _ in content.actions], np.int64)
    order = np.argsort(logged, kind='stable')
    return np.stack([values for _, values in content.actions])[order][nearest(logged[order], stamps)]


def _interpolated(said: list[tuple[int, dict[str, float]]], names: list[str], stamps: np.ndarray) -> np.ndarray:
    columns = []
    for name in names:
        known = [(stamp, positions[name]) for stamp, positions in said if name in positions]
        times, values = np.array([stamp for stamp, _ in known]), np.array([value for _, value in known])
        order = np.argsort(times, kind='stable')
        since = (times[order] - stamps[0]) / 1e9
        columns.append(np.interp((stamps - stamps[0]) / 1e9, since, values[order]))
    return np.stack(columns, axis=1)


def _named(frames: list[str], patterns: tuple[str, ...]) -> str | None:
    """The first frame that fits a pattern, the patterns in order."""
    return next((frame for pattern in patterns for frame in frames if re.fullmatch(pattern, frame)), None)


def _natural(name: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]
