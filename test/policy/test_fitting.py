"""Images at the size of a policy: openpi's letterbox to the bit, and a camera that fits the image."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from wristworld_ros.errors import UserError
from wristworld_ros.geometry.cameras import project
from wristworld_ros.policy.fitting import letterbox, letterbox_wrist, stretch, stretch_wrist

# `openpi_client.image_tools.resize_with_pad(pattern(H, W)[None], 224, 224)[0]`, every eighth pixel of it and the SHA-256 of
# all, for nine sizes; for 29x20 and 29x27 the longer side becomes 223 pixels.
FIXTURE = np.load(Path(__file__).parents[1] / 'fixtures/openpi_letterbox.npz')
SIZES = [tuple(map(int, name.split('x'))) for name in FIXTURE.files if not name.endswith('sha256')]


@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_the_letterbox_is_openpi_s_to_the_bit(height, width, make_pattern):
    boxed = letterbox(make_pattern(height, width), 224, 224)
    assert boxed.dtype == np.uint8 and boxed.shape == (224, 224, 3)
    np.testing.assert_array_equal(boxed[::8, ::8], FIXTURE[f'{height}x{width}'])
    assert hashlib.sha256(boxed.tobytes()).digest() == FIXTURE[f'{height}x{width}_sha256'].tobytes()


def test_there_are_sizes_in_the_fixture_whose_longer_side_falls_short():
    assert len(SIZES) == 9 and (29, 20) in SIZES
    rows = np.flatnonzero(letterbox(np.full((29, 20, 3), 255, np.uint8), 224, 224).any((1, 2)))
    assert len(rows) == 223


def test_an_image_of_the_size_is_returned_as_it_is(make_pattern):
    image = make_pattern(224, 224)
    assert letterbox(image, 224, 224) is image and stretch(image, 224, 224) is image


def test_a_letterbox_is_black_outside_and_the_image_inside():
    boxed = letterbox(np.full((180, 320, 3), 200, np.uint8), 224, 224)
    assert (boxed[49:175] == 200).all() and not boxed[:49].any() and not boxed[175:].any()


@pytest.mark.parametrize(
    ('fit', 'hw'), [(letterbox_wrist, (224, 224)), (stretch_wrist, (128, 128)), (letterbox_wrist, (60, 200))]
)
def test_a_point_is_seen_where_the_fitted_camera_has_it(fit, hw, make_wrist):
    """A blob in the image stays under the projection of its point."""
    wrist = make_wrist(96, 128)
    point = torch.tensor([[0.25, -0.15, 2.0]], dtype=torch.float64)
    point[0] -= torch.from_numpy(wrist.camera.T_camera_world[:3, 3])
    seen = project(point, torch.from_numpy(wrist.camera.K), torch.from_numpy(wrist.camera.T_camera_world))[0][0]
    x, y = seen.tolist()
    rows, columns = np.mgrid[:96, :128]
    blob = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 5.0**2)) * 250
    fitted = fit(make_wrist(96, 128, image=np.repeat(blob[..., None], 3, 2).astype(np.uint8)), *hw)
    assert fitted.image.shape[:2] == hw == (fitted.camera.height, fitted.camera.width)
    weights = fitted.image[..., 0].astype(np.float64)
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    center = (columns * weights).sum() / weights.sum(), (rows * weights).sum() / weights.sum()
    K = torch.from_numpy(fitted.camera.K)
    expected = project(point, K, torch.from_numpy(fitted.camera.T_camera_world))[0][0]
    np.testing.assert_allclose(center, expected, atol=0.1)
    assert fitted.stamp_ns == wrist.stamp_ns and fitted.coverage == wrist.coverage


def test_stretching_keeps_all_of_the_image():
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 100:] = 255
    resized = stretch(image, 128, 128)
    assert resized.shape == (128, 128, 3) and not resized[:, :60].any() and (resized[:, 68:] == 255).all()


@pytest.mark.parametrize(
    'wrong', [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8), 'image', np.zeros((0, 8, 3), np.uint8)]
)  # fmt: skip
def test_what_is_no_image_is_refused_in_one_sentence(wrong):
    for fit in (letterbox, stretch):
        with pytest.raises(UserError, match='The image '):
            fit(wrong, 224, 224)


def test_an_image_that_leaves_no_pixel_is_refused():
    with pytest.raises(UserError, match='1000x2 leaves no pixel'):
        letterbox(np.zeros((2, 1000, 3), np.uint8), 224, 224)
