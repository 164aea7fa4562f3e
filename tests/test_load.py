"""The simulation of queues and readers, and what it is computed from."""

import sys

import numpy as np
import pytest

from cvlab import run

sys.path.insert(0, str(run.book_root()))

from experiments import load, memory

pytestmark = pytest.mark.house


def test_with_a_slot_for_each_run_nobody_waits():
    assert load.queue(np.zeros(5), np.full(5, 60.0), 5).tolist() == [0] * 5


def test_in_one_queue_runs_wait_for_those_before_them():
    assert load.queue(np.array([0.0, 0.0, 10.0, 500.0]), np.full(4, 60.0), 1).tolist() == [0, 60, 110, 0]
    assert load.queue(np.array([0.0, 0.0, 10.0, 500.0]), np.full(4, 60.0), 2).tolist() == [0, 0, 50, 0]


def test_waiting_agrees_with_the_formula_for_random_arrivals():
    random = np.random.default_rng(0)  # M/M/1 at a load of 0.5: the mean wait is one service time
    asked, seconds = np.cumsum(random.exponential(2.0, 200_000)), random.exponential(1.0, 200_000)
    assert load.queue(asked, seconds, 1).mean() == pytest.approx(1.0, rel=0.05)


def test_the_number_of_slots_is_the_smallest_that_does():
    asked = load.arrivals(2000, np.random.default_rng(0))
    seconds = np.full(len(asked), 300.0)
    slots, _ = load.smallest(asked, seconds)
    bound = load.ASSUMED["wait that 95% of runs should stay below, minutes"]
    waits = [load.summary(asked, seconds, n)["wait_p95_minutes"] for n in (slots - 1, slots)]
    assert waits[1] <= bound < waits[0]


def test_half_of_the_runs_are_asked_for_on_the_last_day():
    asked, day = load.arrivals(10_000, np.random.default_rng(0)), 3600 * load.ASSUMED["hours a day"]
    last = (asked >= (load.ASSUMED["days until the deadline"] - 1) * day).mean()
    assert (
        last == pytest.approx(load.ASSUMED["share of runs on the last day"], abs=0.02) and (np.diff(asked) >= 0).all()
    )


def test_twice_the_readers_transfer_twice_as_much(monkeypatch):
    once = load.readers()
    monkeypatch.setitem(load.ASSUMED, "readers a day", 2 * load.ASSUMED["readers a day"])
    twice = load.readers()
    assert twice["gb_a_day"] == pytest.approx(2 * once["gb_a_day"], rel=0.01)
    assert twice["readers_a_day_that_pages_allows"] == pytest.approx(once["readers_a_day_that_pages_allows"], rel=0.01)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_peak_memory_stays_after_the_memory_is_given_back():
    before = memory.peak_gb()
    held = np.ones(300_000_000 // 8)
    del held
    assert memory.peak_gb() >= before and memory.peak_gb() > 0.3
