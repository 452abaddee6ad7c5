"""Progress in megapixels: the lines of the log, and that a bar takes their place."""

import logging

import pytest

from crossdiff_cli.system import progress
from crossdiff_cli.system.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_a_minute_tells_rate_and_time_left(clock, caplog):
    caplog.set_level(logging.INFO, logger="crossdiff_cli")
    run = Progress(600_000_000, shown=False)
    for _ in range(5):
        clock[0] += 31
        run.add(31_000_000)
    run.close()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "62 of 600 Mpx (10 %), 1.00 Mpx/s, 9 min left",
        "124 of 600 Mpx (21 %), 1.00 Mpx/s, 8 min left",
    ]


def test_a_bar_counts_megapixels(clock, caplog, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    caplog.set_level(logging.INFO, logger="crossdiff_cli")
    run = Progress(4_000_000, shown=True)
    clock[0] += 100
    run.add(1_000_000)
    run.close()
    assert "1.0/4.0 Mpx" in capsys.readouterr().err
    assert not caplog.records
