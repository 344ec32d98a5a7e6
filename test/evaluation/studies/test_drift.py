"""The measurement of drift plays what it says, and its figures mean what they are called."""

from dataclasses import replace

import numpy as np
import pytest

from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.evaluation.studies import drift
from wristworld_ros.evaluation.studies.drift import Drift, tables
from wristworld_ros.pipeline import tiny_random_model
from wristworld_ros.settings import StreamSettings

FRAMES = 7


@pytest.fixture(scope='module')
def model():
    return tiny_random_model()


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


@pytest.fixture(scope='module')
def run(model, episode):
    return drift.reconstruct_episode(model, episode, StreamSettings())


@pytest.mark.parametrize(('frames', 'order'), [(4, [0, 1, 2, 3, 2, 1]), (2, [0, 1]), (1, [0])])
def test_a_round_trip_never_jumps_and_shows_each_end_once(frames, order):
    assert drift.round_trip(frames) == order


def test_bins_are_whole_round_trips():
    assert [drift.bin_frames(40, wanted) for wanted in (10, 100, 200)] == [78, 78, 234]


def test_the_pieces_of_a_long_stream_are_one_stream(model, run):
    settings = StreamSettings(history=2)
    pieces = list(drift.videos(model, run, settings, 12, 3))
    assert [p.shape for p in pieces] == [(12, 32, 32, 3)] * 3
    order = drift.round_trip(FRAMES)
    whole = np.stack(list(drift.play(model, iter([run.observations[i] for i in order * 3]), settings)))
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.array_equal(drift.truth_of(run, 13), run.truth.wrist[[*order, 0]])


@pytest.mark.parametrize('chunk', [1, 2])
def test_a_stream_that_re_anchors_differs_from_the_named_frame_on(model, run, chunk):
    settings = StreamSettings(chunk=chunk)
    (never,) = drift.videos(model, run, settings, 12, 1)
    (reanchored,) = drift.videos(model, run, replace(settings, reanchor=3), 12, 1)
    frames = drift.reanchored_frames(model, settings, 3, 12)
    assert list(frames) == list(range(3 * chunk, 12, 3 * chunk))
    assert int((never != reanchored).any((1, 2, 3)).argmax()) == frames[0]


def test_recovery_compares_the_same_frames_of_two_streams(model, run):
    assert not drift.recovery(model, run, StreamSettings(history=0), 6).any(), 'no history, nothing to recover from'
    behind = drift.recovery(model, run, StreamSettings(history=1), 6)
    assert behind.shape == (6,) and behind[0] != 0


def found(steps, psnr, recovery):
    bins = np.array([[p, 0.7, 0.5, 4.0] for p in psnr])
    return Drift(steps, 500, bins, bins[0], bins[0], np.ones(3), np.array(recovery))


def test_loss_slope_and_recovery_of_a_known_course():
    one = found(1, [20.0, 19.5, 19.0], [-2.0, -0.1, -0.4, 0.2])
    assert (one.loss, one.recovered) == (-1.0, 3) and one.slope == pytest.approx(-1.0)
    assert found(1, [20.0, 20.0], [0.0, 0.3]).recovered == 0 and found(1, [20.0], [5.0, 0.0]).recovered == 1
    assert np.isnan(found(1, [20.0], [0.0, -1.0]).recovered) and np.isnan(found(1, [20.0], [0.0]).slope)


def test_tables_have_a_row_or_columns_for_each_number_of_steps():
    runs = [found(n, [20.0, 19.0 + n], [-1.0, -0.2]) for n in (2, 1)]
    time, course, seams, recovered = (table.splitlines() for table in tables(runs, every=7))
    assert '1 step |' in time[0] and time[2].startswith('| 0 to 499 | 20.00 |') and len(time) == 5
    assert course[2].startswith('| 1 | +0.000 ± 0.000 | +0.000') and course[3].startswith('| 2 | +1.000')
    assert 'every 7 chunks' in seams[0] and len(seams) == len(recovered) == 4
    assert recovered[2] == '| 1 | 1.0 | 1 | 1.00 | 0.20 |'


def test_the_command_prints_all_tables(episode, monkeypatch, capsys):
    monkeypatch.setattr(drift, 'load_model', lambda name, device: tiny_random_model())
    drift.main(
        [str(episode.parent), '--steps', '1', '--frames', '20', '--bin', '12', '--after', '4', '--processes', '0']
    )
    assert capsys.readouterr().out.count('\n| --- | --: |') == 4
