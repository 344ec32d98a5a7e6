"""The newest set wins; reconstruction and generation overlap; nothing is delivered after a reset or a stop."""

import threading
import time

import numpy as np
import pytest

from wristworld_ros.pipeline.worker import ModelWorker, StagePacing
from wristworld_ros.types import AnchorSet


class Matched:
    """Images that count how often they are decoded, and in which thread."""

    def __init__(self, stamp, usable=True):
        self.stamp, self.usable, self.threads = stamp, usable, []

    def decode(self):
        self.threads.append(threading.current_thread().name)
        return AnchorSet(self.stamp, ('a',), np.zeros((1, 2, 2, 3), np.uint8)) if self.usable else None


def anchors(stamp):
    return Matched(stamp)


class Gated:
    """A stream whose every reconstruction waits for permission, and which records its calls."""

    def __init__(self):
        self.started, self.leave = threading.Semaphore(0), threading.Semaphore(0)
        self.calls, self.threads = [], set()
        self.error = None

    def reconstruct(self, anchors):
        self.calls.append(anchors.stamp_ns)
        self.threads.add(threading.current_thread().name)
        self.started.release()
        assert self.leave.acquire(timeout=10)
        if self.error:
            error, self.error = self.error, None
            raise error
        return anchors.stamp_ns

    def generate(self, observation):
        self.threads.add(threading.current_thread().name)
        return [observation]

    def reset(self):
        self.calls.append('reset')


@pytest.fixture
def gated():
    stream, delivered, failures = Gated(), [], []
    worker = ModelWorker(lambda: stream, delivered.extend, failures.append)
    worker.start()
    yield stream, worker, delivered, failures
    stream.leave.release(100)
    assert worker.stop(5)


def until(condition, timeout=5):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_the_newest_set_wins_and_the_rest_is_counted(gated):
    stream, worker, delivered, _ = gated
    worker.submit(anchors(0))
    assert stream.started.acquire(timeout=5)
    for stamp in range(1, 6):
        worker.submit(anchors(stamp))
    stream.leave.release(2)
    until(lambda: delivered == [0, 5])
    assert (worker.used, worker.replaced) == (2, 4)
    assert stream.threads == {'reconstruct', 'generate'}


def test_images_are_decoded_when_their_set_is_used_in_the_thread_that_uses_it(gated):
    stream, worker, delivered, _ = gated
    first, replaced, last = (anchors(stamp) for stamp in range(3))
    worker.submit(first)
    assert stream.started.acquire(timeout=5)
    worker.submit(replaced)
    worker.submit(last)
    assert last.threads == []
    stream.leave.release(2)
    until(lambda: delivered == [0, 2])
    assert (first.threads, replaced.threads, last.threads) == (['reconstruct'], [], ['reconstruct'])


def test_a_set_whose_images_turn_out_to_be_unusable_is_not_used_and_the_next_one_is(gated):
    stream, worker, delivered, failures = gated
    worker.submit(Matched(0, usable=False))
    until(lambda: worker.waiting == 0)
    worker.submit(anchors(1))
    stream.leave.release()
    until(lambda: delivered == [1])
    assert (worker.used, worker.replaced, failures) == (1, 0, [])


def test_every_set_is_used_replaced_or_waiting_through_resets_and_the_end(gated):
    stream, worker, _, _ = gated
    worker.submit(anchors(0))
    assert stream.started.acquire(timeout=5)
    worker.submit(anchors(1))
    assert worker.used + worker.replaced + worker.waiting == 2 and worker.waiting == 1
    worker.reset()
    assert (worker.used, worker.replaced, worker.waiting) == (1, 1, 0)
    worker.submit(anchors(2))
    worker.stop(0)
    assert (worker.used, worker.replaced, worker.waiting) == (1, 2, 0)
    stream.leave.release(2)


def test_what_was_being_made_at_a_reset_is_not_delivered(gated):
    stream, worker, delivered, _ = gated
    worker.submit(anchors(0))
    assert stream.started.acquire(timeout=5)
    worker.submit(anchors(1))
    worker.reset()
    worker.submit(anchors(2))
    stream.leave.release(2)
    until(lambda: delivered == [2])
    assert stream.calls == [0, 'reset', 2]


def test_a_failed_reconstruction_is_reported_and_the_next_one_starts_a_new_stream(gated):
    stream, worker, delivered, failures = gated
    stream.error = MemoryError('full')
    worker.submit(anchors(0))
    stream.leave.release()
    until(lambda: len(failures) == 1)
    worker.submit(anchors(1))
    stream.leave.release()
    until(lambda: delivered == [1])
    assert stream.calls == [0, 'reset', 1]


