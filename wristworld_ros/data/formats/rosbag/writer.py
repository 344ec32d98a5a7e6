"""Writes episodes of any format as ROS 2 bags: a folder with one bag per episode.

Cameras get /<name>/image_raw (or .../compressed), camera_info, depth/image_raw; the robot /tf, /tf_static, /joint_states, /action,
/language_instruction. What no message has a place for is JSON on `EPISODE_TOPIC`, which the reader takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wristworld_ros.data.episode import Episode, EpisodeCamera
from wristworld_ros.data.formats.rosbag import messages
from wristworld_ros.data.formats.rosbag.content import ACTION_TOPIC, EPISODE_TOPIC, KINDS, EpisodeFacts
from wristworld_ros.data.formats.rosbag.messages import BagFile, Storage, header, new_bag
from wristworld_ros.data.formats.rosbag.reader import GRIPPERS
from wristworld_ros.data.poses import inverse
from wristworld_ros.data.writing import Opened, WriteReport, colour_cameras, plain_meta, plain_names, write_each
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import json_text
from wristworld_ros.runtime.files import new_directory

Packing = Literal['raw', 'png', 'jpeg']
_BLOCK = 8  # frames of all cameras that are held at once
_LANGUAGE = '/language_instruction'
_MAX_SECONDS = 2**31  # of a ROS stamp
Entry = tuple[int, str, str, Any]  # logged time, topic, type, message


def write_bags(
    path: str | Path,
    episodes: Iterable[Opened],
    storage: Storage = 'mcap',
    packing: Packing = 'raw',
    replace: bool = False,
    on_episode: Callable[[], object] = lambda: None,
) -> WriteReport:
    """Write a folder of bags, one per episode; it appears whole or not at all.

    Args:
        path: The folder, which must not exist.
        episodes: What opens each of them; one that cannot be read whole is left out.
        storage: mcap or sqlite3.
        packing: Of the images: raw, or compressed as PNG or JPEG. Depth is raw float32 in metres, or PNG in millimetres.
        replace: Whether an older folder in its place gives way.
        on_episode: Called after each episode.

    Raises:
        UserError: No episode could be written, or the disk refuses.
    """
    report = WriteReport()
    with new_directory(Path(path), replace, f'{0:06d}/metadata.yaml') as folder:

        def add(episode: Episode) -> None:
            _check(episode)
            with new_directory(folder / f'{report.episodes:06d}', marker='metadata.yaml') as place:
                place.rmdir()  # the library makes it
                with new_bag(place, storage) as bag:
                    _BagEpisodeWriter(bag, episode, packing).write()
            if any(camera.has_objects for camera in episode.cameras):
                report.note('Masks of objects are left out, for bags have none.')
            report.episodes += 1
            report.frames += len(episode)

        write_each(Path(path), episodes, add, report, on_episode)
    return report


def topic_name(name: str) -> str:
    """A camera's part of its topics, such that a reader finds it again: names that only say what images are get another."""
    return f'camera_{name}' if name in KINDS or name[:1].isdigit() else name


def _check(episode: Episode) -> None:
    if not len(episode):
        raise UserError(f'{episode.name} has no frame', 'leave it out')
    if not colour_cameras(episode):
        raise UserError(f'{episode.path} has no camera in {episode.name}', 'give episodes with cameras')
    first, last = int(episode.stamps_ns[0]), int(episode.stamps_ns[-1])
    if first < 0 or last >= _MAX_SECONDS * 10**9:
        raise UserError(
            f'{episode.name} has times from {first / 1e9:.3f} to {last / 1e9:.3f} s, and ROS has 0 to {_MAX_SECONDS}',
            'give times since 1970 or since the begin of the recording',
        )


@dataclass(frozen=True)
class _Camera:
    """A camera on its topics. frame: its optical TF frame. images: by image that is written, the frame that it is read by, int64 [N];
    times: of these, nanoseconds."""

    entry: EpisodeCamera
    topic: str
    frame: str
    images: np.ndarray
    times: np.ndarray


