"""The documentation: its commands are commands, its links lead somewhere."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest

from crossdiff_cli.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.md"))]
OPERATORS = {"|", "||", "&&", ";", ">", ">>", "<", "done"}


def blocks(page):
    """The shell blocks of a page: under which name `.ci/run` takes it from the README (else empty), and its text."""
    text = page.read_text(encoding="utf-8")
    found = r"(?:^<!-- ci: (\w+) -->\n)?^ *```sh\n(.*?)^ *```$"
    return [(name, textwrap.dedent(block)) for name, block in re.findall(found, text, flags=re.MULTILINE | re.DOTALL)]


def calls(block):
    """Calls of `crossdiff` in a shell block, as lists of words."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "crossdiff" in words:
            words = words[words.index("crossdiff") + 1 :]
            end = next((i for i, word in enumerate(words) if word.rstrip(";") in OPERATORS or word.endswith(";")), None)
            yield words[:end]


CALLS = [
    (page.relative_to(ROOT), words) for page in PAGES for _, block in blocks(page) for words in calls(block) if words
]


def test_there_are_commands():
    assert len(CALLS) > 40
    assert {words[0] for _, words in CALLS} >= {"sharpen", "info", "assess", "degrade", "adapt", "pretrain", "sensors"}


@pytest.mark.parametrize(("page", "words"), CALLS, ids=[f"{page.name}-{n}" for n, (page, _) in enumerate(CALLS)])
def test_commands_are_understood(page, words):
    """The parser takes every call; nothing is run."""
    name = next(word for word in words if not word.startswith("-"))
    assert name in main.commands, page
    main.commands[name].make_context(name, words[words.index(name) + 1 :])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


def test_every_page_is_reached_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in text, page.name
