"""Anchor images are matched by stamp: the newest set, each image once, bounded memory, a new start when the clock jumps."""

import time

from hypothesis import given
from hypothesis import strategies as st

from wristworld_ros.pipeline.frame_sync import FrameSync

MS = 1_000_000


def sync(names=('a', 'b'), slop=50 * MS, jump=500 * MS):
    return FrameSync(names, slop, jump)


def feed(s, *images):
    """Every set that comes out, as stamps in ms."""
    out = []
    for name, ms in images:
        found, _ = s.add(name, ms * MS, (name, ms))
        if found:
            assert [x.item for x in found] == [(n, x.stamp_ns // MS) for n, x in zip(s.names, found)]
            out.append(tuple(x.stamp_ns // MS for x in found))
    return out


def test_one_camera_needs_no_partner():
    assert feed(sync(('a',)), ('a', 0), ('a', 100)) == [(0,), (100,)]


def test_stamps_within_the_slop_belong_together():
    assert feed(sync(), ('a', 0), ('b', 50), ('b', 149), ('a', 100)) == [(0, 50), (100, 149)]


def test_stamps_beyond_the_slop_do_not():
    assert feed(sync(), ('a', 0), ('b', 51)) == []


def test_of_several_sets_the_newest_is_made_and_the_rest_counted():
    s = sync()
    assert feed(s, ('a', 0), ('a', 100), ('a', 200), ('b', 190)) == [(200, 190)]
    assert s.counts.unmatched == 2


def test_an_image_older_than_its_camera_s_newest_is_late():
    s = sync()
    assert feed(s, ('a', 100), ('b', 100), ('a', 90), ('b', 95), ('a', 100)) == [(100, 100)]
    assert s.counts.late == 3 and s.counts.jumps == 0


def test_a_clock_set_back_forgets_everything_and_fills_again():
    s = sync()
    assert feed(s, ('a', 5000), ('b', 5000), ('a', 5100)) == [(5000, 5000)]
    assert s.add('a', 0, ('a', 0)) == (None, True)
    assert feed(s, ('b', 0), ('a', 100), ('b', 100)) == [(0, 0), (100, 100)]
    assert s.counts.jumps == 1


def test_a_camera_that_jumps_back_later_than_the_other_starts_afresh_again():
    s = sync()
    feed(s, ('a', 5000), ('b', 5000), ('a', 0), ('b', 5100))
    assert s.add('b', 0, 'x') == (None, True)
    assert feed(s, ('a', 100), ('b', 100)) == [(100, 100)]
    assert s.counts.jumps == 2


def test_a_silent_camera_gives_no_sets_and_no_growth_and_comes_back():
    s = sync()
    assert feed(s, *[('a', 100 * i) for i in range(1000)]) == []
    assert len(s.waiting['a']) == 11  # one second of them, both ends included
    assert feed(s, ('b', 99_900), ('a', 100_000), ('b', 100_000)) == [(99_900, 99_900), (100_000, 100_000)]


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3000)), max_size=80),
    st.integers(0, 200),
)
def test_for_any_input_sets_are_within_the_slop_each_image_is_used_once_and_stamps_grow(cameras, images, slop):
    names = tuple('abcd'[:cameras])
    s = sync(names, slop * MS)
    used, last = set(), -1
    for i, (camera, ms) in enumerate(images):
        name = names[camera % cameras]
        found, jumped = s.add(name, ms * MS, i)
        if jumped:
            last = -1
        assert all(not q or q[-1].stamp_ns - q[0].stamp_ns <= s.window_ns for q in s.waiting.values())
        if found:
            stamps = [x.stamp_ns for x in found]
            assert all(abs(stamp - stamps[0]) <= slop * MS for stamp in stamps)
            assert stamps[0] > last
            last = stamps[0]
            assert used.isdisjoint(x.item for x in found)
            used |= {x.item for x in found}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2000)), max_size=80))
def test_every_image_is_used_late_unmatched_or_waiting_when_no_clock_jumps(images):
    s = FrameSync(('a', 'b', 'c'), 50 * MS, 10**18)
    sets = feed(s, *[('abc'[camera], ms) for camera, ms in images])
    waiting = sum(len(queue) for queue in s.waiting.values())
    assert waiting == s.queued
    assert 3 * len(sets) + s.counts.late + s.counts.unmatched + waiting == len(images)
    assert s.counts.matched == len(sets)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4000), st.integers(0, 9000)), max_size=80))
def test_every_image_is_accounted_for_and_memory_is_bounded_whatever_comes(images):
    s = FrameSync(('a', 'b', 'c'), 50 * MS, 500 * MS, max_bytes=60_000)
    for i, (camera, ms, size) in enumerate(images):
        s.add('abc'[camera], ms * MS, i, size)
        for queue in s.waiting.values():
            assert len(queue) <= 1 or sum(x.size for x in queue) <= 20_000
    c = s.counts
    assert 3 * c.matched + c.late + c.unmatched + c.pushed_out + c.cleared + s.queued == len(images)
    s.reset()
    assert s.queued == 0 and 3 * c.matched + c.late + c.unmatched + c.pushed_out + c.cleared == len(images)


def test_thirty_images_per_second_of_a_camera_that_lags_by_300_ms_match():
    s = sync(slop=20 * MS)
    images = [(name, 1000 * MS + i * 33 * MS - lag * MS) for i in range(90) for name, lag in (('a', 0), ('b', 297))]
    sets = [found for name, stamp in images if (found := s.add(name, stamp, None)[0])]
    assert len(sets) >= 80 and all(found[0].stamp_ns == found[1].stamp_ns for found in sets)
    assert s.lags() == {'a': 0.0, 'b': 0.297}


def test_it_is_said_how_far_cameras_are_apart_where_they_do_not_match():
    s = sync(slop=20 * MS)
    assert s.lags() == {'a': None, 'b': None} and s.gap('b') is None
    assert feed(s, *[(name, 100 * i + late) for i in range(20) for name, late in (('a', 0), ('b', 45))]) == []
    assert s.lags()['a'] == 0.045 and s.gap('b') == 0.045


def test_a_window_in_time_holds_for_any_rate_and_a_bound_in_bytes_for_any_image():
    slow, fast = sync(), sync()
    feed(slow, *[('a', 500 * i) for i in range(9)])
    feed(fast, *[('a', 5 * i) for i in range(900)])
    assert (slow.queued, fast.queued) == (3, 201)
    big = FrameSync(('a', 'b'), 0, 10**9, max_bytes=100_000)
    for i in range(9):
        big.add('a', i, None, size=20_000)
    assert big.queued == 2 and big.counts.pushed_out == 7
    big.add('a', 9, None, size=10**9)
    assert big.queued == 1, 'the newest image stays, however large'


def test_images_without_content_at_any_rate_cost_neither_memory_nor_time():
    s = FrameSync(('a', 'b'), 50 * MS, 500 * MS, max_bytes=2**22)
    start = time.perf_counter()
    for i in range(20_000):
        s.add('a', i, None)
        s.add('b', i + 10**9, None)
    assert s.queued <= 2**22 // 1024 and time.perf_counter() - start < 5