class _BagEpisodeWriter:
    def __init__(self, bag: BagFile, episode: Episode, packing: Packing):
        self._bag, self._episode, self._packing = bag, episode, packing
        names = plain_names(episode)
        self._cameras = [self._camera(camera, topic_name(names[camera.name])) for camera in colour_cameras(episode)]
        self._base = str(episode.meta.get('base_frame') or _base_of(episode.hand_link))
        self._hand = episode.hand_link or 'hand'

    def write(self) -> None:
        """Write all of it, in about the order of time; images of `_BLOCK` frames are held at once.

        Raises:
            UserError: An image cannot be read.
        """
        for entry in self._head():
            self._write(entry)
        stamps = self._episode.stamps_ns
        for start in range(0, len(stamps), _BLOCK):
            frames = np.arange(start, min(start + _BLOCK, len(stamps)))
            entries = [*self._robot(frames)]
            for camera in self._cameras:
                entries += self._images(camera, frames)
            for entry in sorted(entries, key=lambda entry: entry[0]):
                self._write(entry)

    def _camera(self, entry: EpisodeCamera, name: str) -> _Camera:
        """Frames that show one image several times write it once."""
        times, first = np.unique(self._episode.times_ns(entry.name), return_index=True)
        return _Camera(entry, name, f'{name}_optical_frame', first, times)

    def _write(self, entry: Entry) -> None:
        logged, topic, kind, message = entry
        self._bag.write(topic, kind, max(logged, 0), message)

    def _head(self) -> Iterator[Entry]:
        episode, start = self._episode, int(self._episode.stamps_ns[0])
        clock = next(
            (c.topic for c in self._cameras if np.array_equal(episode.times_ns(c.entry.name), episode.stamps_ns)), None
        )
        facts = EpisodeFacts(
            fps=float(episode.fps), base_frame=self._base, hand_frame=self._hand if episode.T_base_hand is not None else None,
            hand_link=episode.hand_link, gripper_link=episode.gripper_link, roles={c.topic: c.entry.role for c in self._cameras}, clock=clock,
            language=episode.language, success=episode.success, meta=plain_meta(episode.meta),
        )  # fmt: skip
        yield (
            start,
            EPISODE_TOPIC,
            messages.TEXT,
            messages.make(messages.TEXT, data=json_text(vars(facts), None).strip()),
        )
        for text in episode.language:
            yield start, _LANGUAGE, messages.TEXT, messages.make(messages.TEXT, data=text)
        fixed = []
        for camera in self._cameras:
            poses = episode.T_camera_world(camera.entry.name)
            if poses is not None and _is_fixed(poses):
                fixed.append(messages.transform(inverse(poses[0]), header(start, self._base), camera.frame))
        if fixed:
            yield start, messages.TF_STATIC, messages.TF, messages.make(messages.TF, transforms=fixed)

    def _robot(self, frames: np.ndarray) -> Iterator[Entry]:
        """What is said of the robot, and of cameras that move, at some frames."""
        episode = self._episode
        moving = {self._hand: episode.T_base_hand} if episode.T_base_hand is not None else {}
        for camera in self._cameras:
            poses = episode.T_camera_world(camera.entry.name)
            if poses is not None and not _is_fixed(poses):
                moving[camera.frame] = inverse(poses)
        for frame in frames:
            stamp = int(episode.stamps_ns[frame])
            head = header(stamp, self._base)
            moved = [
                messages.transform(T[frame], head, name) for name, T in moving.items() if np.isfinite(T[frame]).all()
            ]
            if moved:
                yield stamp, '/tf', messages.TF, messages.make(messages.TF, transforms=moved)
            names, positions = self._joints(frame)
            if names:
                yield stamp, '/joint_states', messages.JOINTS, messages.joint_state(names, positions, header(stamp, ''))
            if episode.actions is not None:
                yield stamp, ACTION_TOPIC, messages.NUMBERS, messages.numbers(episode.actions[frame])

    def _joints(self, frame: int) -> tuple[list[str], np.ndarray]:
        """Names and positions of the arm's joints and of the gripper."""
        episode, names, values = self._episode, list[str](), list[np.ndarray]()
        if episode.joints is not None:
            names += [f'joint{i + 1}' for i in range(episode.joints.shape[1])]
            values.append(episode.joints[frame])
        if episode.gripper is not None:
            gripper = episode.gripper[frame : frame + 1]
            if episode.gripper_unit == 'metres':  # each finger has half of the gap
                names += ['finger_joint1', 'finger_joint2']
                values.append(np.repeat(gripper / 2, 2))
            else:
                names.append(next(name for name, unit in GRIPPERS.items() if unit == episode.gripper_unit))
                values.append(gripper)
        return names, np.concatenate(values) if values else np.empty(0)

    def _images(self, camera: _Camera, frames: np.ndarray) -> Iterator[Entry]:
        """Images, depth and calibration of a camera whose images first show at some frames."""
        episode, entry = self._episode, camera.entry
        chosen = (camera.images >= frames[0]) & (camera.images <= frames[-1])
        read, times = camera.images[chosen], camera.times[chosen]
        images = episode.read(entry.name, read)
        depth = episode.read_depth(entry.name, read) if entry.has_depth else None
        K, distortion = episode.K(entry.name), episode.meta.get('distortion', {}).get(entry.name)
        for place, (frame, time) in enumerate(zip(read, times.tolist())):
            head, topic = header(time, camera.frame), f'/{camera.topic}'
            if K is not None and np.isfinite(K[frame]).all():
                info = messages.camera_info(K[frame], entry.width, entry.height, head, distortion)
                yield time, f'{topic}/camera_info', messages.INFO, info
            if self._packing == 'raw':
                yield time, f'{topic}/image_raw', messages.IMAGE, messages.raw_image(images[place], head)
            else:
                image = messages.packed_image(images[place], head, self._packing)
                yield time, f'{topic}/image_raw/compressed', messages.COMPRESSED, image
            if depth is not None and self._packing == 'raw':
                yield time, f'{topic}/depth/image_raw', messages.IMAGE, messages.raw_image(depth[place], head)
            elif depth is not None:
                map_ = messages.packed_depth(depth[place], head)
                yield time, f'{topic}/depth/image_raw/compressedDepth', messages.COMPRESSED, map_


def _is_fixed(poses: np.ndarray) -> bool:
    return bool(np.isfinite(poses).all() and (poses == poses[0]).all())


def _base_of(hand_link: str) -> str:
    """A name for the base frame that goes with that of the hand."""
    arm, separator, _ = hand_link.rpartition('_')
    return f'{arm}_link0' if separator else 'base_link'
