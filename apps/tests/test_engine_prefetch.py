"""Batches made in the background: the same ones in the same order, errors where they belong, waiting measured."""

import threading
import time
from itertools import count

import pytest
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.prefetch import Prefetch

PLAN = [(7 * k, 7) for k in range(23)]


def place(first: int, size: int) -> tuple[int, ...]:
    time.sleep((first * 7919 % 5) / 2_000)  # later batches may be done sooner
    return tuple(range(first, first + size))


@pytest.mark.parametrize(("ahead", "threads"), [(0, 1), (1, 1), (3, 1), (5, 4), (40, 3)])
def test_batches_come_in_the_order_of_the_plan(ahead, threads):
    with Prefetch(place, PLAN, ahead, threads) as batches:
        got = [batches.next() for _ in PLAN]
        with pytest.raises(StopIteration):
            batches.next()
    assert got == [place(*where) for where in PLAN]


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_no_more_than_ahead_batches_are_made_beyond_the_one_in_use(ahead):
    made = []
    with Prefetch(lambda first, size: made.append(first), ((k, 1) for k in count()), ahead) as batches:
        for used in range(1, 6):
            batches.next()
            time.sleep(0.02)  # time enough to run too far
            assert len(made) <= used + ahead
        assert len(made) == 5 + ahead


def test_an_error_waits_for_the_step_that_needs_the_batch():
    def fails_at_14(first: int, size: int) -> int:
        if first == 14:
            raise OSError("sample 14 is on a disk that is gone")
        return first

    with Prefetch(fails_at_14, PLAN, ahead=5) as batches:
        assert [batches.next(), batches.next()] == [0, 7]
        time.sleep(0.02)  # the failing batch has long been tried
        with pytest.raises(OSError, match="sample 14"):
            batches.next()
        assert batches.next() == 21


def test_a_loader_as_fast_as_the_step_keeps_nobody_waiting_and_a_slow_one_is_seen():
    def slow(first: int, size: int) -> int:
        time.sleep(0.03)
        return first

    with Prefetch(slow, PLAN, ahead=2) as hidden:
        hidden.next()
        first = hidden.waited
        for _ in range(5):
            time.sleep(0.06)  # the step
            hidden.next()
    with Prefetch(slow, PLAN, ahead=0) as open_:
        for _ in range(5):
            open_.next()
    assert first >= 0.03
    assert hidden.waited - first < 0.05
    assert open_.waited >= 5 * 0.03


def test_batches_are_made_on_other_threads_only_when_asked_for():
    def on(first: int, size: int) -> str:
        return threading.current_thread().name

    here = threading.current_thread().name
    with Prefetch(on, PLAN, ahead=0) as batches:
        assert batches.next() == here
    with Prefetch(on, PLAN, ahead=1) as batches:
        assert batches.next() != here


def test_leaving_stops_the_threads_even_of_an_endless_plan():
    before = threading.active_count()
    with Prefetch(place, ((k, 3) for k in count()), ahead=4, threads=2) as batches:
        batches.next()
    assert threading.active_count() == before


@pytest.mark.parametrize(("ahead", "threads"), [(-1, 1), (2, 0)])
def test_senseless_numbers_are_refused(ahead, threads):
    with pytest.raises(ConfigError, match="must be a whole number"):
        Prefetch(place, PLAN, ahead, threads)
