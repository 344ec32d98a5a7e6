"""The TF buffer: interpolation between samples, chains and their inverse, and each fault by its name."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from wristworld_ros.ros import transforms
from wristworld_ros.ros.conversions import to_stamp, to_transform
from wristworld_ros.ros.transforms import TransformBuffer, TransformError, TransformFault, interpolate, pose_matrix

MS, S = 1_000_000, 1_000_000_000
seeds = st.integers(0, 2**31)


def random_pose(seed):
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    T[:3, 3] = rng.uniform(-2, 2, 3)
    return T


def edge(parent, child, stamp_ns, T):
    return to_transform(T, Header(stamp=to_stamp(stamp_ns), frame_id=parent), child)


def filled(*edges, **kwargs):
    buffer = TransformBuffer(**kwargs)
    for one in edges:
        buffer.add([edge(*one)])
    return buffer


def fault(buffer, *args, **kwargs):
    with pytest.raises(TransformError) as error:
        buffer.lookup(*args, **kwargs)
    return error.value


@settings(max_examples=30, deadline=None)
@given(seeds, seeds, st.floats(0, 1))
def test_between_two_samples_translation_is_straight_and_rotation_the_share_of_the_angle(a, b, share):
    T_0, T_1 = random_pose(a), random_pose(b)
    at = 100 * S + round(share * S)
    T = filled(('p', 'c', 100 * S, T_0), ('p', 'c', 101 * S, T_1)).lookup('p', 'c', at)
    share = (at - 100 * S) / S
    np.testing.assert_allclose(T[:3, 3], (1 - share) * T_0[:3, 3] + share * T_1[:3, 3], atol=1e-9)
    whole = Rotation.from_matrix(T_0[:3, :3].T @ T_1[:3, :3]).magnitude()
    part = Rotation.from_matrix(T_0[:3, :3].T @ T[:3, :3]).magnitude()
    assert part == pytest.approx(share * whole, abs=1e-6)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seeds, seeds, seeds)
def test_chains_are_composed_across_branches_and_inverses_agree(a, b, c):
    T_root_hand, T_root_mast, T_mast_camera = random_pose(a), random_pose(b), random_pose(c)
    buffer = TransformBuffer()
    buffer.add([edge('root', 'hand', S, T_root_hand)])
    buffer.add([edge('root', 'mast', 0, T_root_mast), edge('/mast', '/camera', 0, T_mast_camera)], static=True)
    T = buffer.lookup('hand', 'camera', S)
    np.testing.assert_allclose(T, np.linalg.inv(T_root_hand) @ T_root_mast @ T_mast_camera, atol=1e-8)
    np.testing.assert_allclose(buffer.lookup('camera', 'hand', S) @ T, np.eye(4), atol=1e-8)
    np.testing.assert_array_equal(buffer.lookup('anything', 'anything', S), np.eye(4))


def test_samples_that_come_out_of_order_are_ordered_by_stamp():
    poses = [pose_matrix((x, 0, 0, 0, 0, 0, 1)) for x in (0.0, 1.0, 2.0)]
    buffer = filled(('p', 'c', 0, poses[0]), ('p', 'c', 2 * S, poses[2]), ('p', 'c', S, poses[1]))
    assert buffer.lookup('p', 'c', S + S // 2)[0, 3] == pytest.approx(1.5)


def test_nothing_is_extrapolated():
    buffer = filled(('p', 'c', 10 * S, np.eye(4)), ('p', 'c', 11 * S, np.eye(4)))
    assert fault(buffer, 'p', 'c', 11 * S + MS).kind is TransformFault.TOO_NEW
    assert fault(buffer, 'p', 'c', 10 * S - MS).kind is TransformFault.TOO_OLD


def test_the_past_of_an_edge_is_bounded():
    buffer = filled(*(('p', 'c', i * S, np.eye(4)) for i in range(40)), keep_s=10.0)
    assert fault(buffer, 'p', 'c', 20 * S).kind is TransformFault.TOO_OLD
    assert len(buffer._edges['c']['p'].stamps_ns) == 11


def test_late_tf_is_waited_for_until_the_deadline_and_no_longer():
    buffer = filled(('p', 'c', 10 * S, np.eye(4)))
    began = time.monotonic()
    error = fault(buffer, 'p', 'c', 10 * S + 50 * MS, deadline=began + 0.1)
    assert error.kind is TransformFault.TOO_NEW and 0.09 < time.monotonic() - began < 1.0
    assert '50 ms behind' in str(error) and 'tf_timeout' in error.fix


def test_waiting_ends_when_the_sample_comes():
    import threading

    buffer = filled(('p', 'c', 10 * S, np.eye(4)))
    timer = threading.Timer(0.05, buffer.add, [[edge('p', 'c', 11 * S, random_pose(1))]])
    timer.start()
    buffer.lookup('p', 'c', 10 * S + 50 * MS, deadline=time.monotonic() + 5)
    timer.join()


def test_a_missing_frame_is_named_without_waiting():
    buffer = filled(('p', 'c', 10 * S, np.eye(4)))
    began = time.monotonic()
    error = fault(buffer, 'p', 'camera', 10 * S, deadline=began + 5)
    assert error.kind is TransformFault.MISSING and 'camera' in error.what and time.monotonic() - began < 1


def test_two_trees_are_not_connected_and_both_roots_are_named():
    error = fault(filled(('base', 'hand', S, np.eye(4)), ('world', 'camera', S, np.eye(4))), 'base', 'camera', S)
    assert error.kind is TransformFault.NOT_CONNECTED and 'world' in error.what and 'base' in error.what


def test_a_frame_with_two_parents_is_named_with_both():
    error = fault(filled(('base', 'camera', S, np.eye(4)), ('world', 'camera', S, np.eye(4))), 'base', 'camera', S)
    assert error.kind is TransformFault.TWO_PARENTS and 'base and world' in error.what and 'camera' in error.what


def test_a_parent_that_is_long_silent_is_one_no_more(monkeypatch):
    buffer = filled(('world', 'camera', S, np.eye(4)))
    later = time.monotonic() + 11
    monkeypatch.setattr(transforms.time, 'monotonic', lambda: later)
    buffer.add([edge('base', 'camera', 12 * S, random_pose(3))])
    np.testing.assert_allclose(buffer.lookup('base', 'camera', 12 * S), random_pose(3), atol=1e-9)


def test_a_loop_is_said():
    error = fault(filled(('a', 'b', S, np.eye(4)), ('b', 'a', S, np.eye(4))), 'a', 'c', S)
    assert error.kind is TransformFault.NOT_CONNECTED and 'loop' in error.what


@pytest.mark.parametrize('stamp_s', [1000, -1000, 1030])
def test_stamps_of_another_clock_are_said(stamp_s):
    buffer = filled(('p', 'c', 990 * S, np.eye(4)), ('p', 'c', 1000 * S, np.eye(4)))
    if stamp_s == 1000:  # ahead of the node itself: the sign of a delay is wrong
        buffer.add([edge('p', 'c', 1000 * S + MS, np.eye(4))], now_ns=990 * S)
    error = fault(buffer, 'p', 'c', stamp_s * S)
    assert error.kind is TransformFault.CLOCK and 'use_sim_time' in error.fix


def test_a_clock_that_was_set_back_starts_an_edge_over_and_keeps_static_ones():
    buffer = filled(('p', 'c', 1000 * S, np.eye(4)), ('p', 'c', 10 * S, random_pose(2)))
    np.testing.assert_allclose(buffer.lookup('p', 'c', 10 * S), random_pose(2), atol=1e-9)
    buffer.add([edge('c', 'd', 0, np.eye(4))], static=True)
    buffer.clear()
    np.testing.assert_allclose(buffer.lookup('c', 'd', 5 * S), np.eye(4), atol=1e-9)
    assert fault(buffer, 'p', 'd', 10 * S).kind is TransformFault.MISSING


@pytest.mark.parametrize('numbers', [(0, 0, 0, 0, 0, 0, 0), (np.nan, 0, 0, 0, 0, 0, 1), (0, 0, 0, 1, 1, 1, 1)])
def test_what_is_no_rigid_transform_is_ignored(numbers):
    assert pose_matrix(numbers) is None
    one = edge('p', 'c', S, np.eye(4))
    t, q = one.transform.translation, one.transform.rotation
    t.x, t.y, t.z, q.x, q.y, q.z, q.w = map(float, numbers)
    buffer = TransformBuffer()
    buffer.add([one])
    assert not buffer.has('c')


def test_interpolation_goes_the_short_way_round():
    T = interpolate(random_pose(1), random_pose(1), 0.5)
    np.testing.assert_allclose(T, random_pose(1), atol=1e-9)
