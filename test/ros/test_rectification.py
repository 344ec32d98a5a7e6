"""Distortion of anchor images: chessboards rendered through known lenses, and the node that undoes them."""

import functools

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from wristworld_ros.ros.conversions import CalibrationError
from wristworld_ros.ros.rectification import Rectification, displacement, lens_of

WIDTH, HEIGHT = 480, 360
K = np.array([[315.0, 0, 241.5], [0, 319.0, 177], [0, 0, 1]])
LENSES = {
    'barrel': ('plumb_bob', (-0.28, 0.09, 0.0008, -0.0005, -0.012)),
    'pincushion': ('plumb_bob', (0.12, 0.02, -0.001, 0.001, 0.0)),
    'rational': ('rational_polynomial', (0.3, -0.25, 0.0004, -0.0003, 0.05, 0.55, -0.2, 0.02)),
    'fisheye': ('equidistant', (-0.02, 0.006, -0.004, 0.0008)),
}
ROWS, COLUMNS, SQUARE = 6, 8, 0.06  # inner corners, and metres


def info(model, d, **fields):
    return CameraInfo(
        width=WIDTH, height=HEIGHT, k=K.ravel().tolist(), d=list(d), distortion_model=model,
        **({'r': np.eye(3).ravel().tolist()} | fields),
    )  # fmt: skip


def board_pose():
    rotation, _ = cv2.Rodrigues(np.array([0.25, -0.2, 0.05]))
    return rotation, np.array([-0.5 * COLUMNS * SQUARE, -0.5 * ROWS * SQUARE, 0.42])


@functools.cache
def rendered(model, d):
    """What a camera with that lens sees of a chessboard, uint8 [H, W, 3], and its depth [H, W]: the ray of every (finer) pixel
    is cut with the board's plane."""
    fine = 3
    v, u = (np.mgrid[: fine * HEIGHT, : fine * WIDTH] + 0.5) / fine - 0.5
    pixels = np.stack([u, v], -1).reshape(-1, 1, 2)
    if model == 'equidistant':
        rays = cv2.fisheye.undistortPoints(pixels, K, np.array(d))
    else:
        rays = cv2.undistortPoints(pixels, K, np.array(d), criteria=(cv2.TERM_CRITERIA_COUNT, 50, 0))
    rays = np.concatenate([rays.reshape(-1, 2), np.ones((len(pixels), 1))], 1)
    R, t = board_pose()
    z = (R[:, 2] @ t) / (rays @ R[:, 2])
    place = (rays * z[:, None] - t) @ R
    square = np.floor(place[:, :2] / SQUARE).astype(int)
    inside = ((square >= -1) & (square < (COLUMNS, ROWS))).all(1)
    image = np.where(inside, np.where(square.sum(1) % 2, 230, 25), 230).reshape(fine * HEIGHT, fine * WIDTH)
    small = image.reshape(HEIGHT, fine, WIDTH, fine).mean((1, 3)).round().astype(np.uint8)
    depth = z.reshape(fine * HEIGHT, fine * WIDTH)[1::fine, 1::fine].astype(np.float32)
    return np.repeat(small[..., None], 3, -1), depth


def true_corners(camera):
    """Where a pinhole camera sees the inner corners, [N, 2] pixels."""
    R, t = board_pose()
    grid = np.mgrid[:ROWS, :COLUMNS][::-1].reshape(2, -1).T * SQUARE
    points = np.concatenate([grid, np.zeros((len(grid), 1))], 1) @ R.T + t
    pixels = points @ camera.T
    return pixels[:, :2] / pixels[:, 2:]


def corner_errors(image, camera):
    """How far corners found in an image lie from where a pinhole camera would see them, pixels, of those well inside."""
    expected = true_corners(camera)
    inside = ((expected > 12) & (expected < np.array([WIDTH, HEIGHT]) - 12)).all(1)
    start = expected[inside].astype(np.float32)[:, None]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-4)
    found = cv2.cornerSubPix(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), start.copy(), (9, 9), (-1, -1), criteria)
    return np.linalg.norm((found - start).reshape(-1, 2), axis=1)


