import errno
import os
import resource
import signal
import struct
import threading
import time
import zlib

import numpy as np
import pytest

from wristworld_ros.data.recording import WAITING, WRIST, Recording, RecordingWriter
from wristworld_ros.errors import UserError


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


IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.fixture
def small_disk():
    """Files of this process end at 2000 bytes, as on a disk that is full."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.filterwarnings('ignore')
def test_on_a_full_disk_nothing_counts_that_is_not_there_and_nothing_lies_there_half(tmp_path, small_disk, caplog):
    writer = RecordingWriter(tmp_path, {}, ('left',))
    writer.start()
    for i in range(20):
        writer.image(WRIST, i, IMAGE)
        writer.image('anchor_left', i, np.zeros((8, 8, 3), np.uint8))
        writer.line('views', {'stamp_ns': i, 'reason': 'x' * 150})
    writer.close()
    assert WRIST not in writer.counts and not list((tmp_path / WRIST).iterdir())
    assert writer.counts['anchor_left'] == 20 == len(list((tmp_path / 'anchor_left').iterdir()))
    lines = (tmp_path / 'views.jsonl').read_text()
    assert lines.endswith('}\n') and writer.counts['views'] == lines.count('\n') < 20
    assert writer.dropped == 60 - 20 - writer.counts['views']
    assert 'cannot be written' in writer.problem and str(tmp_path) in writer.problem
    assert 'File too large' in caplog.text and len(caplog.records) == 2, 'each problem is logged once'


def test_a_record_that_cannot_be_written_does_not_end_the_writer(tmp_path):
    writer = RecordingWriter(tmp_path, {}, ('left',))
    writer.start()
    writer.line('status', {'lags': object()})
    writer.image(WRIST, 1, np.zeros((4, 4, 7), np.float64))
    writer.line('status', {'lags': [1.0]})
    writer.close()
    assert (tmp_path / 'status.jsonl').read_text() == '{"lags": [1.0]}\n'
    assert writer.counts == {'status': 1} and writer.dropped == 2 and 'wrist cannot be written' in writer.problem


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_dead_writer_is_named_and_close_returns(tmp_path, monkeypatch):
    def die(*_):
        raise SystemExit

    monkeypatch.setattr(RecordingWriter, '_write', die)
    writer = RecordingWriter(tmp_path, {}, ('left',))
    writer.start()
    writer.line('views', {'stamp_ns': 0})
    end = time.monotonic() + 10
    while any(thread.name == 'recording' for thread in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.01)
    for i in range(1000):
        writer.line('views', {'stamp_ns': i})
    start = time.monotonic()
    writer.close()
    assert time.monotonic() - start < 5
    assert writer.counts == {} and writer.dropped >= 1000 and 'has ended; nothing more is recorded' in writer.problem


def test_close_returns_though_the_disk_hangs_and_what_waits_is_counted_as_dropped(tmp_path, monkeypatch):
    hang = threading.Event()
    monkeypatch.setattr(RecordingWriter, '_write', lambda *_: hang.wait(30))
    writer = RecordingWriter(tmp_path, {}, ('left',), patience=0.5)
    writer.start()
    for i in range(2000):
        writer.line('views', {'stamp_ns': i})
    start = time.monotonic()
    writer.close()
    assert time.monotonic() - start < 5 and writer.counts == {}
    assert (writer.dropped >= 1999 and 'within 0 s' in writer.problem) or 'slower' in writer.problem
    hang.set()


def test_numbers_that_are_nan_come_back_as_nan(recorded):
    writer_line = '{"stamp_ns": 5, "received_ns": 6, "coverage": null, "confidence": null, "agreement": null, "latency": 0.1, "age": 0.1, '
    writer_line += '"valid": false, "status": "NOT_FINITE", "reason": "x"}'
    with open(recorded / 'views.jsonl', 'a') as file:
        file.write(writer_line + '\n')
    assert np.isnan(Recording(recorded).series('coverage')[0])


def test_a_cut_last_line_is_left_out_and_said(recorded):
    with open(recorded / 'views.jsonl', 'a') as file:
        file.write('{"stamp_ns": 10000000000')
    recording = Recording(recorded)
    assert len(recording.views) == 12 and 'views.jsonl was cut short' in recording.damage[0]


def test_hostile_recordings_are_one_sentence_each(recorded, tmp_path):
    views, about = (recorded / name for name in ('views.jsonl', 'recording.json'))
    good_views, good_about = views.read_text(), about.read_text()
    for path, text, words in (
        (views, '{"stamp_ns": "now"}\n', 'line 1, stamp_ns: expected `int`'),
        (views, '{"stamp_ns": 1}\n', 'missing required field'),
        (views, '[' * 10**6 + '\n', 'expected `object`'),
        (about, '{"anchors": ["../../etc"], "head": {}}', 'An anchor of'),
        (about, '{"anchors": "left", "head": {}}', 'anchors: expected `array`'),
        (about, '{"anchors": ["left"]}', 'missing required field `head`'),
        (about, '{"anchors": ["left"], "head": ' + '[' * 10**6, 'expected `object`|nested'),
    ):
        views.write_text(good_views)
        about.write_text(good_about)
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            Recording(recorded)
    views.unlink()
    os.mkfifo(views)
    about.write_text(good_about)
    with pytest.raises(UserError, match='a named pipe'):
        Recording(recorded)


def png_of(width, height):
    """A PNG whose header announces a size and whose data are a few bytes."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def test_images_that_are_bombs_pipes_or_damaged_are_missing_and_said(recorded, caplog):
    recording = Recording(recorded)
    stamp = recording.views[0]['stamp_ns']
    path = recorded / 'wrist' / f'{stamp}.png'
    for write in (
        lambda: path.write_bytes(png_of(60000, 60000)),
        lambda: path.write_bytes(b'no image'),
        lambda: os.mkfifo(path),
    ):
        path.unlink()
        write()
        caplog.clear()
        assert recording.nearest(WRIST, stamp) is None
        assert str(path) in caplog.text


@pytest.mark.parametrize('name', ['../left', '/tmp/left', '', 'a/b'])
def test_anchor_names_that_lead_out_of_the_recording_are_refused(tmp_path, name):
    with pytest.raises(UserError, match='An anchor is'):
        RecordingWriter(tmp_path / 'recording', {}, (name,))
    assert not (tmp_path / 'recording').exists()


def test_a_disk_that_is_full_from_the_start_is_one_sentence(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr('pathlib.Path.write_text', full)
    with pytest.raises(UserError, match=r'cannot be written .No space left'):
        RecordingWriter(tmp_path / 'recording', {}, ('left',))
