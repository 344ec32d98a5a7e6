"""Frames of several videos belong together by their times, whatever their numbers."""

import numpy as np
import pytest

from wristworld_ros.data.anchor_sources import SynchronizedVideos, open_recording
from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.data.video import write_video
from wristworld_ros.errors import UserError


def seconds_of(image, first=20, slope=60):
    return (float(image.mean()) - first) / slope


@pytest.fixture
def variable(make, tmp_path):
    """Two recordings of 3 s with 30 frames each: the one fast then slow, the other slow then fast."""
    paths = []
    for name, fast_first in (('a', True), ('b', False)):
        gaps = np.where((np.arange(30) < 15) == fast_first, 0.05, 0.15)
        times = np.cumsum(gaps) - gaps[0]
        images = [make.grey(t) for t in times]
        options = {'codec': 'ffv1', 'pixels': 'yuv444p', 'options': {}, 'times': times}
        paths.append(make.write_raw(tmp_path / f'{name}.mkv', images, **options))
    return paths


def test_images_of_one_moment_were_taken_within_the_slop_of_each_other(variable):
    videos = SynchronizedVideos(variable, slop=0.05)
    moments = list(videos)
    assert len(moments) > 15 and len(moments) + videos.skipped in (29, 30)  # the shorter one may end it
    for seconds, images in moments:
        assert seconds_of(images[0]) == pytest.approx(seconds, abs=0.02)
        assert abs(seconds_of(images[0]) - seconds_of(images[1])) <= 0.05 + 0.03


def test_a_slightly_other_rate_does_not_add_up(make, tmp_path):
    for name, rate in (('a', 30), ('b', 29)):
        images = [make.grey(i / rate, slope=20) for i in range(rate * 10)]
        make.write_raw(tmp_path / f'{name}.mkv', images, rate=rate, codec='ffv1', pixels='yuv444p', options={})
    moments = list(SynchronizedVideos([tmp_path / 'a.mkv', tmp_path / 'b.mkv']))
    assert len(moments) >= 299
    apart = [abs(seconds_of(a, slope=20) - seconds_of(b, slope=20)) for _, (a, b) in moments]
    assert max(apart) < 0.15  # half a frame and two grey levels; by frame numbers it would be 0.33 s at the end


def test_resampling_shows_each_videos_newest_frame(variable):
    moments = list(SynchronizedVideos(variable).resampled(20))
    np.testing.assert_allclose(np.diff([t for t, _ in moments]), 0.05)
    for seconds, images in moments:
        for image in images:
            assert seconds - 0.17 < seconds_of(image) < seconds + 0.02
    assert moments[-1][0] == pytest.approx(2.85, abs=0.01)  # where the shorter one ends


def test_the_rest_goes_on_after_damage_which_is_told(make, tmp_path):
    path = make.write_raw(
        tmp_path / 'a.mp4',
        [make.scene(i, 64, 48) for i in range(10)],
        codec='libvpx-vp9',
        options={'lag-in-frames': '0'},
    )
    make.overwrite_packets(path, [6])
    whole = make.write_raw(tmp_path / 'b.mkv', [make.scene(i, 64, 48) for i in range(10)])
    recording = open_recording([path, whole], slop=0.02)
    sets = list(recording.anchor_sets())
    assert [s.stamp_ns // 10**6 for s in sets] == [0, 100, 200, 300, 400, 500, 700, 800, 900]
    assert any('could not be decoded' in sentence for sentence in recording.damage)
    other = open_recording([whole, path], slop=0.02)
    assert len(list(other.anchor_sets())) == 9
    assert any('1 frames' in s and 'no partner' in s for s in other.damage)


def test_an_episode_gives_its_anchors_one_frame_after_the_other(make, tmp_path):
    K, T = np.tile(np.eye(3), (4, 1, 1)), np.tile(np.eye(4), (4, 1, 1))
    images = np.stack([make.scene(i, 64, 48) for i in range(4)])
    cameras = [CameraTrack(f'anchor{i}', 'anchor', images, K, T) for i in range(3)]
    path = write_episode(
        tmp_path / 'e', task='none', seed=0, fps=10, success=True, stamps_ns=np.arange(4) * 10**8, cameras=cameras
    )
    recording = open_recording([path], anchors=2, frames=3)
    sets = list(recording.anchor_sets())
    assert [s.stamp_ns for s in sets] == [0, 10**8, 2 * 10**8] and sets[0].images.shape == (2, 48, 64, 3)
    assert recording.frames == 3 and recording.damage == [] and recording.T_anchor_world.shape == (3, 4, 4)


def test_an_episode_of_another_format_gives_its_anchors_too(make, tmp_path):
    (tmp_path / 'videos').mkdir()
    for stem in ('a', 'b'):
        for name in ('left', 'wrist'):
            write_video(tmp_path / f'videos/{stem}_{name}.mp4', [make.scene(i, 64, 48) for i in range(6)], 10)
        (tmp_path / f'videos/{stem}.json').write_text('{"say": "lift"}')
    (tmp_path / 'videos/wristworld_videos.yaml').write_text(
        "annotations: '*.json'\nlanguage: say\ncameras:\n  left: {video: '{stem}_left.mp4'}\n  wrist: {video: '{stem}_wrist.mp4'}\n"
    )
    with pytest.raises(UserError, match='holds 2 episodes; say which one'):
        open_recording([tmp_path / 'videos'])
    recording = open_recording([tmp_path / 'videos'], frames=4, episode=1)
    sets = list(recording.anchor_sets())
    assert recording.names == ('left',) and recording.T_anchor_world is None and recording.fps == 10
    assert [s.stamp_ns for s in sets] == [0, 10**8, 2 * 10**8, 3 * 10**8]
    np.testing.assert_array_equal(sets[2].images[0], recording.source.read('left', [2])[0])


def test_what_does_not_fit_together_is_told(make, tmp_path):
    write_video(tmp_path / 'a.mp4', [make.scene(i, 64, 48) for i in range(3)], 10)
    write_video(tmp_path / 'b.mp4', [make.scene(i, 48, 64) for i in range(3)], 10)
    with pytest.raises(UserError, match='one size'):
        open_recording([tmp_path / 'a.mp4', tmp_path / 'b.mp4'])
    with pytest.raises(UserError, match='one episode, or videos only'):
        open_recording([tmp_path, tmp_path / 'a.mp4'])
    with pytest.raises(UserError, match='no video file'):
        open_recording([tmp_path / 'c.mp4'])
    assert SynchronizedVideos([tmp_path / 'a.mp4'] * 2).names == ('video0', 'video1')
