"""Many scenes, unattended: whatever happens to one, the others are sharpened and it is named."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import sharpen_options

from crossdiff_cli.batch import outcome
from crossdiff_cli.batch.manifest import Scene
from crossdiff_cli.batch.outcome import attempt
from crossdiff_cli.batch.record import Record
from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import OutputError
from crossdiff_cli.model import weights
from crossdiff_cli.model.weights import WeightStore
from crossdiff_cli.options import PairOptions, SharpenOptions

QUICK = ["--sensor", "vhr", "--bands", "B,G,R,NIR", "--align", "off", "--tile", "256", "--precision", "fp32"]


@pytest.fixture
def run(small_weights):
    def invoke(*arguments):
        return CliRunner().invoke(main, ["batch", *map(str, arguments), *QUICK, "--weights", str(small_weights)])

    return invoke


def table(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A manifest of (name, pan, ms)."""
    path.write_text("name,pan,ms\n" + "".join(",".join(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> dict[str, dict]:
    return {line["name"]: line for line in map(json.loads, path.read_text().splitlines())}


def strike(folder: Path, target: str, blow: Callable[[int], None]) -> threading.Thread:
    """Once a result that matches `target` is being written, call `blow` with the process that writes it."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for found in folder.glob(f".{target}.tif.*.tmp*"):
                return blow(int(found.name.split("-")[-2]))
            time.sleep(0.01)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@contextmanager
def interruptible() -> Iterator[None]:
    """What begins herein hears SIGINT: tests may run in the background, where it is ignored, and that is inherited."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_fifty_scenes_of_which_three_are_special(run, make_pair, tmp_path):
    """One corrupt, one missing, one finished earlier: 47 new files, one skipped, two named; a rerun tries the two."""
    good = make_pair(shape=(64, 64))
    whole = Path(good.ms).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    rows = [(f"s{k:02}", good.pan, good.ms) for k in range(47)]
    rows[10:10] = [("corrupt", good.pan, str(tmp_path / "cut.tif"))]
    rows[20:20] = [("missing", str(tmp_path / "none.tif"), good.ms)]
    rows[30:30] = [("earlier", good.pan, good.ms)]
    out, manifest = tmp_path / "out", table(tmp_path / "m.csv", rows)
    out.mkdir()
    (out / "earlier.tif").write_text("finished")
    (out / ".s00.tif.999.tmp.tif").write_text("left by a batch that was killed")

    done = run(manifest, "-o", out, "--skip-existing", "--jobs", 2, "--results", tmp_path / "1.jsonl")
    assert done.exit_code == 1, done.output
    assert sorted(p.name for p in out.iterdir()) == sorted(["earlier.tif", *(f"s{k:02}.tif" for k in range(47))])
    assert (out / "earlier.tif").read_text() == "finished"
    assert len({p.read_bytes() for p in out.glob("s*.tif")}) == 1
    found = lines(tmp_path / "1.jsonl")
    assert len(found) == 50
    assert {name for name, line in found.items() if line["status"] == "skipped"} == {"earlier"}
    assert {name for name, line in found.items() if line["status"] == "failed"} == {"corrupt", "missing"}
    assert found["s00"]["output"] == str(out / "s00.tif")
    assert found["s00"]["bands"] == ["B", "G", "R", "NIR"]
    assert found["s00"]["reason"] is None
    summary = done.stderr[done.stderr.index("50 scenes:") :].splitlines()
    assert summary[0].startswith("50 scenes: 47 sharpened, 1 skipped, 2 failed")
    assert "cut.tif" in found["corrupt"]["reason"] and "none.tif" in found["missing"]["reason"]
    for name in ("corrupt", "missing"):
        assert f"  {name}: {found[name]['reason']}" in summary

    times = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    again = run(manifest, "-o", out, "--skip-existing", "--json", "-q")
    assert again.exit_code == 1
    tried = [line["name"] for line in map(json.loads, again.stdout.splitlines()) if line["status"] != "skipped"]
    assert tried == ["corrupt", "missing"]
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == times


def test_results_that_exist_fail_unless_told(run, make_pair, tmp_path):
    """Neither flag: refused before a process is started; --overwrite replaces."""
    good = make_pair(shape=(64, 64))
    out, manifest = tmp_path / "out", table(tmp_path / "m.csv", [("a", good.pan, good.ms)])
    out.mkdir()
    (out / "a.tif").write_text("old")
    done = run(manifest, "-o", out, "--json")
    assert done.exit_code == 1
    assert "--overwrite replaces it, --skip-existing keeps it" in json.loads(done.stdout)["reason"]
    assert (out / "a.tif").read_text() == "old"
    assert run(manifest, "-o", out, "--overwrite", "-q").exit_code == 0
    assert (out / "a.tif").read_bytes()[:2] in (b"II", b"MM")


def test_a_killed_process_takes_only_its_scene_with_it(run, make_pair, tmp_path):
    """kill -9 in mid-scene, as the system does out of memory: its scene is named, nothing of it stays."""
    big, good = make_pair(shape=(512, 512), name="big"), make_pair(shape=(64, 64))
    rows = [("a", good.pan, good.ms), ("victim", big.pan, big.ms), ("b", good.pan, good.ms), ("c", good.pan, good.ms)]
    out, manifest = tmp_path / "out", table(tmp_path / "m.csv", rows)
    killer = strike(out, "victim", lambda pid: os.kill(pid, signal.SIGKILL))
    done = run(manifest, "-o", out, "--results", tmp_path / "r.jsonl")
    killer.join()
    found = lines(tmp_path / "r.jsonl")
    assert done.exit_code == 1, done.output
    assert {name: line["status"] for name, line in found.items()} == dict.fromkeys("abc", "ok") | {"victim": "failed"}
    assert "SIGKILL" in found["victim"]["reason"]
    assert sorted(p.name for p in out.iterdir()) == ["a.tif", "b.tif", "c.tif"]


def test_ctrl_c_ends_in_order(make_pair, tmp_path, small_weights):
    """Nothing partial, the summary is printed, the exit code is 130; what was finished stays."""
    big, good = make_pair(shape=(512, 512), name="big"), make_pair(shape=(64, 64))
    rows = [("done", good.pan, good.ms), *((f"big{k}", big.pan, big.ms) for k in range(4))]
    out, manifest = tmp_path / "out", table(tmp_path / "m.csv", rows)
    command = [sys.executable, "-m", "crossdiff_cli", "batch", str(manifest), "-o", str(out), "--jobs", "2", *QUICK]
    with interruptible():
        process = subprocess.Popen(
            [*command, "--weights", str(small_weights)], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    strike(out, "big?", lambda _: os.killpg(process.pid, signal.SIGINT)).join()
    _, heard = process.communicate(timeout=60)
    assert process.returncode == 130, heard
    finished = [p.name for p in out.iterdir()]
    assert not [name for name in finished if ".tmp" in name]
    assert f"5 scenes: {len(finished)} sharpened, 0 skipped, 0 failed, {5 - len(finished)} not finished" in heard
    assert len(finished) < 5
    assert "Traceback" not in heard
    assert "leaked" not in heard


def test_ctrl_c_reaches_no_process_that_only_begins(tmp_path):
    """Each process of a batch has SIGINT blocked from its first instruction on, the very first one too."""
    script = tmp_path / "begin.py"
    script.write_text(
        "import signal\n"
        "from pathlib import Path\n"
        "from crossdiff_cli.batch.manifest import Scene\n"
        "from crossdiff_cli.batch.processes import _Worker\n"
        "from crossdiff_cli.options import SharpenOptions\n"
        "if __name__ == '__main__':\n"
        "    scene = Scene('a', 'p.tif', ('m.tif',), Path('a.tif'))\n"
        "    for _ in range(2):\n"
        "        worker = _Worker(0, scene, SharpenOptions(), 1, None)\n"
        "        status = Path(f'/proc/{worker._process.pid}/status').read_text()\n"
        "        blocked = int(status.split('SigBlk:')[1].split()[0], 16)\n"
        "        print(blocked >> signal.SIGINT - 1 & 1)\n"
        "        worker.clear()\n"
    )
    with interruptible():
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "1"], done.stderr


def test_late_scenes_are_given_up_and_fail_fast_begins_no_other(run, make_pair, tmp_path):
    big = make_pair(shape=(512, 512))
    rows = [(name, big.pan, big.ms) for name in "ab"]
    manifest = table(tmp_path / "m.csv", rows)
    done = run(manifest, "-o", tmp_path / "out", "--timeout", 0.5, "--fail-fast", "--json")
    assert done.exit_code == 1
    (line,) = map(json.loads, done.stdout.splitlines())
    assert (line["name"], line["status"], line["reason"]) == ("a", "failed", "not finished after 0.5 s (--timeout)")
    assert "1 failed, 1 not finished" in done.stderr
    assert list((tmp_path / "out").glob("*")) == []


def test_a_batch_on_several_devices(run, make_pair, tmp_path):
    good = make_pair(shape=(64, 64))
    done = run(table(tmp_path / "m.csv", [("a", good.pan, good.ms)]), "-o", tmp_path / "out", "--device", "cpu,cpu")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "a.tif").is_file()


def test_what_would_fail_every_scene_fails_the_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("crossdiff_cli.model.device._fast_in_int8", lambda device: False)
    manifest = table(tmp_path / "m.csv", [("a", "p.tif", "m.tif")])
    for arguments, text in (
        (["--weights", tmp_path / "none"], "no weight file"),
        (["--device", "cpu,cuda:77"], "cuda:77"),
        (["--device", "cpu,cpu", "--precision", "int8"], "--precision int8 needs a CPU with VNNI"),
        (["--results", tmp_path / "no" / "r.jsonl"], "the results cannot be written"),
    ):
        done = CliRunner().invoke(main, ["batch", str(manifest), "-o", str(tmp_path / "out"), *map(str, arguments)])
        assert done.exit_code == 1, done.output
        assert text in done.stderr.splitlines()[-1]


def test_the_table_overrules_the_command_and_one_read_of_the_weights_serves_all(
    make_pair, tmp_path, small_weights, monkeypatch
):
    loads = []
    load = weights.load
    monkeypatch.setattr(weights, "load", lambda *args: loads.append(args) or load(*args))
    good = make_pair(shape=(64, 64))
    pair = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))
    options, store = sharpen_options(pair=pair, weights=small_weights, device="cpu"), WeightStore()
    plain = attempt(Scene("a", good.pan, (good.ms,), tmp_path / "a.tif"), options, store)
    named = attempt(Scene("b", good.pan, (good.ms,), tmp_path / "b.tif", "qb", ("R", "G", "B", "NIR")), options, store)
    assert (plain.facts["sensor"], plain.facts["bands"]) == ("vhr", ("B", "G", "R", "NIR"))
    assert (named.facts["sensor"], named.facts["bands"]) == ("qb", ("R", "G", "B", "NIR"))
    assert len(loads) == 1
    assert any("registered" in warning for warning in plain.warnings)


