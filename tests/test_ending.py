"""How a process ends that is told to, in processes of their own."""

import json
import signal
import subprocess
import sys
import time

import pytest
from safetensors import safe_open

HEAD = """
import os, signal, sys, time
from pathlib import Path
from crossdiff_cli.system.signals import orderly_end, undone_by
from crossdiff_cli.system.atomic import replacing
def say(text): print(text, flush=True)
def told(number): os.kill(os.getpid(), number); time.sleep(0.2)
"""
ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def start():
    """Start Python on the lines of a script; ignored signals, as background jobs and nohup have, are not passed on."""
    begun = []

    def begin(*lines):
        previous = {number: signal.signal(number, lambda *_: None) for number in ALL}
        begun.append(subprocess.Popen([sys.executable, "-c", HEAD + "\n".join(lines)], stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True))  # fmt: skip
        for number, handler in previous.items():
            signal.signal(number, handler)
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def result(process):
    heard, _ = process.communicate(timeout=60)
    return process.returncode, heard.split()


@pytest.mark.parametrize("number", ALL)
def test_what_was_begun_is_undone_the_newest_first_and_nothing_else_runs(start, number):
    process = start(
        "with orderly_end(), undone_by(lambda: say('first')):",
        "    with undone_by(lambda: say('over')): pass",
        "    with undone_by(lambda: say('second')), undone_by(lambda: 1 / 0):",
        "        try:",
        f"            told({int(number)})",
        "        except BaseException: say('caught')",
        "        finally: say('unwound')",
    )
    assert result(process) == (128 + number, ["second", "first"])


@pytest.mark.parametrize("number", ALL)
def test_it_ends_where_an_exception_would_be_swallowed(start, number):
    process = start(
        "class Swallows:",
        f"    def __del__(self): told({int(number)})",
        "with orderly_end():",
        "    swallows = Swallows()",
        "    del swallows",
        "say('went on')",
    )
    assert result(process) == (128 + number, [])


def test_a_second_ctrl_c_does_not_wait_and_a_second_sigterm_changes_nothing(start):
    def begun():
        process = start(
            "def slow(): say('slow'); time.sleep(3); say('undone')",
            "with orderly_end(), undone_by(lambda: say('last')), undone_by(slow):",
            "    say('ready'); time.sleep(60)",
        )
        assert process.stdout.readline() == "ready\n"
        return process

    impatient, patient = begun(), begun()
    for process, number in ((impatient, signal.SIGINT), (patient, signal.SIGTERM)):
        process.send_signal(number)
        assert process.stdout.readline() == "slow\n"
        process.send_signal(number)
    assert result(impatient) == (130, ["last"])
    assert result(patient) == (143, ["undone", "last"])


def test_a_signal_that_is_ignored_stays_so_and_handlers_come_back(start):
    process = start(
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "before = signal.getsignal(signal.SIGTERM)",
        "with orderly_end(): told(signal.SIGINT); say('ignored')",
        "say(signal.getsignal(signal.SIGTERM) is before)",
    )
    assert result(process) == (0, ["ignored", "True"])


def test_in_another_thread_nothing_changes(start):
    process = start(
        "import threading",
        "def work():",
        "    with orderly_end(), undone_by(lambda: say('undone')): say('worked')",
        "thread = threading.Thread(target=work); thread.start(); thread.join()",
    )
    assert result(process) == (0, ["worked"])


@pytest.mark.parametrize("number", ALL)
def test_a_file_that_is_being_replaced_stays_the_old_one(start, tmp_path, number):
    target = tmp_path / "kept.json"
    target.write_text("old")
    process = start(
        f"with orderly_end(), replacing(Path({str(target)!r})) as half:",
        f"    half.write_text('new'); told({int(number)})",
    )
    assert result(process) == (128 + number, [])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("kept.json", "old")]


@pytest.mark.parametrize("number", ALL)
def test_degrade_leaves_the_folder_as_it_was(start, make_pair, tmp_path, number):
    """Also the folder itself, where it was made for the result."""
    files, folder = make_pair(shape=(1024, 1024)), tmp_path / "wald"
    process = start(
        "from crossdiff_cli.cli.main import main; from crossdiff_cli.io.writer import Writer",
        "write = Writer.write",
        "def stop(*arguments):",
        "    write(*arguments)",
        f"    say(len(list(Path({str(folder)!r}).rglob('*.tif')))); told({int(number)})",
        "Writer.write = stop",
        f"main(['degrade', {files.pan!r}, {files.ms!r}, '-o', {str(folder)!r}, '-q'])",
    )
    code, heard = result(process)
    assert code == 128 + number
    assert int(heard[0]) >= 1
    assert heard[1:] == ["Aborted!"]
    assert not folder.exists()


def test_training_ends_at_once_and_goes_on_from_its_checkpoint(start, make_pair, tmp_path, small_weights):
    files, out = make_pair(shape=(512, 512)), tmp_path / "run"
    arguments = ["pretrain", files.pan, files.ms, "-o", str(out), "--patch", "32", "--batch", "1", "--groups", "1",
                 "--weights", str(small_weights), "--checkpoint-every", "1"]  # fmt: skip
    endless = start("from crossdiff_cli.cli.main import main", f"main({[*arguments, '--steps', '100000']!r})")
    deadline = time.monotonic() + 60
    while not list(out.glob("*.checkpoint.previous")) and time.monotonic() < deadline and endless.poll() is None:
        time.sleep(0.01)
    endless.send_signal(signal.SIGTERM)
    code, heard = result(endless)
    assert code == 143, heard
    assert heard[-1] == "Aborted!"
    assert sorted(path.name for path in out.iterdir())[:2] == ["pretrain.checkpoint", "pretrain.checkpoint.previous"]
    with safe_open(out / "pretrain.checkpoint", "pt") as file:
        assert int(json.loads(file.metadata()["run"])["step"]) >= 2


def test_a_signal_does_not_wait_for_the_copy_to_a_cog(start, make_pair, tmp_path, small_weights):
    """The copy is replaced by minutes of work in C, which no signal interrupts."""
    files, target = make_pair(), tmp_path / "out.tif"
    process = start(
        "import hashlib",
        "from crossdiff_cli.cli.main import main",
        "from crossdiff_cli.io import writer",
        "def copy(*_, **__):",
        "    say('copying')",
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)",
        "writer.copy_raster = copy",
        f"main({['sharpen', files.pan, files.ms, '-o', str(target), '--of', 'COG', '--sensor', 'vhr', '-q']!r}"
        f" + ['--weights', {str(small_weights)!r}])",
    )
    for line in process.stdout:
        if line.strip() == "copying":
            break
    assert len(list(tmp_path.glob(".out.tif*"))) > 0
    process.send_signal(signal.SIGTERM)
    assert result(process) == (128 + signal.SIGTERM, ["Aborted!"])
    assert not list(tmp_path.glob("*out.tif*"))
