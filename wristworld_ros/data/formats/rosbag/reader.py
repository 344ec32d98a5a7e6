"""Reads ROS 2 bags as episodes. A bag is read through once when it is opened, for stamps, transforms and joints; images stay in it.

The first anchor camera is the clock: a frame is one of its images, with the image of every other camera that was taken nearest.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from wristworld_ros.data.episode import DataSet, Episode, EpisodeCamera, GripperUnit, Role, check_indices, role_of
from wristworld_ros.data.formats.rosbag import is_bag
from wristworld_ros.data.formats.rosbag.images import color_image, depth_image, is_depth
from wristworld_ros.data.formats.rosbag.transforms import TransformTree
from wristworld_ros.data.matching import nearest
from wristworld_ros.data.poses import pose_from_xyz_quaternion
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import decode_json

IMAGES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
_INFO, _JOINTS, _TF, _TEXT = (
    'sensor_msgs/msg/CameraInfo',
    'sensor_msgs/msg/JointState',
    'tf2_msgs/msg/TFMessage',
    'std_msgs/msg/String',
)
_ACTION, EPISODE_TOPIC, ACTION_TOPIC = 'std_msgs/msg/Float64MultiArray', '/wristworld/episode', '/action'
GRIPPERS: dict[str, GripperUnit] = {
    'gripper_closed': 'closed',
    'gripper': 'unknown',
}  # joints that are no fingers in metres
_FIX = 'record the bag again, or restore it from where it came'
# Parts of a topic's name that say what the images are, not whose.
KINDS = {
    'color',
    'colour',
    'rgb',
    'image',
    'image_raw',
    'image_rect',
    'image_rect_raw',
    'image_rect_color',
    'image_color',
    'compressed',
    'compressedDepth',
}
_DEPTH_KINDS = {'depth', 'aligned_depth_to_color', 'depth_registered', 'depth_to_rgb'}
_BASES = (r'.*_link0', r'(.*_)?base_link', r'(.*_)?base')
_HANDS = (r'.*_hand', r'.*_link8', r'tool0', r'.*_tcp')
_ARM_JOINT = re.compile(r'.*joint_?\d+')


@dataclass
class Stream:
    """The images on one topic: logged and header times of each, nanoseconds; and what the first message says."""

    topic: str
    logged: list[int] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    first: Any = None

    def sorted(self) -> Stream:
        """The same in order of the header's stamps; of two with one stamp the first."""
        stamps, places = np.unique(np.asarray(self.stamps, np.int64), return_index=True)
        return replace(self, stamps=stamps.tolist(), logged=[self.logged[i] for i in places])


@dataclass(frozen=True)
class EpisodeFacts:
    """What `write_bags` says of an episode beside the messages. roles: by camera. clock: the camera whose stamps are the frames'.
    hand_frame: TF frame of `hand_link`. The rest as of `Episode`."""

    fps: float
    base_frame: str
    hand_frame: str | None
    hand_link: str
    roles: dict[str, Role]
    clock: str | None
    language: tuple[str, ...]
    success: bool | None
    meta: dict[str, Any]


@dataclass
class BagContent:
    """What one reading of a bag gives, without the images. infos: the first of each topic; intrinsics: K [9] from which stamp on."""

    color: dict[str, Stream] = field(default_factory=dict)
    depth: dict[str, Stream] = field(default_factory=dict)
    infos: dict[str, Any] = field(default_factory=dict)
    intrinsics: dict[str, list[tuple[int, np.ndarray]]] = field(default_factory=dict)
    joints: dict[str, list[tuple[int, dict[str, float]]]] = field(default_factory=dict)
    tree: TransformTree = field(default_factory=TransformTree)
    texts: list[str] = field(default_factory=list)
    actions: list[tuple[int, np.ndarray]] = field(default_factory=list)
    facts: EpisodeFacts | None = None


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
            for place, message in _messages(self.path, stream, np.unique(places)):
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
        for place, message in _messages(self.path, stream, np.unique(places)):
            source = f'message {place} on {stream.topic} of {self.path}'
            image = decode(message, source)
            if image.shape != shape:
                raise UserError(
                    f'{source} is {image.shape[1]}x{image.shape[0]}, and the first was {shape[1]}x{shape[0]}', _FIX
                )
            out[places == place] = image
        return out


