import cv2
import numpy as np
import pytest

from wristworld_ros.evaluation import baselines


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