@pytest.mark.parametrize('lens', LENSES)
def test_corners_of_a_board_are_where_a_pinhole_camera_sees_them(lens):
    image, depth = rendered(*LENSES[lens])
    rectification = Rectification.of(info(*LENSES[lens]), WIDTH, HEIGHT)
    errors = corner_errors(rectification.image(image), rectification.K)
    assert len(errors) >= 24
    assert errors.max() < 0.5
    R, t = board_pose()
    flat = rectification.depth(depth)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(rectification.K).T
    plane = (R[:, 2] @ t) / (rays @ R[:, 2])
    assert (flat > 0).mean() > 0.99
    assert np.abs(flat - plane)[flat > 0].max() < 0.002  # a pixel is 2 mm wide there


@pytest.mark.parametrize('lens', LENSES)
def test_the_raw_image_is_noticeably_distorted(lens):
    assert displacement(info(*LENSES[lens]), WIDTH, HEIGHT) > 2
    note = lens_of(info(*LENSES[lens]), WIDTH, HEIGHT, rectified=False, rectify=False, name='left').note
    assert 'anchor_left' in note and 'rectify' in note


def test_the_inner_camera_shows_nothing_beyond_the_raw_image():
    rectification = Rectification.of(info(*LENSES['pincushion']), WIDTH, HEIGHT)
    assert (rectification.image(np.full((HEIGHT, WIDTH, 3), 200, np.uint8)) == 200).mean() > 0.998


def test_p_is_the_rectified_camera_unless_r_turns_it():
    P = [300.0, 0, 240, 0, 0, 300.0, 180, 0, 0, 0, 1, 0]
    image, _ = rendered(*LENSES['barrel'])
    rectification = Rectification.of(info(*LENSES['barrel'], p=P), WIDTH, HEIGHT)
    np.testing.assert_allclose(rectification.K, np.array(P).reshape(3, 4)[:, :3])
    assert corner_errors(rectification.image(image), rectification.K).max() < 0.5
    turned, _ = cv2.Rodrigues(np.array([0.0, 0.02, 0.0]))
    rectification = Rectification.of(info(*LENSES['barrel'], p=P, r=turned.ravel().tolist()), WIDTH, HEIGHT)
    assert rectification.K[0, 0] != 300
    assert corner_errors(rectification.image(image), rectification.K).max() < 0.5


def test_binned_images_are_rectified_by_the_calibration_of_the_whole_sensor():
    image, _ = rendered(*LENSES['barrel'])
    binned = image.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3)).round().astype(np.uint8)
    given = info(*LENSES['barrel'])
    given.binning_x = given.binning_y = 2
    rectification = Rectification.of(given, WIDTH // 2, HEIGHT // 2)
    large = cv2.resize(rectification.image(binned), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    camera = rectification.K.copy()
    camera[:2] *= 2
    camera[:2, 2] += 0.5
    assert corner_errors(large, camera).max() < 1


def test_a_little_distortion_is_not_mentioned():
    little = info('plumb_bob', (-0.005, 0.0, 0.0, 0.0, 0.0))
    assert 0 < displacement(little, WIDTH, HEIGHT) < 2
    lens = lens_of(little, WIDTH, HEIGHT, rectified=False, rectify=False, name='left')
    assert lens.note == '' and lens.rectification is None
    np.testing.assert_allclose(lens.K, K)


def test_what_has_no_distortion_passes_as_it_is():
    for given in (info('plumb_bob', [0.0] * 5), info('', []), CameraInfo(width=WIDTH, height=HEIGHT)):
        assert Rectification.of(given, WIDTH, HEIGHT) is None
        assert displacement(given, WIDTH, HEIGHT) == 0
    assert (
        lens_of(info(*LENSES['barrel']), WIDTH, HEIGHT, rectified=True, rectify=True, name='left').rectification is None
    )


@pytest.mark.parametrize(
    'model, d', [('inverse_brown', (0.1,) * 5), ('plumb_bob', (0.1,) * 3), ('plumb_bob', (np.nan,) * 5)]
)
def test_an_unknown_distortion_is_said_and_images_are_used_as_they_are(model, d):
    with pytest.raises(CalibrationError):
        Rectification.of(info(model, d), WIDTH, HEIGHT)
    lens = lens_of(info(model, d), WIDTH, HEIGHT, rectified=False, rectify=True, name='left')
    assert lens.rectification is None and lens.K is not None
    assert 'anchor_left' in lens.note and ('not known' in lens.note or 'not finite' in lens.note)
