"""Time by stages: added up over threads, also where a call fails."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from crossdiff_cli.inference.stage_times import StageTimes


def test_calls_of_several_threads_add_up():
    times = StageTimes()
    wait = times.timed("wait", lambda seconds: time.sleep(seconds) or seconds)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(wait, [0.05] * 8)) == [0.05] * 8
    assert times.seconds["wait"] >= 8 * 0.05


def test_a_call_that_fails_counts_and_fails():
    times = StageTimes()
    with pytest.raises(ZeroDivisionError):
        times.timed("divide", lambda: 1 / 0)()
    assert list(times.seconds) == ["divide"]


def test_stages_are_apart():
    times = StageTimes()
    times.timed("read", time.sleep)(0.02)
    times.timed("write", lambda: None)()
    assert times.seconds["read"] >= 0.02 > times.seconds["write"] >= 0
