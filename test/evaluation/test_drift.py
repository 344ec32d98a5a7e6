"""The measurement of drift plays what it says, and its figures mean what they are called."""

from itertools import islice

import numpy as np
import pytest

from wristworld_ros.episodes.format import CameraTrack, write_episode
from wristworld_ros.evaluation import drift
from wristworld_ros.evaluation.drift_tables import Drift, tables
from wristworld_ros.evaluation.metrics import seam_ratio
from wristworld_ros.settings import StreamSettings
from wristworld_ros.streaming import tiny_random_model

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
def watched(model, episode):
    return drift.watch(model, episode, StreamSettings())


@pytest.mark.parametrize(('frames', 'order'), [(4, [0, 1, 2, 3, 2, 1]), (2, [0, 1]), (1, [0])])
def test_a_round_trip_never_jumps_and_shows_each_end_once(frames, order):
    assert drift.round_trip(frames) == order


def test_bins_are_whole_round_trips():
    assert [drift.bin_frames(40, wanted) for wanted in (10, 100, 200)] == [78, 78, 234]


def test_a_long_stream_is_one_stream_and_each_bin_has_its_own_figures(model, watched):
    settings = StreamSettings(history=2)
    bins = drift.wear(model, watched, settings, 12, 3)
    order = drift.round_trip(FRAMES)
    pictures = drift.play(model, (watched.views[i] for i in order * 3), settings)
    truth = watched.truth.wrist[order]
    wanted = [drift.measure(np.stack(list(islice(pictures, 12))), truth) for _ in range(3)]
    assert np.array_equal(bins, wanted)


@pytest.mark.parametrize('chunk', [1, 2])
def test_the_seam_is_measured_where_the_stream_re_anchors(model, watched, chunk):
    settings = StreamSettings(chunk=chunk)
    with_it, without, true, *_ = drift.reanchored(model, watched, settings, every=3, size=12)
    video = watched.truth.wrist[drift.round_trip(FRAMES)]
    assert true == seam_ratio(video, range(3 * chunk, 12, 3 * chunk))
    assert with_it != without
    again, same, *_ = drift.reanchored(model, watched, StreamSettings(chunk=chunk, history=0), every=3, size=12)
    assert again == same, 'without history there is nothing to forget'


def test_recovery_compares_the_same_frames_of_two_streams(model, watched):
    assert not drift.recovery(model, watched, StreamSettings(history=0), 6).any(), 'no history, nothing to recover from'
    behind = drift.recovery(model, watched, StreamSettings(history=1), 6)
    assert behind.shape == (6,) and behind[0] != 0


def found(steps, psnr, recovery):
    bins = np.array([[p, 0.7, 0.5, 4.0] for p in psnr])
    return Drift(steps, 500, bins, bins[0], np.ones(5), np.array(recovery))


def test_fall_slope_and_recovery_of_a_known_course():
    one = found(1, [20.0, 19.5, 19.0], [-2.0, -0.1, -0.4, 0.2])
    assert (one.fall, one.recovered) == (-1.0, 3) and one.slope == pytest.approx(-1.0)
    assert found(1, [20.0, 20.0], [0.0, 5.0]).recovered == 0
    assert np.isnan(found(1, [20.0], [0.0, -1.0]).recovered) and np.isnan(found(1, [20.0], [0.0]).slope)


def test_tables_have_a_row_or_columns_for_each_number_of_steps():
    runs = [found(n, [20.0, 19.0 + n], [-1.0, -0.2]) for n in (2, 1)]
    time, course, seams, recovered = tables(runs, every=7)
    assert '1 step |' in time[0] and time[2].startswith('| 0 to 499 | 20.00 |') and len(time) == 5
    assert course[2].startswith('| 1 | +0.00 ± 0.00 | +0.00') and course[3].startswith('| 2 | +1.00')
    assert 'every 7 chunks' in seams[0] and len(seams) == len(recovered) == 4
    assert recovered[2] == '| 1 | 1.0 | 1 | -1.00 | -0.20 |'


def test_the_command_prints_all_tables(episode, monkeypatch, capsys):
    monkeypatch.setattr(drift, 'load_model', lambda name, device: tiny_random_model())
    drift.main(
        [str(episode.parent), '--steps', '1', '--frames', '20', '--bin', '12', '--after', '4', '--processes', '0']
    )
    assert capsys.readouterr().out.count('\n| --: |') == 4
