"""Transforms, calibrations, clouds, stamps and codes mean in messages what they mean in the program."""

import array

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifecycle_msgs.msg import State
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from wristworld_ros.msg import VirtualWristStatus, WristView
from wristworld_ros.ros.conversions import (
    POINT,
    CalibrationError,
    quaternion_by_transforms3d,
    scale_intrinsics,
    to_camera_info,
    to_cloud,
    to_intrinsics,
    to_ns,
    to_pose,
    to_quaternion,
    to_stamp,
    to_transform,
)
from wristworld_ros.types import FrameStatus, Geometry


def rotation(x, y, z, w):
    """Rotation matrix of a unit quaternion."""
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


unit = st.lists(st.floats(-1, 1), min_size=4, max_size=4).map(np.array).filter(lambda q: np.linalg.norm(q) > 1e-2)


@settings(deadline=None, max_examples=100)
@given(q=unit)
def test_a_matrix_and_its_quaternion_turn_alike(q):
    T = np.eye(4)
    T[:3, :3] = rotation(*(q / np.linalg.norm(q)))
    for out in (to_quaternion(T), quaternion_by_transforms3d(T)):
        assert np.linalg.norm(out) == pytest.approx(1)
        np.testing.assert_allclose(rotation(*out), T[:3, :3], atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(q=unit)
def test_tf_transformations_and_transforms3d_agree(q):
    tf_transformations = pytest.importorskip('tf_transformations', reason='tf_transformations is not installed')
    T = np.eye(4)
    T[:3, :3] = rotation(*(q / np.linalg.norm(q)))
    theirs, ours = tf_transformations.quaternion_from_matrix(T), quaternion_by_transforms3d(T)
    assert abs(np.dot(theirs, ours)) == pytest.approx(1, abs=1e-6)  # q and -q are one rotation


def test_a_transform_goes_from_parent_to_child():
    T_parent_child = np.eye(4)
    T_parent_child[:3, 3] = 1, 2, 3
    edge = to_transform(T_parent_child, Header(frame_id='parent'), 'child')
    assert (edge.header.frame_id, edge.child_frame_id) == ('parent', 'child')
    t, p = edge.transform.translation, to_pose(T_parent_child).position
    assert (t.x, t.y, t.z) == (p.x, p.y, p.z) == (1, 2, 3)
    assert edge.transform.rotation.w == 1


def constants(message):
    """Name -> value of a message's constants."""
    return {name: getattr(message, name) for name in dir(message) if isinstance(getattr(message, name), int)}


def test_status_codes_are_those_of_the_program_and_states_those_of_the_lifecycle():
    assert constants(WristView) == {value.name: int(value) for kind in (FrameStatus, Geometry) for value in kind}
    states = constants(VirtualWristStatus)
    assert len(states) == 4
    assert states == {name: getattr(State, f'PRIMARY_STATE_{name}') for name in states}


@given(ns=st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_keep_every_nanosecond(ns):
    assert to_ns(to_stamp(ns)) == ns


def test_camera_info_is_a_pinhole_without_distortion():
    K = np.array([[100.0, 0, 63.5], [0, 110, 47.5], [0, 0, 1]])
    info = to_camera_info(K, 128, 96, Header(frame_id='f'))
    assert (info.width, info.height, info.distortion_model, list(info.d)) == (128, 96, 'plumb_bob', [0.0] * 5)
    np.testing.assert_array_equal(np.reshape(info.p, (3, 4)), np.hstack([K, np.zeros((3, 1))]))
    np.testing.assert_array_equal(np.reshape(info.r, (3, 3)), np.eye(3))
    np.testing.assert_array_equal(to_intrinsics(info, 128, 96), K)


def test_an_uncalibrated_camera_has_no_intrinsics():
    assert to_intrinsics(CameraInfo(width=4, height=4), 4, 4) is None


def test_intrinsics_follow_the_image_size():
    K = np.array([[100.0, 0, 63.5], [0, 100, 47.5], [0, 0, 1]])
    half = to_intrinsics(to_camera_info(K, 128, 96, Header()), 64, 48)
    np.testing.assert_allclose(half, [[50, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])
    np.testing.assert_allclose(scale_intrinsics(half, (64, 48), (128, 96)), K)


def test_a_cloud_holds_its_points_and_colours_and_no_broken_ones():
    points = torch.arange(2 * 4 * 6 * 3, dtype=torch.float32).reshape(2, 4, 6, 3)
    points[0, 0, 0, 1] = float('nan')
    colors = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8)
    cloud = to_cloud(points, colors, Header(frame_id='anchor'), stride=2)
    assert (cloud.height, cloud.width, cloud.point_step) == (1, 2 * 2 * 3 - 1, 16)
    assert cloud.row_step == len(cloud.data) == 16 * cloud.width
    assert [(f.name, f.offset) for f in cloud.fields] == [('x', 0), ('y', 4), ('z', 8), ('rgb', 12)]
    read = np.frombuffer(cloud.data, POINT)
    np.testing.assert_array_equal(read['xyz'][0], points[0, 0, 2])
    packed = np.frombuffer(cloud.data, '<u4').reshape(-1, 4)[0, 3]
    assert [packed >> 16 & 255, packed >> 8 & 255, packed & 255] == colors[0, 0, 2].tolist()
    assert isinstance(cloud.data, array.array)


def test_a_cloud_of_nothing_is_empty():
    cloud = to_cloud(torch.full((1, 2, 2, 3), torch.inf), torch.zeros(1, 2, 2, 3, dtype=torch.uint8), Header())
    assert cloud.width == 0 and len(cloud.data) == 0


K_VGA = [600.0, 0, 320, 0, 610, 240, 0, 0, 1]


def info(k=None, **fields):
    return CameraInfo(**{'width': 640, 'height': 480, 'k': k or K_VGA} | fields)


def project(K, point):
    return (K @ point)[:2] / point[2]


@pytest.mark.parametrize('binning', [0, 1, 2])
@pytest.mark.parametrize(('x', 'y', 'w', 'h'), [(0, 0, 0, 0), (100, 60, 400, 300), (200, 0, 0, 0)])
def test_region_of_interest_and_binning_say_which_pixels_are_shown(binning, x, y, w, h):
    msg = info(binning_x=binning, binning_y=binning)
    msg.roi.x_offset, msg.roi.y_offset, msg.roi.width, msg.roi.height = x, y, w, h
    size, times = (w or 640 - x, h or 480 - y), max(1, binning)
    K = to_intrinsics(msg, size[0] // times, size[1] // times)
    point = np.array([0.1, 0.05, 1.0])
    full = project(np.reshape(K_VGA, (3, 3)), point)
    expected = (full - [x, y] + 0.5) / times - 0.5  # a binned pixel's centre is the middle of those it is made of
    np.testing.assert_allclose(project(K, point), expected)


@pytest.mark.parametrize(
    ('k', 'words'),
    [
        ([float('nan')] * 9, 'finite'),
        ([600.0, 0, 320, 0, float('inf'), 240, 0, 0, 1], 'finite'),
        ([600.0, 0, float('nan'), 0, 600, 240, 0, 0, 1], 'finite'),
        ([9000.0, 0, 5, 0, 20, 999, 0, 0, 1], 'focal'),
        ([-600.0, 0, 320, 0, 600, 240, 0, 0, 1], 'focal'),
        ([600.0, 0, 320, 0, 0, 240, 0, 0, 1], 'focal'),
        ([1e9, 0, 320, 0, 1e9, 240, 0, 0, 1], 'focal'),
        ([600.0, 0, 5000, 0, 600, 240, 0, 0, 1], 'principal'),
        ([600.0, 0, 320, 0, 600, 240, 0, 0, 0], 'k is not'),
        ([600.0, 0, 0, 0, 600, 0, 320, 240, 1], 'k is not'),
    ],
)
def test_a_calibration_is_validated_whole(k, words):
    with pytest.raises(CalibrationError, match=words):
        to_intrinsics(info(k), 640, 480)


def test_a_region_outside_the_image_describes_no_camera_and_zero_means_uncalibrated():
    msg = info()
    msg.roi.x_offset, msg.roi.width = 600, 100
    with pytest.raises(CalibrationError, match='roi'):
        to_intrinsics(msg, 100, 480)
    assert to_intrinsics(info([0.0] * 9), 640, 480) is None
