"""What the command says of itself: help with examples that are valid, and completion by the shell."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from crossdiff_cli.cli.main import main

COMMANDS = sorted(main.commands)


def examples(name):
    """The lines of a command's help that call it."""
    text = CliRunner().invoke(main, [name, "--help"], terminal_width=80).output
    return [line.strip() for line in text.split("\nOptions:")[0].splitlines() if line.startswith("  crossdiff ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_on_a_line_of_its_own(name):
    assert any(line.startswith(f"crossdiff {name}") for line in examples(name))


@pytest.mark.parametrize("line", [line for name in COMMANDS for line in examples(name)])
def test_examples_are_valid(line):
    """The parser takes them; nothing is run."""
    _, name, *arguments = line.split()
    main.commands[name].make_context(name, arguments)


def test_no_control_characters_and_no_backslashes_in_help():
    for arguments in ([], *([name] for name in COMMANDS)):
        text = CliRunner().invoke(main, [*arguments, "--help"]).output
        assert not re.search(r"[\x00-\x09\x0b-\x1f\\]", text), arguments


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell):
    """As docs/gis.md says it; in bash the script is evaluated, too."""
    folder = Path(sys.executable).parent
    source = f"_CROSSDIFF_COMPLETE={shell}_source crossdiff"
    script = f'eval "$({source})"; complete -p crossdiff' if shell == "bash" else source
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "_crossdiff_completion" in done.stdout


def complete(words, incomplete):
    found = BashComplete(main, {}, "crossdiff", "_CROSSDIFF_COMPLETE").get_completions(words, incomplete)
    return [(item.type, item.value) for item in found]


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "sh", [("plain", "sharpen")]),
        (["sharpen"], "--ext", [("plain", "--extent")]),
        (["sharpen", "--sensor"], "WV", [("plain", key) for key in ("wv2", "wv3", "wv4")]),
        (["adapt", "--sensor"], "l", [("plain", key) for key in ("lg", "l7", "l8", "l9")]),
        (["sharpen"], "deliv", [("file", "deliv")]),
        (["sharpen", "pan.tif"], "deliv", [("file", "deliv")]),
        (["assess", "sharp.tif", "--pan"], "deliv", [("file", "deliv")]),
    ],
)
def test_completion(words, incomplete, expected):
    assert complete(words, incomplete) == expected


def test_inputs_are_not_checked_by_the_parser():
    """`/vsi...`, URLs and `FILE,band=N` are no paths of this machine."""
    context = main.commands["sharpen"].make_context(
        "sharpen", ["/vsicurl/https://host.example/pan.tif", "s3://bucket/ms.tif,band=2", "-o", "out.tif"]
    )
    assert isinstance(context, click.Context)
    assert context.params["pan"] == "/vsicurl/https://host.example/pan.tif"
    assert context.params["ms"] == ("s3://bucket/ms.tif,band=2",)


@pytest.mark.skipif(shutil.which("sed") is None, reason="no sed")
def test_manual_pages_keep_the_lines_of_examples(tmp_path):
    script = Path(__file__).parents[1] / "examples" / "install" / "manpages.sh"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run([script, tmp_path / "man1"], check=True, capture_output=True, env=environment)
    pages = {path.name: path.read_text() for path in (tmp_path / "man1").iterdir()}
    assert set(pages) == {"crossdiff.1", *(f"crossdiff-{name}.1" for name in COMMANDS)}
    assert not any("\b" in text for text in pages.values())
    shown = pages["crossdiff-sharpen.1"].split("\n.EX\n")[1].split("\n.EE\n")[0]
    assert shown.splitlines() == examples("sharpen")