def test_stop_returns_in_time_while_the_model_is_busy_and_nothing_comes_after():
    stream, delivered = Gated(), []
    worker = ModelWorker(lambda: stream, delivered.extend, lambda error: None)
    worker.start()
    worker.submit(anchors(0))
    assert stream.started.acquire(timeout=5)
    start = time.monotonic()
    assert not worker.stop(0.2)
    assert time.monotonic() - start < 1
    stream.leave.release()
    until(lambda: not worker.busy)
    assert delivered == []


def test_what_goes_wrong_while_loading_is_raised_by_start():
    def make():
        raise ValueError('no such file')

    with pytest.raises(ValueError, match='no such file'):
        ModelWorker(make, print, print).start()


def test_loading_can_be_given_up():
    leave = threading.Event()
    worker = ModelWorker(lambda: leave.wait(5) and None, print, print)
    with pytest.raises(RuntimeError, match='while the model was loading'):
        worker.start(alive=lambda: False)
    leave.set()
    assert worker.stop(5)


class SlowGeneration(Gated):
    """Reconstructs at once; its generation waits for permission and may fail."""

    def reconstruct(self, anchors):
        self.calls.append(anchors.stamp_ns)
        return anchors.stamp_ns

    def generate(self, observation):
        self.calls.append(f'generate {observation}')
        self.started.release()
        assert self.leave.acquire(timeout=10)
        if self.error:
            error, self.error = self.error, None
            raise error
        return [observation]


@pytest.fixture
def generating():
    stream, delivered, failures = SlowGeneration(), [], []
    worker = ModelWorker(lambda: stream, delivered.extend, failures.append)
    worker.start()
    yield stream, worker, delivered, failures
    stream.leave.release(100)
    assert worker.stop(5)


def test_the_next_set_and_no_other_is_reconstructed_while_the_last_is_generated(generating):
    stream, worker, delivered, _ = generating
    worker.submit(anchors(1))
    assert stream.started.acquire(timeout=5)
    worker.submit(anchors(2))
    until(lambda: stream.calls.count(2) == 1)
    worker.submit(anchors(3))
    worker.submit(anchors(4))
    time.sleep(0.05)
    assert 3 not in stream.calls and 4 not in stream.calls
    stream.leave.release(3)
    until(lambda: delivered == [1, 2, 4])
    assert worker.replaced == 1


def test_a_failed_generation_drops_the_observation_behind_it(generating):
    stream, worker, delivered, failures = generating
    stream.error = MemoryError('full')
    worker.submit(anchors(1))
    assert stream.started.acquire(timeout=5)
    worker.submit(anchors(2))
    until(lambda: 2 in stream.calls)
    stream.leave.release(5)
    until(lambda: len(failures) == 1)
    worker.submit(anchors(3))
    until(lambda: delivered == [3])
    assert 'generate 2' not in stream.calls and stream.calls.index('reset') < stream.calls.index(3)


def test_a_set_is_taken_when_its_reconstruction_would_end_with_the_generation():
    pacing = StagePacing()
    assert pacing.delay(0.0) == 0
    pacing.reconstructed(0.020)
    pacing.generation_started(0.0)
    assert pacing.delay(0.001) == 0, 'nothing is known of generation yet'
    pacing.generation_ended(0.150)
    pacing.generation_started(1.0)
    assert pacing.delay(1.0) == pytest.approx(0.150 - 1.25 * 0.020)
    assert pacing.delay(1.1) == pytest.approx(0.025)
    assert pacing.delay(1.13) == 0
    pacing.generation_ended(1.15)
    assert pacing.delay(1.15) == 0


def test_the_estimates_follow_a_load_that_changes():
    pacing = StagePacing()
    for i in range(20):
        pacing.reconstructed(0.02)
        pacing.generation_started(float(i))
        pacing.generation_ended(i + (0.1 if i < 10 else 0.3))
    pacing.generation_started(100.0)
    assert pacing.delay(100.0) == pytest.approx(0.3 - 0.025, abs=0.01)


class Slow:
    """Reconstructs in 10 ms, generates in 150 ms, and records how old each set was when its generation began."""

    def __init__(self):
        self.waited = []

    def reconstruct(self, anchors):
        time.sleep(0.01)
        return anchors.stamp_ns

    def generate(self, stamp):
        self.waited.append((time.monotonic_ns() - stamp) * 1e-9)
        time.sleep(0.15)
        return []

    def reset(self):
        pass


def test_sets_do_not_wait_for_the_generator_while_newer_ones_arrive():
    stream = Slow()
    worker = ModelWorker(lambda: stream, print, print)
    worker.start()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        worker.submit(anchors(time.monotonic_ns()))
        time.sleep(0.01)
    assert worker.stop(5)
    # Taken as soon as the last generation had begun, a set would be 150 ms old; the machine may be slow, but not always.
    assert len(stream.waited) > 5 and min(stream.waited[3:]) < 0.1
