import cv2
import numpy as np
import pytest

from wristworld_ros.evaluation import baselines
from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.types import Camera


def test_anchor_copy_takes_the_centre_at_the_wrists_aspect():
    anchor = np.zeros((60, 80, 3), np.uint8)
    anchor[:, 10:70] = 200
    assert (baselines.anchor_copy(anchor, (32, 32)) == 200).all()


def test_mean_wrist_comes_from_a_model_directory_and_is_none_where_it_has_none(tmp_path):
    assert baselines.mean_wrist(tmp_path, (8, 8)) is None
    cv2.imwrite(str(tmp_path / 'mean_wrist.png'), np.full((16, 16, 3), (10, 20, 30), np.uint8))
    assert baselines.mean_wrist(tmp_path, (8, 8))[0, 0].tolist() == [30, 20, 10]


@pytest.mark.parametrize('method', ['push_pull', 'telea'])
def test_inpaint_fills_holes_and_leaves_what_was_hit(method):
    image = np.full((32, 32, 3), 120, np.uint8)
    image[10:14, 12:20] = 0
    depth = np.ones((32, 32), np.float32)
    depth[10:14, 12:20] = 0
    filled = baselines.inpaint(image, depth, method)
    assert np.abs(filled.astype(int) - 120).max() <= 2  # Telea rounds
    image[:] = 0
    assert (baselines.inpaint(image, np.zeros_like(depth), method) == 0).all()


@pytest.mark.parametrize('method', ['push_pull', 'telea'])
def test_a_black_object_is_not_a_hole(method):
    """Only depth says where a hole is: black rubber stays black."""
    image = np.full((32, 32, 3), 120, np.uint8)
    image[10:14, 12:20] = 0
    depth = np.ones((32, 32), np.float32)
    depth[20:22, 20:22] = 0
    assert (baselines.inpaint(image, depth, method)[10:14, 12:20] == 0).all()


def test_true_warp_of_the_anchors_own_camera_is_the_anchors_image():
    """A wrist camera that stands where the anchor stands must see what the anchor sees."""
    K = np.array([[40.0, 0, 15.5], [0, 40.0, 15.5], [0, 0, 1]])
    T = np.eye(4)
    T[:3, 3] = 0.2, -0.1, 0.3
    image = np.random.default_rng(0).integers(1, 256, (1, 32, 32, 3), dtype=np.uint8)
    depth = np.full((1, 32, 32), 0.7, np.float32)
    seen = baselines.true_warp(image, depth, K[None], T[None], Camera(K, T, 32, 32), CloudSettings(radius=0))
    assert (seen == image[0]).mean() > 0.99


def test_pixels_without_depth_give_no_points():
    depth = np.full((1, 4, 4), 0.5, np.float32)
    depth[0, 1, 2] = 0
    points = baselines.true_points(depth, np.eye(3)[None], np.eye(4)[None])
    assert np.isnan(points[0, 1, 2]).all() and np.isfinite(points).sum() == 15 * 3


@pytest.mark.parametrize('near', [0.02, 0.1])
def test_the_warp_of_true_geometry_shows_what_the_gripper_holds(near):
    """An object 5 cm before the wrist camera, which a model's near plane of 10 cm would delete."""
    K, T = np.array([[40.0, 0, 15.5], [0, 40.0, 15.5], [0, 0, 1]]), np.eye(4)
    image = np.full((1, 32, 32, 3), 200, np.uint8)
    depth = np.full((1, 32, 32), 0.5, np.float32)
    image[:, 10:20, 10:20], depth[:, 10:20, 10:20] = 50, 0.05
    seen = baselines.true_warp(image, depth, K[None], T[None], Camera(K, T, 32, 32), CloudSettings(radius=0, near=near))
    assert (seen[10:20, 10:20] == 50).all() and (seen[:10] == 200).all()
