"""Resizing stacks of frames: sizes, dtypes, and which pixels are mixed."""

import numpy as np
import pytest

from wristworld_ros.geometry.images import resize_images


def test_a_smaller_image_averages_over_areas():
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[0, :2, :2] = [[[0, 0, 0], [100, 100, 100]], [[100, 100, 100], [200, 200, 200]]]
    small = resize_images(image, (2, 2))
    assert small.dtype == np.uint8 and small[0, ..., 0].tolist() == [[100, 0], [0, 0]]


def test_a_larger_image_interpolates():
    image = np.repeat(np.array([0, 100], np.uint8)[None, None, :, None], 3, -1)
    assert resize_images(image, (1, 4))[0, 0, :, 0].tolist() == [0, 25, 75, 100]


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize('hw', [(3, 5), (16, 20), (6, 8)])
def test_nearest_invents_no_values_of_any_dtype(dtype, hw):
    depth = np.random.default_rng(0).integers(0, 200, (3, 6, 8)).astype(dtype)
    resized = resize_images(depth, hw, nearest=True)
    assert resized.shape == (3, *hw) and resized.dtype == dtype
    assert set(resized.flatten()) <= set(depth.flatten())


def test_an_image_of_the_right_size_is_returned_as_it_is():
    images = np.zeros((2, 4, 6, 3), np.uint8)
    assert resize_images(images, (4, 6)) is images


def test_no_frames_give_no_frames_of_the_new_size():
    assert resize_images(np.zeros((0, 4, 6, 3), np.uint8), (2, 3)).shape == (0, 2, 3, 3)


@pytest.mark.parametrize('shape', [(4, 6), (1, 4, 6, 4), (1, 1, 4, 6, 3)])
def test_another_shape_is_reported(shape):
    with pytest.raises(ValueError, match='must be'):
        resize_images(np.zeros(shape, np.uint8), (2, 3))
