"""Steps of a pipeline in threads of their own: order, errors, and ends that come early from either side."""

import threading

import pytest

from wristworld_ros.runtime.overlap import Channel, ReaderGoneError, ahead


def test_items_come_in_order_and_are_made_in_another_thread():
    made = [(i, threading.current_thread()) for i in range(3)]
    found = list(ahead((i, threading.current_thread()) for i in range(3)))
    assert [i for i, _ in found] == [i for i, _ in made]
    assert all(thread is not threading.current_thread() for _, thread in found)


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise KeyError('two')

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(KeyError, match='two'):
        next(found)


def test_no_more_is_made_than_has_room():
    made, third = [], threading.Event()

    def items():
        for i in range(9):
            made.append(i)
            if i == 3:
                third.set()
            yield i

    found = ahead(items(), size=2)
    assert next(found) == 0 and third.wait(10)
    assert made == [0, 1, 2, 3], 'one taken, two that wait, one in hand'
    found.close()


def test_a_generator_is_closed_when_its_reader_stops():
    closed = []

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread())

    found = ahead(items())
    next(found)
    found.close()
    assert len(closed) == 1 and closed[0] is not threading.current_thread()


def test_a_writer_is_told_that_nobody_reads():
    channel = Channel(1)
    channel.put(1)
    threading.Timer(0.05, channel.leave).start()
    with pytest.raises(ReaderGoneError):
        channel.put(2)
