"""ROS messages made without ROS, and a bag that takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

Storage = Literal['mcap', 'sqlite3']
PLUGINS = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}
IMAGE, COMPRESSED, INFO = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/CameraInfo'
JOINTS, TF, TEXT = 'sensor_msgs/msg/JointState', 'tf2_msgs/msg/TFMessage', 'std_msgs/msg/String'
NUMBERS, POSE, DIAGNOSTICS = (
    'std_msgs/msg/Float64MultiArray',
    'geometry_msgs/msg/PoseStamped',
    'diagnostic_msgs/msg/DiagnosticArray',
)
TF_STATIC = '/tf_static'
_VERSION = 9  # of the bags, as ROS 2 Jazzy writes them
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95)
_MILLIMETRES, _FARTHEST = 1000.0, 65.535
_ENDLESS = QosTime(0x7FFFFFFF, 0xFFFFFFFF)
# As tf2 publishes what never changes: who comes later gets it too.
_LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, _ENDLESS, _ENDLESS,
    QosLiveliness.AUTOMATIC, _ENDLESS, False,
)  # fmt: skip


@cache
def typestore():
    """Definitions of the messages; those used here are the same in all releases of ROS 2."""
    return get_typestore(Stores.ROS2_JAZZY)


class BagFile:
    """A bag that is being written; topics appear with their first message."""

    def __init__(self, writer: Writer):
        self._writer = writer
        self._connections: dict[str, Any] = {}

    def adopt(self, connection: Any, store: Any) -> str:
        """Take a topic of another bag over as it is described there, for `copy`; returns its type.

        Args:
            connection: Of the other bag.
            store: Definitions of its messages.
        """
        described = {'msgdef': connection.msgdef.data, 'rihs01': connection.digest}
        if not all(described.values()):
            described = {'typestore': store}
        self._connections[connection.topic] = self._writer.add_connection(
            connection.topic, connection.msgtype, **described, serialization_format=connection.ext.serialization_format,
            offered_qos_profiles=connection.ext.offered_qos_profiles,
        )  # fmt: skip
        return connection.msgtype

    def copy(self, topic: str, logged_ns: int, data: bytes | memoryview) -> None:
        """Write a message of an adopted topic, byte for byte."""
        self._writer.write(self._connections[topic], logged_ns, data)

    def write(self, topic: str, kind: str, logged_ns: int, message: Any) -> None:
        """Write a message.

        Args:
            topic: Its topic.
            kind: Its type, as in 'std_msgs/msg/String'.
            logged_ns: When it counts as received, nanoseconds, at least 0.
            message: Of `message`.
        """
        if topic not in self._connections:
            qos = (_LATCHED,) if topic == TF_STATIC else ()
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=typestore(), offered_qos_profiles=qos
            )
        self._writer.write(self._connections[topic], logged_ns, typestore().serialize_cdr(message, kind))


@contextmanager
def new_bag(path: Path, storage: Storage) -> Iterator[BagFile]:
    """A bag at a path that does not exist."""
    with Writer(path, version=_VERSION, storage_plugin=PLUGINS[storage]) as writer:
        yield BagFile(writer)


def make(kind: str, **fields: Any) -> Any:
    """A message of a type, as in 'std_msgs/msg/String'."""
    return typestore().types[kind](**fields)


def header(stamp_ns: int, frame: str) -> Any:
    """A header; seconds of a stamp are 32 bits wide."""
    seconds, nanoseconds = divmod(stamp_ns, 10**9)
    return make(
        'std_msgs/msg/Header',
        stamp=make('builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds),
        frame_id=frame,
    )


def raw_image(image: np.ndarray, head: Any) -> Any:
    """An Image of uint8 [H, W, 3] RGB (rgb8), or of float32 [H, W] metres (32FC1)."""
    data = np.ascontiguousarray(image)
    encoding = 'rgb8' if data.ndim == 3 else '32FC1'
    step = data.itemsize * data.shape[1] * (3 if data.ndim == 3 else 1)
    return make(
        IMAGE, header=head, height=data.shape[0], width=data.shape[1], encoding=encoding, is_bigendian=0, step=step,
        data=data.reshape(-1).view(np.uint8),
    )  # fmt: skip


def packed_image(image: np.ndarray, head: Any, form: Literal['jpeg', 'png']) -> Any:
    """A CompressedImage of uint8 [H, W, 3] RGB."""
    _, data = cv2.imencode(f'.{form}', image[..., ::-1], _JPEG if form == 'jpeg' else ())
    return make(COMPRESSED, header=head, format=f'rgb8; {form} compressed bgr8', data=data.reshape(-1))


def packed_depth(depth: np.ndarray, head: Any) -> Any:
    """A CompressedImage, as compressed_depth_image_transport makes it, of float [H, W] metres: PNG of 16 bits, millimetres."""
    known = np.isfinite(depth) & (depth > 0) & (depth <= _FARTHEST)
    codes = np.where(known, np.rint(np.where(known, depth, 0) * _MILLIMETRES), 0).astype(np.uint16)
    data = np.concatenate([np.zeros(12, np.uint8), cv2.imencode('.png', codes)[1].reshape(-1)])
    return make(COMPRESSED, header=head, format='16UC1; compressedDepth png', data=data)


def camera_info(K: np.ndarray, width: int, height: int, head: Any, distortion: list[float] | None = None) -> Any:
    """A CameraInfo of K [3, 3], pixels; coefficients as plumb_bob or, where there are eight, rational_polynomial."""
    d = np.asarray(distortion or [0.0] * 5, np.float64)
    projection = np.concatenate([K, np.zeros((3, 1))], axis=1)
    roi = make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return make(
        INFO, header=head, height=height, width=width, distortion_model='rational_polynomial' if len(d) == 8 else 'plumb_bob', d=d,
        k=np.asarray(K, np.float64).reshape(-1), r=np.eye(3).reshape(-1), p=projection.reshape(-1), binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip


def transform(T_parent_child: np.ndarray, head: Any, child: str) -> Any:
    """A TransformStamped of a pose, float64 [4, 4], metres; the header names the parent."""
    x, y, z = map(float, T_parent_child[:3, 3])
    moved = make(
        'geometry_msgs/msg/Transform', translation=make('geometry_msgs/msg/Vector3', x=x, y=y, z=z), rotation=_quaternion(T_parent_child)
    )  # fmt: skip
    return make('geometry_msgs/msg/TransformStamped', header=head, child_frame_id=child, transform=moved)


def pose_stamped(T: np.ndarray, head: Any) -> Any:
    """A PoseStamped of a pose, float64 [4, 4], metres, in the frame that the header names."""
    x, y, z = map(float, T[:3, 3])
    position = make('geometry_msgs/msg/Point', x=x, y=y, z=z)
    pose = make('geometry_msgs/msg/Pose', position=position, orientation=_quaternion(T))
    return make(POSE, header=head, pose=pose)


def joint_state(names: list[str], positions: np.ndarray, head: Any) -> Any:
    """A JointState, radians and metres; velocities and efforts are not told."""
    none = np.empty(0, np.float64)
    return make(JOINTS, header=head, name=names, position=np.asarray(positions, np.float64), velocity=none, effort=none)


def numbers(values: np.ndarray) -> Any:
    """A Float64MultiArray of one row of numbers."""
    layout = make('std_msgs/msg/MultiArrayLayout', dim=[], data_offset=0)
    return make(NUMBERS, layout=layout, data=np.asarray(values, np.float64).reshape(-1))


def diagnostics(name: str, is_good: bool, what: str, values: dict[str, str], head: Any) -> Any:
    """A DiagnosticArray with one entry, of level OK or WARN."""
    pairs = [make('diagnostic_msgs/msg/KeyValue', key=key, value=value) for key, value in values.items()]
    status = make(
        'diagnostic_msgs/msg/DiagnosticStatus', level=0 if is_good else 1, name=name, message=what, hardware_id='', values=pairs
    )  # fmt: skip
    return make(DIAGNOSTICS, header=head, status=[status])


def _quaternion(T: np.ndarray) -> Any:
    x, y, z, w = map(float, Rotation.from_matrix(T[:3, :3]).as_quat(canonical=True))
    return make('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w)
