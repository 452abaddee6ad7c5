"""Scenes on a real dask.distributed cluster of two worker processes."""

import os
import signal

import pytest
from click.testing import CliRunner
from test_batch import QUICK, lines, strike, table

from crossdiff_cli.batch import cluster
from crossdiff_cli.batch.cluster import on_cluster
from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import CrossDiffError
from crossdiff_cli.options import SharpenOptions

distributed = pytest.importorskip("distributed")


@pytest.fixture
def scheduler():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local:
        yield local


def pids(local) -> set[int]:
    return {nanny.pid for nanny in local.workers.values()}


def test_a_worker_killed_in_mid_scene_loses_none(scheduler, make_pair, tmp_path, small_weights):
    """The scene goes to another worker; what the killed one left is removed; a bad scene fails alone."""
    big, good = make_pair(shape=(512, 512), name="big"), make_pair(shape=(64, 64))
    rows = [("big", big.pan, big.ms), ("missing", str(tmp_path / "none.tif"), good.ms)]
    rows += [(f"s{k}", good.pan, good.ms) for k in range(6)]
    out, manifest = tmp_path / "out", table(tmp_path / "m.csv", rows)
    before, struck = pids(scheduler), []

    def kill(pid):
        os.kill(pid, signal.SIGKILL)
        struck.append(pid)

    killer = strike(out, "big", kill)
    arguments = [manifest, "-o", out, "--results", tmp_path / "r.jsonl", "--weights", small_weights, *QUICK]
    command = ["batch", *map(str, arguments), "--scheduler", scheduler.scheduler_address]
    done = CliRunner().invoke(main, command)
    killer.join()
    found = lines(tmp_path / "r.jsonl")
    assert done.exit_code == 1, done.output
    assert len(struck) == 1 and set(struck) < before
    assert {name for name, line in found.items() if line["status"] == "failed"} == {"missing"}
    assert "none.tif" in found["missing"]["reason"]
    assert sorted(p.name for p in out.iterdir()) == sorted(f"{name}.tif" for name in found if name != "missing")
    assert len(found) == 8
    assert len({p.read_bytes() for p in out.glob("s*.tif")}) == 1
    again = CliRunner().invoke(main, [*command, "--skip-existing"])
    assert "8 scenes: 0 sharpened, 7 skipped, 1 failed" in again.stderr


def test_no_scheduler_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 0.5)
    manifest = table(tmp_path / "m.csv", [("a", "p.tif", "m.tif")])
    command = ["batch", str(manifest), "-o", str(tmp_path / "out"), "--scheduler", "tcp://127.0.0.1:1"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("Error: tcp://127.0.0.1:1: no scheduler answers")


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(CrossDiffError, match=r"crossdiff-cli\[dask\]"):
        next(on_cluster([], SharpenOptions(), "tcp://h:1"))
