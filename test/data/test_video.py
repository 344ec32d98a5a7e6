"""The video reader: frames upright, at their own times, and damage counted instead of raised."""

import itertools
import os
import resource
import signal

import av
import numpy as np
import pytest

from wristworld_ros.data import video
from wristworld_ros.data.lossless_video import read_depth_video, write_depth_video
from wristworld_ros.data.video import VideoReader, read_frames, write_video
from wristworld_ros.errors import UserError

ONE = 1 << 16
# Display matrix, as MP4 stores it, and what brings the shown image to the coded one.
TURNS = {
    'not at all': ((ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), lambda shown: shown),
    'quarter': ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), lambda shown: np.rot90(shown, 1)),
    'half': ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), lambda shown: np.rot90(shown, 2)),
    'three quarters': ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), lambda shown: np.rot90(shown, -1)),
    'mirrored': ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), lambda shown: shown[:, ::-1]),
}


@pytest.mark.parametrize('turn', TURNS)
def test_a_rotated_video_comes_out_upright_and_its_size_is_the_shown_one(make, tmp_path, turn):
    matrix, to_coded = TURNS[turn]
    shown = [make.scene(i, 96, 128) for i in range(4)]
    path = make.write_raw(tmp_path / 'phone.mp4', [np.ascontiguousarray(to_coded(image)) for image in shown])
    reader = VideoReader(make.set_display_matrix(path, matrix))
    images = [image for _, image in reader]
    assert (reader.width, reader.height) == (96, 128)
    assert np.abs(np.stack(images).astype(float) - shown).mean() < 6


def test_times_are_the_frames_own_and_start_at_zero(make, tmp_path):
    gaps = np.where(np.arange(20) < 10, 0.05, 0.15)
    times = 3.0 + np.cumsum(gaps) - gaps[0]
    path = make.write_raw(tmp_path / 'a.mkv', [make.grey(t - 3) for t in times], codec='ffv1', options={}, times=times)
    reader = VideoReader(path)
    read = list(reader)
    np.testing.assert_allclose([t for t, _ in read], times - 3, atol=1e-6)
    np.testing.assert_allclose([(image.mean() - 20) / 60 for _, image in read], times - 3, atol=0.02)
    assert reader.rate == pytest.approx(19 / (times[-1] - times[0]), rel=1e-3)


def test_an_absurd_rate_in_the_header_is_not_believed(make, tmp_path):
    path = make.write_raw(
        tmp_path / 'browser.webm', [make.scene(i, 64, 48) for i in range(12)], rate=1000, codec='libvpx-vp9',
        options={'deadline': 'realtime', 'cpu-used': '8'}, times=np.arange(12) / 10, container={'live': '1'},
    )  # fmt: skip
    with av.open(str(path)) as file:
        assert file.streams.video[0].average_rate == 1000
    reader = VideoReader(path)
    assert reader.rate == pytest.approx(10) and [t for t, _ in reader][-1] == pytest.approx(1.1)


def test_a_rate_that_the_times_confirm_is_exact(make, tmp_path):
    path = make.write_raw(tmp_path / 'a.mkv', [make.scene(0, 64, 48)] * 9, rate=30000 / 1001)
    assert VideoReader(path).rate == pytest.approx(30000 / 1001, abs=1e-9)


def test_a_file_without_times_is_refused_or_takes_a_rate(make, tmp_path):
    path = make.write_raw(tmp_path / 'raw.h264', [make.scene(i, 64, 48) for i in range(6)], format='h264')
    with pytest.raises(UserError, match=r'no times.*ffmpeg -framerate'):
        VideoReader(path)
    reader = VideoReader(path, rate=20)
    assert reader.rate == 20
    np.testing.assert_allclose([t for t, _ in reader], np.arange(6) / 20)


def test_one_damaged_frame_costs_that_frame_and_is_told_with_its_place(make, tmp_path):
    path = make.write_raw(
        tmp_path / 'a.mp4',
        [make.scene(i, 64, 48) for i in range(10)],
        codec='libvpx-vp9',
        options={'lag-in-frames': '0'},
    )
    reader = VideoReader(make.overwrite_packets(path, [6]))
    read = list(reader)
    assert len(read) == 9 and reader.lost == 1
    np.testing.assert_allclose([t for t, _ in read], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9])
    assert len(reader.damage) == 1 and '1 frame could not be decoded, the first at 0.60 s' in reader.damage[0]


def test_a_lost_first_frame_does_not_shift_the_others(make, tmp_path):
    path = make.write_raw(
        tmp_path / 'a.mp4', [make.grey(i / 10) for i in range(6)], codec='mjpeg', pixels='yuvj420p', options={}
    )
    reader = VideoReader(make.overwrite_packets(path, [0]))
    read = list(reader)
    np.testing.assert_allclose([t for t, _ in read], [0.1, 0.2, 0.3, 0.4, 0.5])


