"""The measurement of windows and solvers runs from start to end and measures what it says."""

import numpy as np
import pytest

from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.evaluation.studies.windows import encode_episode, seam_table, solver_table
from wristworld_ros.pipeline import tiny_random_model
from wristworld_ros.settings import WindowSettings

FRAMES = 9


@pytest.fixture(scope='module')
def episode(tmp_path_factory):
    rng = np.random.default_rng(0)

    def camera(name, role, size):
        rgb = rng.integers(0, 256, (FRAMES, size // 8, size // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        K = np.tile(np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]]), (FRAMES, 1, 1))
        return CameraTrack(name, role, rgb, K, np.tile(np.eye(4), (FRAMES, 1, 1)))

    cameras = [camera('left', 'anchor', 56), camera('right', 'anchor', 56), camera('wrist', 'wrist', 32)]
    path = tmp_path_factory.mktemp('episodes') / '000000'
    stamps = np.arange(1, FRAMES + 1) * 10**8
    return write_episode(path, task='none', seed=0, fps=10, success=True, stamps_ns=stamps, cameras=cameras)


def test_both_tables_have_a_row_for_each_number_of_steps(episode):
    model, settings = tiny_random_model(), WindowSettings(window=4, overlap=2)
    encoded = encode_episode(model, episode, FRAMES, settings)
    assert [len(clip) for clip in encoded.clips] == [4, 4, 1]
    solvers = solver_table(model, [encoded], [1, 3], settings, frames=5, reference=3).splitlines()
    # Three Euler steps are the reference itself: no error, 100 dB.
    assert [row.split(' | ')[0] for row in solvers[2:]] == ['| 1', '| 3'] and '100.00' in solvers[3]
    seams = seam_table(model, [encoded], [2], settings).splitlines()
    assert 'overlapping windows' in seams[2] and 'independent clips' in seams[3] and 'nan' not in ''.join(seams)
