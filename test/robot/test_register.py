"""Calibration by the arm itself: the simulated arm before a depth camera with noise and holes, and what must be refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip('mujoco')
pytest.importorskip('yourdfpy')

from wristworld_ros.errors import UserError
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.description import RobotModel
from wristworld_ros.robot.register import distances_to_arm, moved_pixels, register_arm
from wristworld_ros.sim.arm_poses import SETTINGS, record_arm_poses, sensed, wrong_guess
from wristworld_ros.sim.robot_description import BASE_FRAME, robot_description
from wristworld_ros.sim.stream import SimulatorStream


@pytest.fixture(scope='module')
def simulator(tmp_path_factory):
    """Records seed after seed: depth, camera, surfaces, and the true place of the camera."""
    stream = SimulatorStream(SETTINGS, 0)
    robot = RobotModel.from_urdf(robot_description(stream.env.model, tmp_path_factory.mktemp('meshes')))

    def record(seed, poses=5):
        found = record_arm_poses(stream, seed, poses)
        camera = Intrinsics(found.camera.K, np.empty(0), found.camera.width, found.camera.height)
        surfaces = [robot.surface(positions, BASE_FRAME) for positions in found.joints]
        return found.depth, camera, surfaces, np.linalg.inv(found.camera.T_camera_world)

    yield record
    stream.close()


def error(T, truth) -> tuple[float, float]:
    """Metres and degrees."""
    E = np.linalg.inv(truth) @ T
    return float(np.linalg.norm(E[:3, 3])), float(np.degrees(Rotation.from_matrix(E[:3, :3]).magnitude()))


def test_a_guess_off_by_10_cm_and_10_degrees_becomes_a_calibration(simulator):
    errors = []
    for seed in (1, 4, 6):
        depth, camera, surfaces, truth = simulator(seed)
        guess = wrong_guess(truth, seed)
        assert error(guess, truth) == pytest.approx((0.1, 10.0))
        found = register_arm(depth, camera, surfaces, guess)
        errors.append(error(found.T_base_camera, truth))
        E = np.linalg.inv(truth) @ found.T_base_camera
        at_arm = np.linalg.norm(E[:3, :3] @ found.center + E[:3, 3] - found.center)
        assert at_arm < 3 * found.expected_error and found.expected_error < 0.003
        assert found.on_surface > 0.85 and found.seen_through < 0.05
    metres, degrees = np.median(errors, 0)
    assert metres < 0.005 and degrees < 0.5
    assert np.max(errors, 0)[0] < 0.01 and np.max(errors, 0)[1] < 1


def test_an_arm_that_is_hardly_in_view_from_the_guess_is_searched_for(simulator):
    depth, camera, surfaces, truth = simulator(15, poses=3)
    found = register_arm(depth, camera, surfaces, wrong_guess(truth, 15))
    metres, degrees = error(found.T_base_camera, truth)
    assert metres < 0.005 and degrees < 0.5
    assert any('3 poses' in warning for warning in found.warnings)


def test_a_pose_whose_joints_are_wrong_is_named_and_does_not_move_the_answer(simulator):
    depth, camera, surfaces, truth = simulator(2, poses=6)
    surfaces[3] = surfaces[0]
    found = register_arm(depth, camera, surfaces, wrong_guess(truth, 2, 0.05, 5.0))
    metres, degrees = error(found.T_base_camera, truth)
    assert 3 in found.outliers and metres < 0.005 and degrees < 0.5


def test_a_pose_that_shows_no_arm_is_named_and_left_out(simulator):
    depth, camera, surfaces, truth = simulator(2, poses=5)
    depth[3] = np.delete(depth, 3, 0).max(0)
    away = surfaces[3].points + np.float32(5)
    surfaces[3] = replace(surfaces[3], points=away)
    found = register_arm(depth, camera, surfaces, wrong_guess(truth, 2, 0.05, 5.0))
    metres, degrees = error(found.T_base_camera, truth)
    assert found.unseen == (3,) and not found.outliers and metres < 0.005 and degrees < 0.5


def test_distances_to_the_arm_are_small_at_the_truth_only(simulator):
    depth, camera, surfaces, truth = simulator(4, poses=3)
    right, wrong = (np.median(distances_to_arm(depth, camera, surfaces, T)) for T in (truth, wrong_guess(truth, 4)))
    assert right < 0.005 < 0.01 < wrong


def test_what_is_not_the_arm_is_refused_with_what_to_do(simulator):
    depth, camera, surfaces, truth = simulator(1)
    with pytest.raises(UserError, match='guess within 10 cm'):
        register_arm(depth, camera, surfaces[::-1], wrong_guess(truth, 1, 0.6, 60.0))


def test_an_arm_that_did_not_move_and_too_few_poses_are_refused(simulator):
    depth, camera, surfaces, truth = simulator(1)
    with pytest.raises(UserError, match='at least 3'):
        register_arm(depth[:2], camera, surfaces[:2], truth)
    with pytest.raises(UserError, match='move the arm'):
        register_arm(np.repeat(depth[:1], 5, 0), camera, surfaces, truth)
    with pytest.raises(UserError, match='one depth image of that size per pose'):
        register_arm(depth[:, ::2], camera, surfaces, truth)


def test_a_pixel_moved_where_it_was_farther_once_or_never_seen_otherwise():
    depth = np.array([[[1.0, 1.0, 0.0, 1.0]], [[2.0, 1.03, 0.8, 0.0]], [[2.0, 1.0, 0.0, 1.0]]], np.float32)
    np.testing.assert_array_equal(
        moved_pixels(depth)[:, 0], [[True, False, False, False], [False, False, True, False], [False] * 4]
    )


def test_the_sensor_of_the_simulator_has_noise_and_holes():
    exact = np.full((200, 300), 1.0, np.float32)
    exact[:, 150:] = 1.5
    rng = np.random.default_rng(0)
    measured = sensed(exact, rng, 0.005)
    inner = measured[:, :140]
    assert 0.004 < inner[inner > 0].std() < 0.006
    assert 0.01 < (measured == 0).mean() < 0.1 and (measured[:, 149:151] == 0).mean() > 0.3
    assert sensed(exact, rng, 0.0) is exact