def test_a_file_that_was_cut_off_gives_what_it_holds_and_says_how_much_is_missing(make, tmp_path):
    path = make.write_raw(tmp_path / 'a.mkv', [make.scene(i, 64, 48) for i in range(60)])
    assert VideoReader(path).damage == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    reader = VideoReader(path)
    assert 10 < sum(1 for _ in reader) < 60
    assert 'announces 6.00 s and ends at' in reader.damage[0]


def test_damage_is_that_of_the_latest_pass(make, tmp_path):
    path = make.write_raw(
        tmp_path / 'a.mp4',
        [make.scene(i, 64, 48) for i in range(10)],
        codec='libvpx-vp9',
        options={'lag-in-frames': '0'},
    )
    reader = VideoReader(make.overwrite_packets(path, [6]))
    for _ in range(2):
        assert sum(1 for _ in reader) == 9 and reader.lost == 1
    list(itertools.islice(reader, 3))
    assert reader.damage == []


@pytest.mark.parametrize('content', [b'', b'no video'])
def test_what_cannot_be_decoded_at_all_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / 'a.mp4').write_bytes(content)
    with pytest.raises(UserError, match=r'a\.mp4 cannot be decoded'):
        VideoReader(tmp_path / 'a.mp4')
    with pytest.raises(UserError, match='no video file'):
        VideoReader(tmp_path / 'b.mp4')


def test_a_written_video_comes_back_closely_and_carries_its_colour_space(make, tmp_path):
    images = [make.scene(i, 64, 48) for i in range(5)]
    assert write_video(tmp_path / 'a.mp4', iter(images), 15) == 5
    assert np.abs(read_frames(tmp_path / 'a.mp4').astype(float) - images).mean() < 3
    assert len(read_frames(tmp_path / 'a.mp4', stop=2)) == 2
    with av.open(str(tmp_path / 'a.mp4')) as file:
        frame = next(file.decode(video=0))
        assert (frame.colorspace, frame.color_range, frame.format.name) == (1, 1, 'yuv420p')
    assert VideoReader(tmp_path / 'a.mp4').rate == 15


def test_a_video_that_could_not_be_written_whole_is_not_there(make, tmp_path):
    def broken():
        yield make.scene(0, 64, 48)
        raise RuntimeError('no more')

    with pytest.raises(RuntimeError, match='no more'):
        write_video(tmp_path / 'a.mp4', broken(), 10)
    with pytest.raises(UserError, match='even numbers'):
        write_video(tmp_path / 'a.mp4', [make.scene(0, 61, 48)], 10)
    with pytest.raises(UserError, match='no frames'):
        write_video(tmp_path / 'a.mp4', [], 10)
    assert not list(tmp_path.iterdir())


def test_depth_comes_back_to_half_a_millimetre_and_unknown_stays_unknown(tmp_path):
    depth = np.random.default_rng(0).uniform(0.05, 60, (4, 11, 13)).astype(np.float32)
    depth[1, 2, 3], depth[2, 0, 0], depth[3, 1, 1] = 0, np.nan, np.inf
    assert write_depth_video(tmp_path / 'd.mkv', depth, 10) == 4
    read = read_depth_video(tmp_path / 'd.mkv')
    known = np.isfinite(depth)
    assert np.abs(read[known] - depth[known]).max() < 0.00051 and read[~known].max() == 0
    np.testing.assert_array_equal(read_depth_video(tmp_path / 'd.mkv', stop=2), read[:2])


def test_a_video_of_absurd_size_is_refused_before_it_is_decoded(make, tmp_path, monkeypatch):
    path = make.write_raw(tmp_path / 'v.mp4', [make.scene(i, 64, 48) for i in range(3)])
    assert len(list(VideoReader(path))) == 3
    monkeypatch.setattr(video, 'MAX_PIXELS', 64 * 48 - 1)
    with pytest.raises(UserError, match=r'is 64x48, and at most 3071 pixels'):
        VideoReader(path)


def test_what_is_no_regular_file_is_no_video(tmp_path):
    os.mkfifo(tmp_path / 'pipe.mp4')
    (tmp_path / 'zero.mp4').symlink_to('/dev/zero')
    for name in ('pipe.mp4', 'zero.mp4', '', 'none.mp4'):
        with pytest.raises(UserError, match='There is no video file'):
            VideoReader(tmp_path / name)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 96, 96, 3), np.uint8)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r'v\.mp4 cannot be written \(File too large\)'):
            write_video(tmp_path / 'v.mp4', noise, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, 'sched_getscheduler'), reason='this system has no such policies')
def test_an_encoder_leaves_the_threads_scheduling_as_it_was(tmp_path):
    before = os.sched_getscheduler(0)
    write_video(tmp_path / 'a.mp4', [np.zeros((64, 64, 3), np.uint8)] * 3, 10, codec='av1', preset='12')
    assert os.sched_getscheduler(0) == before
