"""What several cameras say of one hand's orientation is brought together, and its places stay."""

import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.robot.hand_orientation import SharedOrientation

MIDDLE = (0.0, 0.0, 0.06)
STILL = Rotation.from_euler('xyz', [[0, 0, 0], [10, 80, 5], [-20, -60, 15]], degrees=True).as_matrix()


def look(rng, count=3, noise=0.0):
    """A hand in `count` still cameras, [count, 4, 4], with orientations that are wrong at random, and the true ones."""
    hand = Rotation.random(rng=rng).as_matrix()
    T = np.tile(np.eye(4), (count, 1, 1))
    truth = STILL[:count] @ hand
    T[:, :3, :3] = Rotation.from_rotvec(noise * rng.standard_normal((count, 3))).as_matrix() @ truth
    T[:, :3, 3] = rng.uniform(-0.3, 0.3, (count, 3)) + [0, 0, 1]
    return T, truth


def degrees(R, truth):
    return np.degrees(Rotation.from_matrix(R @ np.swapaxes(truth, -1, -2)).magnitude()).mean()


def test_orientations_become_better_and_places_stay():
    rng, shared = np.random.default_rng(0), SharedOrientation(MIDDLE)
    before, after = [], []
    for i in range(30):
        T, truth = look(rng, noise=np.radians(4))
        found = shared.update(T)
        middles = [x[:, :3, :3] @ MIDDLE + x[:, :3, 3] for x in (T, found)]
        assert np.allclose(*middles, atol=1e-12)
        if i >= 10:
            before.append(degrees(T[:, :3, :3], truth))
            after.append(degrees(found[:, :3, :3], truth))
    assert np.mean(after) < 0.7 * np.mean(before)


def test_exact_ones_and_a_single_camera_stay_as_they_are():
    for count in (1, 3):
        rng, shared = np.random.default_rng(1), SharedOrientation(MIDDLE)
        for _ in range(3):
            T, _ = look(rng, count)
            assert np.allclose(shared.update(T), T, atol=1e-9)


def test_other_cameras_start_again():
    rng, shared = np.random.default_rng(2), SharedOrientation(MIDDLE)
    shared.update(look(rng)[0])
    T, _ = look(rng, 2)
    assert np.allclose(shared.update(T)[:, :3, :3], T[:, :3, :3], atol=1e-9)
    shared.reset()
    turned = T.copy()
    turned[1, :3, :3] = turned[1, :3, :3] @ STILL[1]
    assert np.allclose(shared.update(turned), turned, atol=1e-9)
