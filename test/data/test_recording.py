import numpy as np
import pytest

from wristworld_ros.data.recording import WAITING, WRIST, Recording, RecordingWriter


def test_wrist_images_come_back_exactly_and_anchors_nearly(recorded):
    recording = Recording(recorded)
    stamp = recording.views[3]['stamp_ns']
    wrist = recording.nearest(WRIST, stamp)
    assert wrist.dtype == np.uint8 and wrist.shape == (32, 32, 3)
    assert recording.nearest('anchor_left', stamp).shape == (48, 64, 3)


def test_an_image_outside_the_slop_is_none(recorded):
    recording = Recording(recorded)
    assert recording.nearest(WRIST, recording.views[0]['stamp_ns'] - 200_000_000) is None
    assert recording.nearest('no_such_stream', recording.views[0]['stamp_ns']) is None


def test_frames_are_in_order_and_each_stamp_is_there_once(recorded):
    lines = (recorded / 'views.jsonl').read_text().splitlines()
    (recorded / 'views.jsonl').write_text('\n'.join([*lines[::-1], lines[0]]))
    seconds = Recording(recorded).seconds()
    assert len(seconds) == 12 and (np.diff(seconds) > 0).all()


def test_nothing_is_written_before_the_start_and_the_newest_images_wait(tmp_path):
    writer = RecordingWriter(tmp_path, {}, ('left',))
    for stamp in range(WAITING + 5):
        writer.image('anchor_left', stamp, np.zeros((4, 4, 3), np.uint8))
    assert not (tmp_path / 'anchor_left').exists()
    writer.start()
    writer.close()
    stamps = sorted(int(p.stem) for p in (tmp_path / 'anchor_left').iterdir())
    assert stamps == list(range(5, WAITING + 5))


def test_a_folder_without_a_recording_or_without_frames_is_told_in_a_sentence(tmp_path, recorded):
    with pytest.raises(ValueError, match='holds no recording'):
        Recording(tmp_path / 'none')
    (recorded / 'views.jsonl').unlink()
    with pytest.raises(ValueError, match='No wrist frame was recorded'):
        Recording(recorded)
