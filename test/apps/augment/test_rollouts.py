"""The script for roll-outs of a world model: videos of one view or more become wrist videos."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wristworld_ros.data.sets import open_data_set
from wristworld_ros.data.video import write_video
from wristworld_ros.pipeline import save_model, tiny_random_model

SCRIPT = Path(__file__).resolve().parents[3] / 'scripts/wrist_of_rollouts.py'


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    """A small model, and two roll-outs of two views."""
    folder, rng = tmp_path_factory.mktemp('given'), np.random.default_rng(0)
    save_model(tiny_random_model(), folder / 'model')
    for number in ('a', 'b'):
        for view in ('left', 'right'):
            (folder / f'rollouts/{number}').mkdir(parents=True, exist_ok=True)
            images = rng.integers(0, 256, (4, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
            write_video(folder / f'rollouts/{number}/{view}.mp4', images, 10)
    return folder


def run(given, out, *options):
    command = [sys.executable, SCRIPT, out, '--rollouts', given / 'rollouts', '--model', given / 'model', *options]
    command += ['--device', 'cpu', '--threads', '1', '--no-page']
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=SCRIPT.parents[1])


def test_every_rollout_gets_a_wrist_video(given, tmp_path):
    done = run(given, tmp_path / 'out', '--views', 'left')
    assert done.returncode == 0, done.stderr
    data = open_data_set(tmp_path / 'out')
    for number, name in enumerate(('a', 'b')):
        assert f'wrist_virtual/rollouts/{name}.mp4' in done.stdout
        assert data.episode(number).rgb('wrist_virtual').shape == (4, 32, 32, 3)
        said = json.loads((tmp_path / f'out/wrist_virtual/rollouts/{name}.json').read_text())
        assert len(said['valid']) == len(said['T_camera_anchor']) == 4
    assert not (tmp_path / 'out/rollouts/a/left.mp4').is_symlink(), 'the set holds the videos themselves'


def test_a_view_that_is_missing_is_one_sentence(given, tmp_path):
    done = run(given, tmp_path / 'out', '--views', 'left', 'top')
    assert done.returncode == 2 and 'has no video top' in done.stderr and 'Traceback' not in done.stderr


def test_a_folder_among_the_rollouts_is_refused(given):
    done = run(given, given / 'rollouts/out')
    assert done.returncode == 2 and 'lie within each other' in done.stderr
    assert not (given / 'rollouts/out').exists()