def read_bag(path: Path) -> BagContent:
    """Read a bag through once.

    Raises:
        UserError: It cannot be read, or ends in the middle.
    """
    content = BagContent()
    with opened_bag(path) as bag:
        wanted = [
            c
            for c in bag.connections
            if c.msgtype in (*IMAGES, _INFO, _JOINTS, _TF, _TEXT) or (c.msgtype, c.topic) == (_ACTION, ACTION_TOPIC)
        ]
        for connection, logged, data in bag.messages(connections=wanted):
            kind, topic = connection.msgtype, connection.topic
            if kind in IMAGES:
                _note_image(content, bag, connection, logged, data)
            elif kind == _INFO:
                info = bag.deserialize(data, kind)
                content.infos.setdefault(topic, info)
                known = content.intrinsics.setdefault(topic, [])
                if not known or not np.array_equal(known[-1][1], info.k):
                    known.append((_stamp(info.header), info.k))
            elif kind == _JOINTS:
                message = bag.deserialize(data, kind)
                if len(message.position) == len(message.name):
                    positions = dict(zip(message.name, map(float, message.position)))
                    content.joints.setdefault(topic, []).append((_stamp(message.header), positions))
            elif kind == _TF:
                for entry in bag.deserialize(data, kind).transforms:
                    t, q = entry.transform.translation, entry.transform.rotation
                    T = pose_from_xyz_quaternion(np.array([t.x, t.y, t.z, q.x, q.y, q.z, q.w]))
                    frames = entry.header.frame_id.lstrip('/'), entry.child_frame_id.lstrip('/')
                    content.tree.add(*frames, _stamp(entry.header), T, topic.endswith('tf_static'))
            elif kind == _ACTION:
                content.actions.append((logged, np.asarray(bag.deserialize(data, kind).data, np.float64)))
            elif topic == EPISODE_TOPIC:
                content.facts = decode_json(bag.deserialize(data, kind).data, EpisodeFacts, f'{topic} of {path}', _FIX)
            elif re.search(r'instruction|task|language', topic):
                content.texts.append(bag.deserialize(data, kind).data)
    return content


def camera_name(topic: str) -> str:
    """What a camera is called whose images are on a topic: the parts of its name that do not say what they are."""
    parts = [part for part in topic.split('/') if part and part not in KINDS | _DEPTH_KINDS]
    return '_'.join(parts) or 'camera'


def _note_image(content: BagContent, bag: AnyReader, connection: Any, logged: int, data: bytes) -> None:
    topic = connection.topic
    known = next((s for streams in (content.color, content.depth) for s in streams.values() if s.topic == topic), None)
    if known is None:
        first = bag.deserialize(data, connection.msgtype)
        streams, name = (content.depth if is_depth(first) else content.color), camera_name(topic)
        if name in streams and hasattr(streams[name].first, 'encoding'):
            return  # the raw images of this camera are there already
        known = streams[name] = Stream(topic, first=first)
    known.logged.append(logged)
    known.stamps.append(_header_stamp(data))


@cache
def _typestore():
    # Bags that carry no definitions of their messages have those of a ROS release; these messages are the same in all of them.
    return get_typestore(Stores.ROS2_JAZZY)


def _header_stamp(data: bytes) -> int:
    """The stamp at the begin of a serialised message with a header, nanoseconds; the rest is not looked at."""
    order = '<' if data[1] & 1 else '>'
    seconds, nanoseconds = struct.unpack_from(f'{order}iI', data, 4)
    return seconds * 10**9 + nanoseconds


def _stamp(header: Any) -> int:
    return header.stamp.sec * 10**9 + header.stamp.nanosec


@contextmanager
def opened_bag(path: Path) -> Iterator[AnyReader]:
    """A bag that is open for reading.

    Raises:
        UserError: It cannot be read, at its begin or while messages are taken from it.
    """
    try:
        with AnyReader([path], default_typestore=_typestore()) as bag:
            yield bag
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file makes of the reader's parts
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip('.')
        kind = '' if isinstance(error, AnyReaderError) else f'{type(error).__name__}: '
        raise UserError(f'{path} cannot be read as a ROS 2 bag ({kind}{reason})', _FIX) from None


def _messages(path: Path, stream: Stream, places: np.ndarray) -> Iterator[tuple[int, Any]]:
    """Some messages of a stream, in order; neighbours are read in one go."""
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    with opened_bag(path) as bag:
        connections = [c for c in bag.connections if c.topic == stream.topic]
        for run in runs:
            wanted = {(stream.logged[i], stream.stamps[i]): int(i) for i in run}
            start, stop = min(logged for logged, _ in wanted), max(logged for logged, _ in wanted) + 1
            for connection, logged, data in bag.messages(connections=connections, start=start, stop=stop):
                place = wanted.pop((logged, _header_stamp(data)), None)
                if place is not None:
                    yield place, bag.deserialize(data, connection.msgtype)
            if wanted:
                raise UserError(f'Message {min(wanted.values())} on {stream.topic} of {path} is gone', _FIX)


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