@pytest.mark.parametrize("error", [MemoryError(), ValueError("odd\nthing"), OSError(28, "No space left on device")])
def test_any_error_fails_only_the_scene(tmp_path, monkeypatch, error):
    def fail(*_args):
        raise error

    monkeypatch.setattr(outcome, "sharpen", fail)
    failed = attempt(Scene("a", "p", ("m",), tmp_path / "new" / "a.tif"), SharpenOptions(), WeightStore())
    assert failed.status == "failed"
    assert failed.reason and "\n" not in failed.reason
    assert str(error).split("\n")[0] in failed.reason


def test_the_end_of_the_process_goes_through(tmp_path, monkeypatch):
    def end(*_args):
        raise SystemExit(143)

    monkeypatch.setattr(outcome, "sharpen", end)
    with pytest.raises(SystemExit):
        attempt(Scene("a", "p", ("m",), tmp_path / "a.tif"), SharpenOptions(), WeightStore())


def test_results_are_appended_and_long_lists_of_failures_cut(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"name": "before"}\n')
    record = Record(40, path)
    for k in range(30):
        record.add(outcome.Outcome(f"f{k}", "failed", f"reason {k}"))
    assert list(lines(path)) == ["before", *(f"f{k}" for k in range(30))]
    summary = record.summary().splitlines()
    assert summary[0].startswith("40 scenes: 0 sharpened, 0 skipped, 30 failed, 10 not finished")
    assert summary[1] == "  f0: reason 0"
    assert summary[-1] == "  ... and 10 more that failed"
    with pytest.raises(OutputError, match="the results cannot be written"):
        Record(1, tmp_path)
    (tmp_path / "pan.tif").write_bytes(b"II*")
    with pytest.raises(OutputError, match="holds no lines of JSON"):
        Record(1, tmp_path / "pan.tif")
    assert (tmp_path / "pan.tif").read_bytes() == b"II*"


