"""Messages to arrays and back: images, calibrations, poses, clouds, stamps."""

from __future__ import annotations

import array
from enum import Enum

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, PoseStamped, TransformStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header
from torch import Tensor

from wristworld_ros.errors import UserError

# Encodings that are converted here: channels per pixel, and which of them are red, green and blue. With 8 bits per
# channel `is_bigendian` has no meaning.
PLAIN = {
    'rgb8': (3, (0, 1, 2)),
    'bgr8': (3, (2, 1, 0)),
    'rgba8': (4, (0, 1, 2)),
    'bgra8': (4, (2, 1, 0)),
    'mono8': (1, (0, 0, 0)),
}
# Families of encodings that cv_bridge turns into rgb8.
_CV_BRIDGE = ('bayer_', 'yuv422', 'nv21', 'nv24', 'mono16', 'rgb16', 'bgr16', 'rgba16', 'bgra16')

POINT = np.dtype([('xyz', '<f4', 3), ('bgr0', 'u1', 4)])  # rgb as rviz reads it: 0x00RRGGBB, little endian
_POINT_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(('x', 'y', 'z', 'rgb'))
]


class ImageFault(Enum):
    """Which part of an image message cannot be used."""

    ENCODING = 'encoding'
    STEP = 'step'
    SIZE = 'size'
    DATA = 'data'

    @property
    def counter(self) -> str:
        """The field of VirtualWristStatus that counts such images."""
        return f'images_bad_{self.value}'


class ImageError(UserError):
    """An image message that cannot be used; `fault` says which part of it."""

    def __init__(self, fault: ImageFault, what: str, fix: str):
        super().__init__(what, fix)
        self.fault = fault


# Images


def to_rgb(msg: Image | CompressedImage) -> np.ndarray:
    """The RGB image of a message.

    The common 8-bit encodings are converted here: that copies at most once, honours `step`, and does not depend on a
    cv_bridge that fits the installed numpy and OpenCV. Every other encoding (bayer, yuv, 16 bit) goes through cv_bridge.
    Compressed images may be JPEG, PNG or whatever else OpenCV decodes.

    Returns:
        uint8 [H, W, 3]; for rgb8 without padding a read-only view of the message's own memory.

    Raises:
        ImageError: The message holds no usable image.
    """
    if isinstance(msg, CompressedImage):
        return _decompress(msg)
    if msg.height == 0 or msg.width == 0:
        raise ImageError(ImageFault.SIZE, f'image is {msg.width}x{msg.height}', 'send images that have pixels')
    if msg.encoding not in PLAIN:
        return _by_cv_bridge(msg)
    channels, order = PLAIN[msg.encoding]
    row = msg.width * channels
    if msg.step < row:
        what = f'step is {msg.step} bytes, and {msg.width} pixels of {msg.encoding} take {row}'
        raise ImageError(ImageFault.STEP, what, 'set step to the bytes of a row, padding included')
    # The last row may come without its padding.
    needed = msg.step * (msg.height - 1) + row
    if len(msg.data) < needed:
        what = f'data holds {len(msg.data)} bytes, and {msg.height} rows of {msg.step} take {needed}'
        raise ImageError(ImageFault.DATA, what, 'send every row')
    flat = np.frombuffer(msg.data, np.uint8)
    pixels = np.lib.stride_tricks.as_strided(
        flat, (msg.height, msg.width, channels), (msg.step, channels, 1), writeable=False
    )
    if msg.encoding == 'rgb8':
        return pixels if msg.step == row else np.ascontiguousarray(pixels)
    return np.ascontiguousarray(pixels[..., list(order)])


def _decompress(msg: CompressedImage) -> np.ndarray:
    if len(msg.data) == 0:
        raise ImageError(ImageFault.SIZE, 'compressed image holds no data', 'send JPEG or PNG')
    try:
        bgr = cv2.imdecode(np.frombuffer(msg.data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        bgr = None
    if bgr is None:
        what = f'compressed image ({msg.format or "no format given"}, {len(msg.data)} bytes) cannot be decoded'
        raise ImageError(ImageFault.DATA, what, 'send JPEG or PNG')
    return np.ascontiguousarray(bgr[..., ::-1])


def _by_cv_bridge(msg: Image) -> np.ndarray:
    plain = f'have the camera publish one of {", ".join(PLAIN)}'
    try:
        from cv_bridge import CvBridge
    except ImportError as error:
        fix = f'install cv_bridge, or {plain}' if msg.encoding.startswith(_CV_BRIDGE) else plain
        raise ImageError(ImageFault.ENCODING, f"encoding '{msg.encoding}' is not one that is read here", fix) from error
    try:
        return np.ascontiguousarray(CvBridge().imgmsg_to_cv2(msg, desired_encoding='rgb8'))
    except Exception as error:  # cv_bridge raises its own error, KeyError, TypeError and cv2.error
        what = f"cv_bridge cannot turn '{msg.encoding}' into rgb8 ({error})"
        raise ImageError(ImageFault.ENCODING, what, plain) from error


def message_data(values: np.ndarray) -> array.array:
    """The bytes of an array as message data. A list or an ndarray would be checked element by element: 500 times slower."""
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(values).data.cast('B'))
    return data


def to_image(rgb: np.ndarray, header: Header) -> Image:
    """rgb8 message of uint8 [H, W, 3]."""
    height, width = rgb.shape[:2]
    return Image(header=header, height=height, width=width, encoding='rgb8', step=3 * width, data=message_data(rgb))


def to_compressed(rgb: np.ndarray, header: Header, quality: int = 90) -> CompressedImage:
    """JPEG message of uint8 [H, W, 3]."""
    done, jpeg = cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f'OpenCV cannot encode an image of shape {list(rgb.shape)} as JPEG.')
    return CompressedImage(header=header, format='rgb8; jpeg compressed bgr8', data=message_data(jpeg))


