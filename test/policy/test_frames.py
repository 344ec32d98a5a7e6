"""Three promises: the next frame, one not had yet, the newest one; each is valid and fresh, or an error."""

import pickle

import numpy as np
import pytest

from wristworld_ros.errors import UserError
from wristworld_ros.policy.errors import (
    CameraClosedError,
    FrameTimeoutError,
    InvalidFrameError,
    StaleFrameError,
    WristCameraError,
)
from wristworld_ros.policy.frames import FrameReader
from wristworld_ros.types import FrameStatus

S = 1_000_000_000


@pytest.fixture
def reader(source):
    source.time_ns = 1000 * S
    return FrameReader(source, max_age=0.5)


def test_read_waits_for_a_frame_that_comes_after_the_call(source, reader, in_a_thread):
    source.put(stamp_ns=source.time_ns - 1)
    result = in_a_thread(lambda: reader.read(timeout=10))
    stamp_ns = source.put()
    assert result().stamp_ns == stamp_ns


def test_async_read_gives_the_newest_frame_once_and_then_waits(source, reader, in_a_thread):
    source.put(stamp_ns=source.time_ns - 2)
    newest = source.put(stamp_ns=source.time_ns - 1)
    assert reader.async_read(timeout=0).stamp_ns == newest
    result = in_a_thread(lambda: reader.async_read(timeout=10))
    stamp_ns = source.put()
    assert result().stamp_ns == stamp_ns


def test_a_frame_that_read_gave_counts_as_had_and_one_that_read_latest_gave_does_not(source, reader, in_a_thread):
    result = in_a_thread(lambda: reader.read(timeout=10))
    source.put()
    result()
    with pytest.raises(FrameTimeoutError):
        reader.async_read(timeout=0)
    stamp_ns = source.put()
    assert reader.read_latest().stamp_ns == reader.read_latest().stamp_ns == reader.async_read(0).stamp_ns == stamp_ns


def test_readers_take_nothing_from_each_other(source, reader):
    other = FrameReader(source)
    stamp_ns = source.put()
    assert reader.async_read(0).stamp_ns == other.async_read(0).stamp_ns == stamp_ns


def test_the_age_is_of_the_moment_of_handing_over(source, reader):
    source.put(stamp_ns=source.time_ns - S // 4)
    assert reader.read_latest().age_s == pytest.approx(0.25)
    source.time_ns += S // 8
    assert reader.read_latest().age_s == pytest.approx(0.375)


def test_an_old_frame_raises_from_every_promise(source, reader, in_a_thread):
    source.put()
    source.time_ns += S
    for read in (reader.read_latest, lambda: reader.async_read(timeout=0.01)):
        with pytest.raises(
            StaleFrameError, match=r'1\.00 s old, and 0\.5 s are allowed \(the test sends nothing\)'
        ) as error:
            read()
        assert error.value.status is FrameStatus.STALE
    result = in_a_thread(lambda: reader.read(timeout=10))
    source.put(stamp_ns=source.time_ns - S)
    assert isinstance(result(), StaleFrameError)


def test_the_caller_s_own_limit_of_age_counts_for_read_latest(source, reader):
    source.put(stamp_ns=source.time_ns - S)
    assert reader.read_latest(max_age=1.5).age_s == pytest.approx(1.0)
    source.put(stamp_ns=source.time_ns - S // 10)
    with pytest.raises(StaleFrameError):
        reader.read_latest(max_age=0.05)


def test_async_read_passes_an_old_frame_over_and_waits_for_another(source, reader, in_a_thread):
    source.put(stamp_ns=source.time_ns - S)
    result = in_a_thread(lambda: reader.async_read(timeout=10))
    stamp_ns = source.put()
    assert result().stamp_ns == stamp_ns


@pytest.mark.parametrize('status', [s for s in FrameStatus if s is not FrameStatus.VALID])
def test_an_invalid_frame_raises_though_a_valid_one_came_before(source, reader, status):
    source.put()
    source.put(status=status)
    for read in (reader.read_latest, lambda: reader.async_read(timeout=0)):
        with pytest.raises(WristCameraError, match=f'{status.name} .The cup is in the way.') as error:
            read()
        assert error.value.status is status
        assert isinstance(error.value, StaleFrameError if status is FrameStatus.STALE else InvalidFrameError)


def test_a_valid_frame_after_an_invalid_one_is_given(source, reader):
    source.put(status=FrameStatus.NOT_FINITE)
    stamp_ns = source.put()
    assert reader.read_latest().stamp_ns == reader.async_read(0).stamp_ns == stamp_ns


def test_a_stamp_ahead_of_the_clock_raises(source, reader):
    source.put(stamp_ns=source.time_ns + S)
    with pytest.raises(InvalidFrameError, match='future') as error:
        reader.read_latest()
    assert error.value.status is FrameStatus.STAMP_IN_FUTURE


def test_silence_is_explained(reader):
    for read, words in ((reader.read_latest, 'has come yet'), (lambda: reader.async_read(0.01), r'within 0\.01 s')):
        with pytest.raises(FrameTimeoutError, match=words + r' \(the test sends nothing\); send something\.') as error:
            read()
        assert error.value.status is None


def test_closing_wakes_all_who_wait(source, reader, in_a_thread):
    results = [in_a_thread(lambda: reader.read(60)), in_a_thread(lambda: FrameReader(source).async_read(60))]
    source.latest.close()
    assert all(isinstance(result(), CameraClosedError) for result in results)
    with pytest.raises(CameraClosedError):
        reader.read_latest()


@pytest.mark.parametrize('wrong', [-1, float('nan'), float('inf'), '1', None, True])
def test_a_time_that_is_none_is_refused(source, reader, wrong):
    for read in (reader.read, reader.async_read):
        with pytest.raises(UserError, match='timeout is'):
            read(wrong)
    with pytest.raises(UserError, match='max_age is'):
        FrameReader(source, wrong)


def test_numbers_of_numpy_are_taken(source, reader):
    source.put()
    assert reader.async_read(np.float32(0.5)).age_s == 0


def test_errors_of_time_are_timeout_errors_and_all_survive_pickling():
    assert issubclass(StaleFrameError, TimeoutError) and issubclass(FrameTimeoutError, TimeoutError)
    for kind in (InvalidFrameError, StaleFrameError, FrameTimeoutError, CameraClosedError):
        error = kind('a', 'b', FrameStatus.STALE)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind and isinstance(again, UserError)
        assert (str(again), again.status) == (str(error), FrameStatus.STALE) and str(error) == 'a; b.'
