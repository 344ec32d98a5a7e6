"""Scale and place of the anchors from the wrist's motion."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wristworld_ros.robot.motion_similarity import MotionSettings, MotionSimilarity

SCALE = 1.3  # metres to one unit of the model


def pose(rotation, position):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation.as_matrix(), position
    return T


ANCHOR = pose(Rotation.from_euler('xyz', (-115, 10, 80), degrees=True), (1.1, 0.4, 0.6))  # T_base_anchor


def path(count=600, size=(0.12, 0.15, 0.1), seed=0):
    """A hand over a table for a minute at 10 Hz: T_base_wrist [count, 4, 4]."""
    rng = np.random.default_rng(seed)
    t = np.arange(count) / 10
    rate, phase = rng.uniform(0.3, 0.9, 6), rng.uniform(0, 6, 6)
    wave = np.sin(t[:, None] * rate + phase)
    places = np.array([0.5, 0, 0.35]) + wave[:, :3] * size
    turns = Rotation.from_euler('xyz', np.array([180, 0, 0]) + wave[:, 3:] * (15, 15, 50), degrees=True)
    return np.stack([pose(r, p) for r, p in zip(turns, places, strict=True)])


def predictions(known, noise=0.0, degrees=0.0, outliers=0.0, seed=1, anchor=ANCHOR):
    """What a model with that scale says: T_anchor_wrist, noise per axis in metres and degrees."""
    rng = np.random.default_rng(seed)
    predicted = np.linalg.inv(anchor) @ known
    predicted[:, :3, 3] += rng.normal(0, noise, (len(known), 3))
    turns = Rotation.from_rotvec(np.deg2rad(rng.normal(0, degrees, (len(known), 3))))
    predicted[:, :3, :3] = turns.as_matrix() @ predicted[:, :3, :3]
    wild = rng.random(len(known)) < outliers
    predicted[wild, :3, 3] += rng.normal(0, 0.5, (wild.sum(), 3)) + 0.3
    predicted[wild, :3, :3] = Rotation.random(wild.sum(), random_state=3).as_matrix() if wild.any() else 0
    predicted[:, :3, 3] /= SCALE
    return predicted


def fed(known, predicted, start=0, tracker=None):
    tracker = tracker or MotionSimilarity()
    for i in range(len(known)):
        tracker.add(start + i * 100_000_000, predicted[i], known[i])
    return tracker


def errors(estimate, anchor=ANCHOR):
    """Error of the scale (share), and of the first anchor in metres and degrees."""
    found = estimate.T_base_anchor0
    angle = Rotation.from_matrix(found[:3, :3].T @ anchor[:3, :3]).magnitude()
    return abs(estimate.scale / SCALE - 1), np.linalg.norm(found[:3, 3] - anchor[:3, 3]), np.rad2deg(angle)


@pytest.mark.parametrize('orientations', [False, True])
def test_exact_predictions_give_the_exact_answer(orientations):
    known = path()
    estimate = fed(
        known, predictions(known), tracker=MotionSimilarity(MotionSettings(orientations=orientations))
    ).estimate()
    assert estimate.usable and estimate.reason == ''
    assert np.allclose(errors(estimate), 0, atol=1e-5)
    assert estimate.residual < 1e-6


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('outliers', [0.0, 0.2])
def test_noise_and_outliers_stay_within_the_promise(seed, outliers):
    known = path(seed=seed)
    estimate = fed(known, predictions(known, 0.05, 5, outliers, seed)).estimate()
    scale, metres, degrees = errors(estimate)
    assert estimate.usable
    assert scale < 0.05 and metres < 0.03 and degrees < 3
    assert 0.03 < estimate.residual < 0.09


def test_other_anchors_are_placed_by_the_same_similarity():
    known = path()
    second = pose(Rotation.from_euler('xyz', (-120, 0, -60), degrees=True), (0.9, -0.7, 0.5))
    relative = np.linalg.inv(ANCHOR) @ second
    relative[:3, 3] /= SCALE
    placed = fed(known, predictions(known)).estimate().place(np.stack([np.eye(4), relative]))
    np.testing.assert_allclose(placed, np.stack([ANCHOR, second]), atol=1e-5)


def test_small_motion_is_not_used():
    known = path(size=(0.01, 0.01, 0.01))
    estimate = fed(known, predictions(known, 0.05, 5)).estimate()
    assert not estimate.usable
    assert '0.03 m are needed' in estimate.reason


def test_motion_on_a_line_is_not_used():
    known = path(size=(0.2, 0, 0))
    estimate = fed(known, predictions(known, 0.05, 5)).estimate()
    assert not estimate.usable and estimate.observability < 1e-9
    assert 'along a second one' in estimate.reason


def test_exact_motion_on_a_line_is_not_used_either():
    known = path(size=(0.2, 0, 0))
    assert not fed(known, predictions(known)).estimate().usable


def test_a_wrist_at_rest_adds_nothing():
    known = np.repeat(path()[:1], 100, 0)
    tracker = fed(known, predictions(known, 0.05, 5))
    assert len(tracker) == 1
    assert not tracker.estimate().usable


def test_predictions_that_do_not_follow_the_wrist_are_not_used():
    known = path()
    assert not fed(known, predictions(known, 0.6, 90)).estimate().usable


def test_window_is_bounded_in_time_and_samples():
    known = path(2000)
    assert len(fed(known, predictions(known))) <= 601
    tracker = MotionSimilarity(MotionSettings(most=50))
    for i in range(500):
        tracker.add(i * 1_000_000, known[i], known[i])
    assert len(tracker) == 1  # 0.5 s, and 50 samples are to last for 60 s


def test_reset_and_a_clock_set_back_forget_everything():
    known = path(100)
    tracker = fed(known, predictions(known), start=10**12)
    assert tracker.estimate().usable
    tracker.add(0, known[0], known[0])
    assert len(tracker) == 1
    tracker.reset()
    assert len(tracker) == 0 and not tracker.estimate().usable


def test_poses_that_are_not_finite_are_left_out():
    known = path(100)
    predicted = predictions(known)
    predicted[::3, 0, 3] = np.nan
    estimate = fed(known, predicted).estimate()
    assert estimate.usable and np.allclose(errors(estimate), 0, atol=1e-5)


@pytest.mark.parametrize('noise', [0.0, 0.02])
def test_a_moved_camera_replaces_what_was_before(noise):
    known = path(900)
    moved = pose(Rotation.from_euler('z', 25, degrees=True), (0.2, 0.3, 0.1)) @ ANCHOR
    tracker = fed(known[:500], predictions(known[:500], noise, 2))
    assert errors(tracker.estimate())[1] < 0.02
    for i, predicted in enumerate(predictions(known[500:], noise, 2, anchor=moved)):
        tracker.add((500 + i) * 100_000_000, predicted, known[500 + i])
        if i % 10 == 9:
            estimate = tracker.estimate()
    assert estimate.count <= 400
    assert errors(estimate, moved)[1] < 0.03


def test_a_camera_that_stands_is_not_said_to_move():
    known = path()
    tracker = MotionSimilarity()
    for i, predicted in enumerate(predictions(known, 0.05, 5, 0.2)):
        tracker.add(i * 100_000_000, predicted, known[i])
        if i % 20 == 19:
            tracker.estimate()
    assert len(tracker) == 600
