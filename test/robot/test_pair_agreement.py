"""Two cameras that are told rightly agree, in their depth and in what both see; one that is told wrongly does not."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from wristworld_ros import cli
from wristworld_ros.data.episode import Episode, EpisodeCamera
from wristworld_ros.data.formats.native_writer import write_native
from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.robot.pair_agreement import check_pairs

WIDTH, HEIGHT, FRAMES = 320, 240, 3
K = np.array([[300.0, 0, 159.5], [0, 300, 119.5], [0, 0, 1]])
PLACES = {
    'left': looking_at(np.array([-0.45, -0.35, 0.9]), np.zeros(3)),
    'right': looking_at(np.array([-0.45, 0.3, 0.85]), np.zeros(3)),
}
BENT = np.array([0.12, -0.05, 0.0, 0.0, 0.0])


def texture():
    """A table of 2 m, 1 mm per pixel, with spots of many sizes."""
    rng = np.random.default_rng(2)
    sheet = np.full((2000, 2000, 3), 128, np.uint8)
    for _ in range(3000):
        center, radius = rng.integers(0, 2000, 2), int(rng.integers(4, 40))
        cv2.circle(sheet, tuple(map(int, center)), radius, tuple(map(int, rng.integers(0, 256, 3))), -1)
    return sheet


def pixel_rays(distortion):
    pixels = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1).reshape(-1, 1, 2).astype(np.float64)
    plain = cv2.undistortPoints(pixels, K, distortion)[:, 0]
    return np.concatenate([plain, np.ones((len(plain), 1))], 1)


def seen(T_base_camera, sheet, distortion):
    """Image and depth of the table z = 0."""
    rays = pixel_rays(distortion)
    down = rays @ T_base_camera[:3, :3].T
    depth = -T_base_camera[2, 3] / down[:, 2]
    places = (T_base_camera[:3, 3] + depth[:, None] * down)[:, :2].reshape(HEIGHT, WIDTH, 2)
    at = (1000 * places + 1000).astype(np.float32)
    image = cv2.remap(sheet, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return image, depth.reshape(HEIGHT, WIDTH).astype(np.float32)


class Table(Episode):
    """Two cameras above a table, which are where `told` says or not."""

    def read(self, camera, indices):
        return np.stack([self.meta['images'][camera]] * len(indices))

    def read_depth(self, camera, indices):
        return np.stack([self.meta['depths'][camera]] * len(indices))

    def K(self, camera):
        return np.tile(self.meta['K'], (FRAMES, 1, 1))

    def T_camera_world(self, camera):
        return np.tile(np.linalg.inv(self.meta['told'][camera]), (FRAMES, 1, 1))


@pytest.fixture(scope='module')
def table():
    sheet = texture()

    def made(depth, told=PLACES, K=K, distortion=None):
        bent = np.zeros(5) if distortion is None else distortion
        views = {name: seen(T, sheet, bent) for name, T in PLACES.items()}
        meta = {
            'images': {name: view[0] for name, view in views.items()}, 'depths': {name: view[1] for name, view in views.items()},
            'told': told, 'K': K, 'distortion': {} if distortion is None else {key: list(bent) for key in PLACES},
        }  # fmt: skip
        cameras = tuple(EpisodeCamera(name, 'anchor', WIDTH, HEIGHT, depth) for name in PLACES)
        return Table(
            path=Path('table'),
            name='episode 0',
            cameras=cameras,
            fps=10.0,
            stamps_ns=np.arange(FRAMES),
            meta=meta,
        )

    return made


def moved(T, degrees, metres=0.0):
    change = np.eye(4)
    change[:3, :3] = cv2.Rodrigues(np.radians([degrees, degrees / 2, 0.0]))[0]
    change[0, 3] = metres
    return T @ change


@pytest.mark.parametrize('distortion', [None, BENT], ids=['straight', 'bent'])
@pytest.mark.parametrize('depth', [True, False])
def test_places_that_are_right_agree(table, depth, distortion):
    (found,) = check_pairs(table(depth, distortion=distortion))
    assert (found.first, found.second, found.by, found.doubt) == ('left', 'right', 'depth' if depth else 'features', '')
    assert found.residual < (0.001 if depth else 1.5) and 'left and right: agree' in found.sentence
    assert found.count > 100 and (found.share > 0.99 or not depth)


@pytest.mark.parametrize(('depth', 'degrees'), [(True, 1.5), (True, 25), (False, 0.8), (False, 25)])
def test_a_place_that_is_wrong_is_doubted(table, depth, degrees):
    told = PLACES | {'right': moved(PLACES['right'], degrees)}
    (found,) = check_pairs(table(depth, told))
    assert found.doubt and found.doubt in found.sentence and 'agree' not in found.sentence


def test_where_too_little_is_seen_by_both_nothing_is_doubted(table):
    blank = table(False)
    blank = replace(
        blank, meta=blank.meta | {'images': {name: np.full((HEIGHT, WIDTH, 3), 90, np.uint8) for name in PLACES}}
    )
    (found,) = check_pairs(blank)
    assert np.isnan(found.residual) and found.doubt == '' and 'too little is seen by both' in found.sentence


def test_cameras_without_a_place_or_k_are_not_compared(table):
    nowhere = table(True)
    nowhere = replace(nowhere, meta=nowhere.meta | {'told': PLACES | {'right': np.full((4, 4), np.nan)}})
    assert check_pairs(nowhere) == []


def test_inspect_tells_how_the_cameras_agree_and_which_episodes_not_to_use(table, tmp_path, capsys):
    wrong = PLACES | {'right': moved(PLACES['right'], 25)}
    write_native(tmp_path / 'set', [lambda: table(True), lambda: table(True, wrong)])
    assert cli.main(['data', 'inspect', str(tmp_path / 'set')]) == 0
    told = capsys.readouterr().out.splitlines()
    at = told.index('Places of the cameras, compared with each other:')
    assert told[at + 1].startswith('  episode 0, left and right: agree (depth ') and '(depth ' in told[at + 2]
    assert told[at + 2].startswith('  episode 1, left and right: less than 30%')
    assert told[-1] == 'Do not use the calibration of episodes: 1'
