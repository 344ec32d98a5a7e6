"""Anchors whose calibration is a little wrong are turned to where the hand is seen."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.models.hand import Correction, HandConfig, HandNetwork
from wristworld_ros.models.hand.crop import HALF_WIDTH, MIDDLE
from wristworld_ros.pipeline.hand_registration import HandRegistration
from wristworld_ros.pipeline.known_geometry import KnownGeometryStep, Prediction
from wristworld_ros.robot.known_cameras import PlacedCameras
from wristworld_ros.types import AnchorSet, Camera, RobotPoints

K = np.array([[200.0, 0, 111.5], [0, 200.0, 83.5], [0, 0, 1]])
PREDICTION = Prediction(
    np.stack([K, K]), np.stack([np.eye(4)] * 2), torch.full((1, 21, 28), 0.9), torch.full((1, 21, 28), 2.0), False
)


class SeesTheTruth(HandNetwork):
    """A hand network that is told where the hand truly is, and errs by as much as it is told."""

    truth: np.ndarray
    noise = 0.0

    def forward(self, crops):
        wanted = crops.T_crop_anchor.double() @ torch.from_numpy(self.truth)
        place = (wanted[:, :3, :3] @ wanted.new_tensor(MIDDLE)) + wanted[:, :3, 3]
        place[:, :2] += self.noise * torch.randn(len(place), 2)
        across = place[:, :2] / place[:, 2:] / (HALF_WIDTH / crops.distance.double())[:, None]
        closer = (place[:, 2] / crops.distance.double()).log()
        axes = wanted[:, :3, :2] - crops.T_crop_wrist[:, :3, :2].double()
        return Correction(*(x.float() for x in (axes, across, closer, torch.ones(len(place)))))


def cameras(hand, wrong):
    """True and given cameras of a wrist at `hand` and one anchor that is turned by a rotation vector, radians."""
    T_wrist = np.linalg.inv(looking_at(np.array(hand), np.array([hand[0], hand[1] + 0.01, 0.0])))
    T_anchor = np.linalg.inv(looking_at(np.array([1.4, 0.5, 0.7]), np.array([0.5, 0.0, 0.1])))
    error = np.eye(4)
    error[:3, :3] = Rotation.from_rotvec(wrong).as_matrix()
    return T_anchor, PlacedCameras(np.stack([K, K]), np.stack([T_wrist, error @ T_anchor]), 1.0, 'base', True)


def places(count=12, seed=0):
    return np.random.default_rng(seed).uniform((0.35, -0.3, 0.15), (0.65, 0.3, 0.45), (count, 3))


@pytest.mark.parametrize(('noise', 'left'), [(0.0, 0.25), (0.005, 0.4)])
def test_a_wrong_rotation_is_mostly_undone(noise, left):
    torch.manual_seed(0)
    network = SeesTheTruth(HandConfig(size=16, widths=(8, 8), dense=8))
    network.noise = noise
    registration = HandRegistration(network, torch.device('cpu'))
    wrong = np.radians([0.7, -0.6, 0.0])
    images = np.zeros((1, 168, 224, 3), np.uint8)
    for hand in places():
        T_anchor, placed = cameras(hand, wrong)
        network.truth = T_anchor @ np.linalg.inv(placed.T[0])
        found = registration.corrected(placed, images, None)
    turned = Rotation.from_matrix(found.T[1, :3, :3] @ T_anchor[:3, :3].T).magnitude()
    assert turned < left * np.linalg.norm(wrong)
    assert np.array_equal(found.T[0], placed.T[0]) and np.array_equal(found.K, placed.K)


def test_a_right_place_stays_and_a_reset_forgets():
    network = SeesTheTruth(HandConfig(size=16, widths=(8, 8), dense=8))
    registration = HandRegistration(network, torch.device('cpu'))
    images = np.zeros((1, 168, 224, 3), np.uint8)
    for hand in places(4):
        T_anchor, placed = cameras(hand, np.zeros(3))
        network.truth = T_anchor @ np.linalg.inv(placed.T[0])
        assert np.allclose(registration.corrected(placed, images, None).T, placed.T, atol=1e-4)
    registration.reset()
    assert np.array_equal(registration.rotation(0), np.eye(3))


def test_a_correction_as_small_as_the_networks_own_error_is_not_made():
    network = SeesTheTruth(HandConfig(size=16, widths=(8, 8), dense=8))
    for degrees, made in ((0.1, False), (0.6, True)):
        registration = HandRegistration(network, torch.device('cpu'))
        for hand in places():
            T_anchor, placed = cameras(hand, np.radians([degrees, 0.0, 0.0]))
            network.truth = T_anchor @ np.linalg.inv(placed.T[0])
            found = registration.corrected(placed, np.zeros((1, 168, 224, 3), np.uint8), None)
        assert np.allclose(found.T, placed.T, atol=1e-9) != made


def test_anchors_with_depth_are_corrected_where_the_robots_surface_is_not_known():
    torch.manual_seed(0)
    network = SeesTheTruth(HandConfig(size=16, widths=(8, 8), dense=8))
    T_anchor, placed = cameras((0.5, 0.0, 0.3), np.radians([0.7, -0.6, 0.0]))
    network.truth = T_anchor @ np.linalg.inv(placed.T[0])
    surface = RobotPoints(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8), np.array(['hand']))
    seen = []
    for robot in (None, surface):
        step = KnownGeometryStep((32, 32), CloudSettings(), None, torch.device('cpu'), hand=network)
        wrist = Camera(K, placed.T[0], 224, 168)
        anchors = AnchorSet(
            1, ('a',), np.zeros((1, 168, 224, 3), np.uint8), intrinsics=K[None], depth=np.full((1, 168, 224), 0.9, np.float32),
            T_base_anchor=np.linalg.inv(placed.T[1])[None], wrist=wrist, robot_points=robot,
        )  # fmt: skip
        observation = step.measured(anchors) or step.completed(anchors, PREDICTION)
        seen.append(observation.reconstruction.anchors[0].T_camera_world)
    assert not np.allclose(seen[0], placed.T[1], atol=1e-3) and np.allclose(seen[1], placed.T[1], atol=1e-6)


def test_a_hand_that_stands_still_is_looked_at_once():
    network = SeesTheTruth(HandConfig(size=16, widths=(8, 8), dense=8))
    registration = HandRegistration(network, torch.device('cpu'))
    T_anchor, placed = cameras((0.5, 0.0, 0.3), np.radians([1.0, 0.0, 0.0]))
    network.truth = T_anchor @ np.linalg.inv(placed.T[0])
    images = np.zeros((1, 168, 224, 3), np.uint8)
    once = registration.corrected(placed, images, None).T
    assert np.array_equal(registration.corrected(placed, images, None).T, once)


def test_a_camera_mounted_otherwise_gives_the_same_corrections():
    network = SeesTheTruth(HandConfig(size=16, widths=(8, 8), dense=8))
    mount = np.eye(4)
    mount[:3, :3], mount[:3, 3] = (
        Rotation.from_euler('xyz', [20, -10, 70], degrees=True).as_matrix(),
        (0.03, -0.07, 0.02),
    )
    mounted_from_own = np.linalg.inv(mount) @ np.array(network.config.mount)
    found = []
    for T_mounted, T_hand_wrist in ((np.eye(4), None), (mounted_from_own, mount)):
        registration = HandRegistration(network, torch.device('cpu'))
        for hand in places(4):
            T_anchor, placed = cameras(hand, np.radians([0.7, -0.6, 0.0]))
            network.truth = T_anchor @ np.linalg.inv(placed.T[0])
            placed.T[0] = T_mounted @ placed.T[0]
            found.append(registration.corrected(placed, np.zeros((1, 168, 224, 3), np.uint8), T_hand_wrist).T[1])
    assert np.allclose(found[:4], found[4:], atol=1e-9)