def test_pages_of_all_scenes_with_an_index_and_a_table(run, make_pair, tmp_path):
    good, other = make_pair(name="good", shape=(320, 320)), make_pair(name="other", shape=(320, 320), seed=1)
    rows = [("a", good.pan, good.ms), ("b", good.pan, "none.tif"), ("c", other.pan, other.ms)]
    results = tmp_path / "results.jsonl"
    done = run(table(tmp_path / "m.csv", rows), "-o", tmp_path / "out", "--report", "--results", results)
    assert done.exit_code == 1  # one scene cannot be read
    kept = lines(results)
    assert {name for name, line in kept.items() if "hqnr" in line} == {"a", "c"}
    page = (tmp_path / "out" / "index.html").read_text()
    for name in ("a", "c"):
        assert f'<a href="{name}.html">{name}</a>' in page
        assert f"{kept[name]['hqnr']:.4f}" in page
        assert (tmp_path / "out" / f"{name}.html").read_text().startswith("<!doctype html>")
        row = next(line for line in done.stderr.splitlines() if line.startswith(f"{name} "))
        assert f"{kept[name]['hqnr']:.4f}" in row and "vhr" in row
    assert '<tr class="failed"><td>b</td>' in page and "none.tif" in page
    assert not (tmp_path / "out" / "b.html").exists()
