"""Frames by number or time are those that whole reading gives, whatever the codec and the distance of key frames."""

import numpy as np
import pytest

from wristworld_ros.data.video import read_frames, write_video
from wristworld_ros.data.video_access import MissingFrameError, VideoFrames
from wristworld_ros.data.video_copy import JoinedVideo, can_join

FRAMES = 40
CODECS = {
    'sparse key frames, reordered': ('libx264', {'preset': 'fast', 'bf': '3', 'g': '30', 'sc_threshold': '0'}),
    'key frames everywhere': ('libx264', {'preset': 'ultrafast', 'bf': '0', 'g': '1'}),
    'AV1': ('libsvtav1', {'preset': '12', 'g': '2', 'svtav1-params': 'lp=1'}),
}


@pytest.fixture(autouse=True)
def quiet_encoder(monkeypatch):
    monkeypatch.setenv('SVT_LOG', '1')


@pytest.fixture(params=CODECS)
def path(request, make, tmp_path):
    codec, options = CODECS[request.param]
    images = [make.scene(i, 64, 48) for i in range(FRAMES)]
    return make.write_raw(tmp_path / 'video.mp4', images, codec=codec, options=options)


def test_frames_in_any_order_are_those_of_the_whole_video(path):
    whole, frames = read_frames(path), VideoFrames(path)
    assert len(frames) == len(whole) == FRAMES
    for numbers in ([0], [FRAMES - 1], [31, 2, 2, 17, 0], range(FRAMES), range(FRAMES - 1, -1, -1)):
        np.testing.assert_array_equal(frames.read(list(numbers)), whole[list(numbers)])
    assert frames.read([]).shape == (0, 48, 64, 3)


def test_times_are_met_within_the_tolerance_and_no_farther(path):
    whole, frames = read_frames(path), VideoFrames(path)
    np.testing.assert_array_equal(frames.read_at([1.20009, 0.3]), whole[[12, 3]])
    with pytest.raises(
        MissingFrameError, match=r'no frame at 1\.2300 s \(the nearest is at 1\.2000 s, 30\.0 ms off\)'
    ) as error:
        frames.read_at([0.1, 1.23])
    assert error.value.place == 1
    with pytest.raises(MissingFrameError, match=f'has {FRAMES} frames, and number 40'):
        frames.read([3, 40])
    assert frames.broken_times(np.array([0.1, 9.0, 0.2])) == [(1, 'the nearest is at 3.9000 s, 5100.0 ms off')]


def test_a_frame_that_cannot_be_decoded_is_named_and_others_are_read(make, tmp_path):
    images = [make.scene(i, 64, 48) for i in range(12)]
    path = make.write_raw(tmp_path / 'a.mp4', images, codec='libsvtav1', options=CODECS['AV1'][1])
    whole = read_frames(path)
    make.overwrite_packets(path, [7])  # the second of two, on which no other depends
    frames = VideoFrames(path)
    assert [place for place, _ in frames.broken_times(frames.times)] == [7]
    kept = [i for i in range(12) if i != 7]
    np.testing.assert_array_equal(frames.read(kept), whole[kept])
    with pytest.raises(MissingFrameError, match=r'no frame at 0\.7000 s'):
        frames.read([7])


def test_only_the_frames_around_are_decoded(make, tmp_path, monkeypatch):
    path = make.write_raw(
        tmp_path / 'a.mp4',
        [make.scene(i, 64, 48) for i in range(120)],
        options={'g': '10', 'bf': '0', 'sc_threshold': '0'},
    )
    frames, decoded = VideoFrames(path), []
    from wristworld_ros.data import video_access

    decode = video_access.decode_packet
    monkeypatch.setattr(video_access, 'decode_packet', lambda *a: decoded.append(1) or decode(*a))
    frames.read([105])
    assert len(decoded) < 20


def test_turned_videos_are_upright(make, tmp_path):
    path = make.write_raw(tmp_path / 'a.mp4', [make.scene(i, 64, 48) for i in range(5)])
    make.set_display_matrix(path, (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30))
    frames = VideoFrames(path)
    assert (frames.width, frames.height) == (48, 64)
    np.testing.assert_array_equal(frames.read([3, 1]), read_frames(path)[[3, 1]])


def test_coded_frames_of_several_files_are_joined_as_they_are(path, tmp_path):
    whole, joined = read_frames(path), JoinedVideo(tmp_path / 'joined.mp4', 10)
    assert joined.append(path, 0.0, FRAMES) and joined.append(path, 0.0, FRAMES) and joined.frames == 2 * FRAMES
    joined.close()
    np.testing.assert_array_equal(read_frames(joined.path), np.concatenate([whole, whole]))
    np.testing.assert_allclose(VideoFrames(joined.path).times, np.arange(2 * FRAMES) / 10, atol=1e-9)


def test_a_part_is_joined_only_where_it_begins_with_a_key_frame_and_is_whole(make, tmp_path):
    path = tmp_path / 'a.mp4'
    write_video(path, [make.scene(i, 64, 48) for i in range(20)], 10, gop=4)
    assert can_join(path, 0.4, 8, 10) and not can_join(path, 0.3, 8, 10)
    assert not can_join(path, 0.4, 17, 10) and not can_join(path, 0.0, 8, 15)
    joined = JoinedVideo(tmp_path / 'b.mp4', 10)
    assert joined.append(path, 0.4, 8) and not joined.append(path, 0.5, 8) and joined.frames == 8
    joined.close()
    np.testing.assert_array_equal(read_frames(tmp_path / 'b.mp4'), read_frames(path)[4:12])
