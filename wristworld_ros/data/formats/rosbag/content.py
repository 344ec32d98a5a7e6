"""One reading of a ROS 2 bag: what is in it, without the images, and how single messages are found again."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from wristworld_ros.data.episode import Role
from wristworld_ros.data.formats.rosbag.images import is_depth
from wristworld_ros.data.formats.rosbag.transforms import TransformTree
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
FIX = 'record the bag again, or restore it from where it came'
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
    gripper_link: str = ''


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
                content.facts = decode_json(bag.deserialize(data, kind).data, EpisodeFacts, f'{topic} of {path}', FIX)
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
        raise UserError(f'{path} cannot be read as a ROS 2 bag ({kind}{reason})', FIX) from None


def stored_messages(path: Path, stream: Stream, places: np.ndarray) -> Iterator[tuple[int, Any]]:
    """Some messages of a stream with their places in it, in order; neighbours are read in one go.

    Raises:
        UserError: The bag cannot be read, or is another one by now.
    """
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
                raise UserError(f'Message {min(wanted.values())} on {stream.topic} of {path} is gone', FIX)
