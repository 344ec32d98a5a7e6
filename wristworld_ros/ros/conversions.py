"""Messages to arrays and back: images, calibrations, poses, clouds, stamps."""

from __future__ import annotations

import array
import io

import cv2
import numpy as np
import PIL.Image
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, PoseStamped, TransformStamped
from PIL import ImageOps
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header
from torch import Tensor

from wristworld_ros.errors import UserError
from wristworld_ros.ros.image_header import (
    CV_BRIDGE,
    ENCODINGS,
    PLAIN,
    Encoding,
    ImageError,
    ImageFault,
    ImageHeader,
    ImageLimits,
    quoted,
    read_header,
)

POINT = np.dtype([('xyz', '<f4', 3), ('bgr0', 'u1', 4)])  # rgb as rviz reads it: 0x00RRGGBB, little endian
_POINT_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(('x', 'y', 'z', 'rgb'))
]


# Images


def to_rgb(msg: Image | CompressedImage, limits: ImageLimits | None = None) -> np.ndarray:
    """The RGB image of a message; `image_header.read_header` judges it first.

    Raw images of the common encodings are converted here: that copies at most once, honours `step`, and does not depend on
    a cv_bridge that fits the installed numpy and OpenCV. 16-bit samples are scaled to 8 bits. JPEG and PNG are decoded by
    Pillow, which raises where data is missing and, unlike OpenCV's decoders, writes nothing to stderr.

    Args:
        msg: The message.
        limits: The most it may ask for; None where its sender is trusted.

    Returns:
        uint8 [H, W, 3]; for rgb8 without padding a read-only view of the message's own memory.

    Raises:
        ImageError: The message holds no usable image.
    """
    header = read_header(msg, limits)
    if isinstance(msg, CompressedImage):
        return _decompress(msg, header)
    if header.encoding in CV_BRIDGE:
        return _by_cv_bridge(msg)
    encoding = ENCODINGS[header.encoding]
    flat = np.frombuffer(msg.data, np.uint8)
    shape, strides = (msg.height, msg.width, encoding.pixel_bytes), (msg.step, encoding.pixel_bytes, 1)
    pixels = np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False)
    if msg.encoding == 'rgb8':
        return pixels if msg.step == shape[1] * shape[2] else np.ascontiguousarray(pixels)
    if encoding.sample_bytes == 2:
        pixels = np.ascontiguousarray(pixels).view('>u2' if msg.is_bigendian else '<u2')
    return _as_rgb(pixels, encoding)