# Calibrations


def to_camera_info(K: np.ndarray, width: int, height: int, header: Header) -> CameraInfo:
    """A camera without distortion: plumb_bob, d = 0, r = I, p = [K | 0].

    Args:
        K: float64 [3, 3], pixels.
        width: Of the image, pixels.
        height: Of the image, pixels.
        header: That of the image.
    """
    P = np.zeros((3, 4))
    P[:, :3] = K
    return CameraInfo(
        header=header,
        width=int(width),
        height=int(height),
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=[float(v) for v in np.asarray(K).ravel()],
        r=[float(v) for v in np.eye(3).ravel()],
        p=[float(v) for v in P.ravel()],
    )


def to_intrinsics(msg: CameraInfo, width: int, height: int) -> np.ndarray | None:
    """float64 [3, 3] in pixels of a width x height image, or None where the camera is uncalibrated (k[0] = 0).

    A calibration made at another size is rescaled; one that does not state its size is taken as it is.
    """
    if not msg.k[0] > 0:
        return None
    K = np.array(msg.k, np.float64).reshape(3, 3)
    return scale_intrinsics(K, (msg.width or width, msg.height or height), (width, height))


def scale_intrinsics(K: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """K [3, 3] after an image was resized from old to new (width, height). Pixel i's centre is coordinate i."""
    K = K.copy()
    for row in (0, 1):
        ratio = new[row] / old[row]
        K[row, :2] *= ratio
        K[row, 2] = (K[row, 2] + 0.5) * ratio - 0.5
    return K


# Poses


def to_quaternion(T: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, z, w of the rotation of T [4, 4]: by tf_transformations where it is installed, else by what that wraps."""
    try:
        from tf_transformations import quaternion_from_matrix
    except ImportError:
        return quaternion_by_transforms3d(T)
    x, y, z, w = quaternion_from_matrix(T)
    return float(x), float(y), float(z), float(w)


def quaternion_by_transforms3d(T: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, z, w of the rotation of T [4, 4]."""
    from transforms3d.quaternions import mat2quat

    w, x, y, z = mat2quat(np.asarray(T, np.float64)[:3, :3])
    return float(x), float(y), float(z), float(w)


def to_pose(T: np.ndarray) -> Pose:
    """The pose of frame b in frame a, from T_a_b [4, 4]."""
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = (float(v) for v in T[:3, 3])
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = to_quaternion(T)
    return pose


def to_pose_stamped(T: np.ndarray, header: Header) -> PoseStamped:
    """T_a_b [4, 4], where the header names frame a."""
    return PoseStamped(header=header, pose=to_pose(T))


def to_transform(T: np.ndarray, header: Header, child: str) -> TransformStamped:
    """T_parent_child [4, 4] as a TF edge from header.frame_id to child."""
    edge, pose = TransformStamped(header=header, child_frame_id=child), to_pose(T)
    edge.transform.translation.x = pose.position.x
    edge.transform.translation.y = pose.position.y
    edge.transform.translation.z = pose.position.z
    edge.transform.rotation = pose.orientation
    return edge


# Clouds and stamps


def to_cloud(points: Tensor, colors: Tensor, header: Header, stride: int = 1) -> PointCloud2:
    """A coloured cloud; points that are not finite are left out.

    Args:
        points: float32 [V, H, W, 3] in header's frame, metres, on any device.
        colors: uint8 [V, H, W, 3].
        header: Stamp and frame.
        stride: Every stride-th point of each row and column is taken.
    """
    xyz = points[:, ::stride, ::stride].reshape(-1, 3).detach().float().cpu().numpy()
    rgb = colors[:, ::stride, ::stride].reshape(-1, 3).cpu().numpy()
    keep = np.isfinite(xyz).all(-1)
    cloud = np.zeros(int(keep.sum()), POINT)
    cloud['xyz'] = xyz[keep]
    cloud['bgr0'][:, :3] = rgb[keep][:, ::-1]
    return PointCloud2(
        header=header,
        height=1,
        width=len(cloud),
        fields=_POINT_FIELDS,
        is_bigendian=False,
        point_step=POINT.itemsize,
        row_step=POINT.itemsize * len(cloud),
        data=message_data(cloud.view(np.uint8)),
        is_dense=True,
    )


def to_stamp(ns: int) -> Time:
    """Nanoseconds as a message stamp."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def to_ns(stamp: Time) -> int:
    """A message stamp as nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec
