"""Anchors that nobody calibrated, placed by the wrist's known path."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.robot.motion_placement import AnchorPlacement
from wristworld_ros.robot.motion_similarity import MotionSettings, MotionSimilarity

SCALE = 1.2  # metres to one unit of the model
SECOND = 1_000_000_000
K = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
UNKNOWN_K = np.full((2, 3, 3), np.nan)


def pose(rotation, position):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation.as_matrix(), position
    return T


def facing(position):
    """T_base_anchor of a camera at a position that looks at the table."""
    return looking_at(np.array(position), np.array([0.5, 0, 0.2]))


ANCHORS = np.stack([facing((1.2, 0.6, 0.6)), facing((1.1, -0.7, 0.5))])


def path(count=300, size=(0.12, 0.15, 0.1), seed=0):
    """A hand over a table at 5 Hz: T_base_wrist [count, 4, 4]."""
    rng = np.random.default_rng(seed)
    rate, phase = rng.uniform(0.3, 0.9, 6), rng.uniform(0, 6, 6)
    wave = np.sin(np.arange(count)[:, None] / 5 * rate + phase)
    turns = Rotation.from_euler('xyz', np.array([180, 0, 0]) + wave[:, 3:] * (15, 15, 50), degrees=True)
    places = np.array([0.5, 0, 0.35]) + wave[:, :3] * size
    return np.stack([pose(r, p) for r, p in zip(turns, places, strict=True)])


def predictions(known, noise=0.0, degrees=0.0, stretch=0.0, focal=1.0, anchors=ANCHORS, seed=1):
    """What a model says of every set: K [N, V, 3, 3] and T [N, 1 + V, 4, 4] in the first anchor's frame.

    noise: of the wrist's position along each axis, metres; degrees: of its orientation. stretch: of its distance from the
    first anchor about 1 m. focal: the model's over the true one; the pixel of the wrist stays.
    """
    rng = np.random.default_rng(seed)
    T_anchor_wrist = np.linalg.inv(anchors[0]) @ known
    T_anchor_wrist[:, :3, 3] += rng.normal(0, noise, (len(known), 3))
    turns = Rotation.from_rotvec(np.deg2rad(rng.normal(0, degrees, (len(known), 3)))).as_matrix()
    T_anchor_wrist[:, :3, :3] = T_anchor_wrist[:, :3, :3] @ turns
    z = T_anchor_wrist[:, 2, 3]
    T_anchor_wrist[:, :3, 3] *= ((1 + stretch * (z - 1)) / z * z)[:, None]
    T_second_first = np.linalg.inv(anchors[1]) @ anchors[0]
    T = np.tile(np.eye(4), (len(known), 3, 1, 1))
    T[:, 0], T[:, 2] = np.linalg.inv(T_anchor_wrist), T_second_first
    T[..., :3, 3] /= SCALE
    own = K.copy()
    own[0, 0] *= focal
    own[1, 1] *= focal
    return np.tile(own, (len(known), 2, 1, 1)), T


def fed(known, predicted, known_K=None, placement=None, start=0):
    placement = placement or AnchorPlacement()
    known_K = np.stack([K, K]) if known_K is None else known_K
    found = None
    for i, (own, T) in enumerate(zip(*predicted, strict=True)):
        found = placement.update(start + i * SECOND // 5, own, T, known_K, known[i])
    return found


def errors(found, anchors=ANCHORS):
    """Of the scale (share), and the worst of the anchors, metres and degrees."""
    turned = Rotation.from_matrix(np.swapaxes(found.T_base_anchor[:, :3, :3], 1, 2) @ anchors[:, :3, :3]).magnitude()
    away = np.linalg.norm(found.T_base_anchor[:, :3, 3] - anchors[:, :3, 3], axis=1)
    return abs(found.scale / SCALE - 1), away.max(), np.rad2deg(turned).max()


@pytest.mark.parametrize('known_K', [None, UNKNOWN_K])
def test_exact_predictions_give_the_exact_places(known_K):
    known = path()
    found = fed(known, predictions(known), known_K)
    assert found.summary.used and found.summary.reason == ''
    assert np.allclose(errors(found), 0, atol=2e-3)
    assert found.summary.residual < 1e-3 and found.summary.observability > 0.06


@pytest.mark.parametrize('seed', range(4))
def test_noise_of_a_model_stays_within_the_promise(seed):
    known = path(600, seed=seed)
    found = fed(known, predictions(known, 0.03, 6, seed=seed))
    scale, metres, degrees = errors(found)
    assert scale < 0.05 and metres < 0.03 and degrees < 3
    assert 0.015 < found.summary.residual < 0.06


def test_a_wrong_focal_length_is_corrected_where_intrinsics_are_known():
    known = path()
    predicted = predictions(known, focal=1.2)
    for T in predicted[1]:  # the pixel of the wrist stays, so it is nearer to the axis
        wrist = np.linalg.inv(T[0])
        wrist[:2, 3] /= 1.2
        T[0] = np.linalg.inv(wrist)
    calibrated = errors_of_first(fed(known, predicted))
    blind = errors_of_first(fed(known, predicted, UNKNOWN_K))
    assert calibrated < 0.02 and blind > 3 * calibrated


def errors_of_first(found):
    return np.linalg.norm(found.T_base_anchor[0, :3, 3] - ANCHORS[0, :3, 3])


def test_distances_that_a_model_shrinks_hardly_move_the_anchor():
    known = path()
    found = fed(known, predictions(known, stretch=-0.4))
    similarity = MotionSimilarity(MotionSettings(window=120.0))
    for i, T in enumerate(predictions(known, stretch=-0.4)[1]):
        similarity.add(i * SECOND // 5, np.linalg.inv(T[0]), known[i])
    plain = np.linalg.norm(similarity.estimate().T_base_anchor0[:3, 3] - ANCHORS[0, :3, 3])
    assert errors_of_first(found) < 0.05 and errors_of_first(found) < 0.7 * plain


@pytest.mark.parametrize(
    'size, words', [((0.01, 0.01, 0.01), '0.06 m are needed'), ((0.2, 0, 0), 'along a second one')]
)
def test_small_motion_is_not_used_and_says_why(size, words):
    known = path(size=size)
    found = fed(known, predictions(known, 0.02, 5))
    assert not found.summary.used and np.isnan(found.T_base_anchor).all() and found.scale is None
    assert words in found.summary.reason


def test_a_wrist_that_has_not_moved_yet_is_not_used():
    known = path(30)
    found = fed(known, predictions(known))
    assert not found.summary.used and 'of which 60 are needed' in found.summary.reason


def test_predictions_that_do_not_follow_the_wrist_are_not_used():
    known = path()
    found = fed(known, predictions(known, 0.7, 90))
    assert not found.summary.used and 'scatter' in found.summary.reason


@pytest.mark.parametrize('how', ['reset', 'clock', 'intrinsics'])
def test_reset_a_clock_set_back_and_other_intrinsics_forget_everything(how):
    known = path()
    placement = AnchorPlacement()
    assert fed(known, predictions(known), placement=placement, start=100 * SECOND).summary.used
    if how == 'reset':
        placement.reset()
    start = 0 if how == 'clock' else 1000 * SECOND
    known_K = UNKNOWN_K if how == 'intrinsics' else None
    found = fed(known[:10], tuple(part[:10] for part in predictions(known)), known_K, placement, start)
    assert not found.summary.used and found.summary.count <= 10


def test_a_moved_anchor_is_placed_anew_and_the_other_stays():
    known = path(900)
    moved = ANCHORS.copy()
    moved[1] = facing((0.4, -1.2, 0.6))
    placement = AnchorPlacement()
    fed(known[:500], predictions(known[:500], 0.01, 2), placement=placement)
    found = fed(known[500:], predictions(known[500:], 0.01, 2, anchors=moved), placement=placement, start=100 * SECOND)
    assert found.summary.used
    scale, metres, degrees = errors(found, moved)
    assert scale < 0.05 and metres < 0.03 and degrees < 3


def test_numbers_that_are_not_finite_are_left_out():
    known = path()
    own, T = predictions(known)
    T[::3, 0, 0, 3] = np.nan
    own[1::7] = np.nan
    found = fed(known, (own, T))
    assert found.summary.used and np.allclose(errors(found), 0, atol=2e-3)