def _as_rgb(samples: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Samples [H, W, channels], uint8 or uint16, as RGB."""
    if samples.dtype.itemsize == 2:
        samples = np.rint(samples / 257).astype(np.uint8)  # 65535 becomes 255
    if encoding.code is None:
        return np.ascontiguousarray(samples[..., list(encoding.order)])
    return cv2.cvtColor(np.ascontiguousarray(samples), encoding.code)


def _decompress(msg: CompressedImage, header: ImageHeader) -> np.ndarray:
    """A JPEG or PNG with that header."""
    try:
        with PIL.Image.open(io.BytesIO(msg.data), formats=('JPEG', 'PNG')) as image:
            if image.size != (header.width, header.height):
                raise ValueError(f'it holds an image of {image.size[0]}x{image.size[1]} under another header')
            upright = ImageOps.exif_transpose(image)
            if header.encoding:
                samples = np.array(upright if upright.mode.startswith('I') else upright.convert('L'))
                if samples.dtype != np.uint8:
                    samples = samples.astype(np.uint16)
                return _as_rgb(samples[..., None], ENCODINGS[header.encoding])
            return np.array(upright.convert('RGB'))
    except Exception as error:  # Pillow raises OSError, ValueError, SyntaxError, struct.error, ...
        what = f'compressed image (format {quoted(msg.format)}, {len(msg.data)} bytes) cannot be decoded ({first_line(error)})'
        raise DecoderError(ImageFault.DATA, what, 'check the connection to the camera, and send JPEG or PNG') from error


class DecoderError(ImageError):
    """Data under a good header that its decoder refused."""


def first_line(error: Exception) -> str:
    """What an exception says, in one line and without a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip('.')


def _by_cv_bridge(msg: Image) -> np.ndarray:
    publish = f'have the camera publish one of {", ".join(PLAIN)}'
    try:
        from cv_bridge import CvBridge
    except ImportError as error:
        what = f"encoding '{msg.encoding}' is converted by cv_bridge, which is not installed"
        raise ImageError(ImageFault.ENCODING, what, f'install cv_bridge, or {publish}') from error
    try:
        return np.ascontiguousarray(CvBridge().imgmsg_to_cv2(msg, desired_encoding='rgb8'))
    except Exception as error:  # cv_bridge raises its own error, KeyError, TypeError and cv2.error
        what = f"cv_bridge cannot turn '{msg.encoding}' into rgb8 ({first_line(error)})"
        raise ImageError(ImageFault.ENCODING, what, publish) from error


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


def to_label_image(labels: np.ndarray, header: Header) -> Image:
    """mono8 message of uint8 [H, W]."""
    height, width = labels.shape
    return Image(header=header, height=height, width=width, encoding='mono8', step=width, data=message_data(labels))


def to_depth_image(depth: np.ndarray, header: Header) -> Image:
    """16UC1 message, millimetres as RealSense writes them, of float32 [H, W], metres, 0 where unknown."""
    height, width = depth.shape
    data = message_data(_millimetres(depth))
    return Image(header=header, height=height, width=width, encoding='16UC1', step=2 * width, data=data)


def to_compressed_depth(depth: np.ndarray, header: Header) -> CompressedImage:
    """The same as compressed_depth_image_transport sends it: 12 bytes of parameters, which mean nothing for 16UC1, and a PNG."""
    done, png = cv2.imencode('.png', _millimetres(depth), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ValueError(f'OpenCV cannot encode depth of shape {list(depth.shape)} as PNG.')
    data = array.array('B', bytes(12) + png.tobytes())
    return CompressedImage(header=header, format='16UC1; compressedDepth png', data=data)


def _millimetres(depth: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(depth * 1e3), 0, 65535).astype('<u2')


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


def to_intrinsics(msg: CameraInfo, width: int, height: int, rectified: bool = False) -> np.ndarray | None:
    """The calibration of a width x height image.

    A calibration is made at the camera's full size; its region of interest and binning say which part of that the images
    show (REP 104). What they leave at another size is rescaled; a calibration that does not state its size is taken to be
    made at that of the images.

    Args:
        msg: The calibration.
        width: Of the images, pixels.
        height: Of the images, pixels.
        rectified: Whether the images are rectified: then `p` holds their camera, where it is given, and otherwise `k`.

    Returns:
        float64 [3, 3], pixels, or None where the camera is uncalibrated (k[0] = 0).

    Raises:
        CalibrationError: No camera has that calibration.
    """
    if msg.k[0] == 0 and not (rectified and msg.p[0]):
        return None
    K = np.array(msg.k, np.float64).reshape(3, 3)
    if rectified and msg.p[0]:
        K = np.array(msg.p, np.float64).reshape(3, 4)[:, :3]
    roi = msg.roi
    full = msg.width or width, msg.height or height
    _check_intrinsics(K, *full)
    size = roi.width or full[0] - roi.x_offset, roi.height or full[1] - roi.y_offset
    if min(size) <= 0 or roi.x_offset + size[0] > full[0] or roi.y_offset + size[1] > full[1]:
        what = f'roi is {roi.width}x{roi.height} at ({roi.x_offset}, {roi.y_offset}) of an image of {full[0]}x{full[1]}'
        raise CalibrationError(what, 'repair roi in camera_info; all zero stands for the whole image')
    K[:2, 2] -= roi.x_offset, roi.y_offset
    return scale_intrinsics(K, size, (width, height))  # binning is a change of size


class CalibrationError(UserError):
    """A camera_info that describes no camera."""


def _check_intrinsics(K: np.ndarray, width: int, height: int) -> None:
    """Raise CalibrationError unless K [3, 3] is that of a camera with width x height pixels."""
    fix = 'calibrate the camera again, or set k[0] = 0 for none'
    if not np.isfinite(K).all():
        raise CalibrationError('k has numbers that are not finite', fix)
    fx, fy, (cx, cy) = K[0, 0], K[1, 1], K[:2, 2]
    if not np.array_equal(K[2], [0, 0, 1]) or K[1, 0] != 0 or abs(K[0, 1]) > 0.1 * abs(fx):
        raise CalibrationError('k is not [fx 0 cx, 0 fy cy, 0 0 1]', fix)
    if not (fx > 0 and fy > 0 and 0.5 < fx / fy < 2 and 0.05 * width < fx < 50 * width):
        raise CalibrationError(f'k has focal lengths {fx:g} and {fy:g} for images of {width}x{height}', fix)
    if abs(cx - width / 2) > width or abs(cy - height / 2) > height:
        raise CalibrationError(f'k has its principal point at ({cx:g}, {cy:g}) of images of {width}x{height}', fix)


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
