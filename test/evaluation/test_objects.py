"""Object measures on scenes where the answer is plain: objects that are there, moved, washed out, or not there at all."""

import numpy as np
import pytest

from wristworld_ros.data.formats.native import ROBOT
from wristworld_ros.evaluation.objects import flicker, object_figures, object_measures


@pytest.fixture
def scene():
    """A table with texture, two objects and the robot: image [128, 128, 3] and objects [128, 128]."""
    rng = np.random.default_rng(0)
    image = np.full((128, 128, 3), 120, np.uint8) + rng.integers(0, 12, (128, 128, 1), dtype=np.uint8)
    objects = np.zeros((128, 128), np.uint8)
    for label, (row, column), color in ((1, (30, 40), (200, 40, 30)), (2, (80, 90), (20, 60, 160))):
        objects[row : row + 16, column : column + 14] = label
        image[row : row + 16, column : column + 14] = color
    image[110:], objects[110:] = 60, ROBOT
    return image, objects


def moved(image, pixels):
    return np.roll(image, pixels, axis=1)


def test_the_true_image_has_everything(scene):
    image, objects = scene
    measures = object_measures(image[None], image[None], objects[None])
    assert measures['found'] == 1 and measures['shift'] == 0 and measures['object_psnr'] > 60
    assert measures['contrast'] == pytest.approx(1) and measures['object_sharpness'] == pytest.approx(1)


@pytest.mark.parametrize(('pixels', 'found'), [(3, 1.0), (5, 1.0), (8, 0.0)])
def test_objects_are_found_within_five_pixels_of_their_place(scene, pixels, found):
    image, objects = scene
    measures = object_measures(moved(image, pixels)[None], image[None], objects[None])
    assert measures['found'] == found and measures['shift'] == pytest.approx(pixels, abs=0.5)


def test_the_distance_scales_with_the_size_of_the_image(scene):
    image, objects = (a.repeat(2, 0).repeat(2, 1) for a in scene)
    measures = object_measures(moved(image, 8)[None], image[None], objects[None])
    assert measures['found'] == 1 and measures['shift'] == pytest.approx(4, abs=0.5)


def test_an_empty_table_has_nothing(scene):
    image, objects = scene
    empty = image.copy()
    empty[(objects > 0) & (objects != ROBOT)] = 125
    measures = object_measures(empty[None], image[None], objects[None])
    assert measures['found'] == 0 and abs(measures['contrast']) < 0.05


def test_half_the_colour_is_half_the_contrast_and_still_found(scene):
    image, objects = scene
    faint = ((image.astype(float) + 125) / 2).astype(np.uint8)
    measures = object_measures(faint[None], image[None], objects[None])
    assert measures['found'] == 1 and measures['contrast'] == pytest.approx(0.5, abs=0.03)


def test_robot_slivers_and_one_colour_count_for_nothing(scene):
    image, objects = scene
    objects = np.where(objects == 2, 0, objects)
    objects[0, :30] = 3  # 30 pixels
    figures = object_figures(np.full_like(image, 128), image, objects)
    assert len(figures) == 1 and not figures[0].found and figures[0].projection == 0


def test_near_and_far_are_told_apart_by_the_true_depth(scene):
    image, objects = scene
    depth = np.where(objects == 1, 0.1, 0.5).astype(np.float32)
    measures = object_measures(moved(image, 0)[None], image[None], objects[None], depth[None])
    assert measures['found_near'] == measures['found_far'] == 1
    assert 'found_near' not in object_measures(image[None], image[None], objects[None], np.full_like(depth, 0.5)[None])


def test_flicker_counts_only_where_the_true_video_stands_still(scene):
    image, _ = scene
    truth = np.stack([image, image])
    truth[1, :64] += 50
    noisy = truth.copy()
    noisy[1, 64:] += 4
    noisy[1, :64] -= 20
    assert flicker(noisy, truth) == pytest.approx(4)
    assert flicker(truth, truth) == 0
    assert np.isnan(flicker(truth[:1], truth[:1]))
