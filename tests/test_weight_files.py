"""The weights that come with the program are found by name, and what they have seen is what they say."""

import re
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from crossdiff_cli.cli.main import main
from crossdiff_cli.cli.types import Weights
from crossdiff_cli.errors import WeightsError
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.weights import digest, load
from crossdiff_cli.system.weight_files import BUNDLED, DEFAULT, bundled_weights

OPEN_SCENES = re.compile(r"(landsat[78]_|worldview2_spacenet6_|cbers4a_)")


@pytest.mark.parametrize("name", BUNDLED)
def test_every_file_loads_and_names_its_training(name):
    path = bundled_weights(name)
    model, provenance = load(path)
    assert isinstance(model, CrossDiff)
    assert model.p2m is not None
    assert float(model.head.out.kernels.out.weight.abs().max()) > 0
    assert provenance["pretrain"]["steps"] > 0
    assert provenance["adapt"]["scenes"]
    assert path.stat().st_size < 12.5e6, "two files, less than 25 MB in all"


def test_the_model_card_names_each_file_and_its_digest():
    card = Path(__file__).parent.parent.joinpath("weights", "README.md").read_text()
    for name, file in BUNDLED.items():
        row = next(line for line in card.splitlines() if line.startswith(f"| `{file}`"))
        assert f"`{name}`" in row
        assert digest(bundled_weights(name)) in row
        assert ("the default" in row) == (name == DEFAULT)


def test_the_default_is_told_the_image_quality():
    model, provenance = load(bundled_weights())
    assert bundled_weights() == bundled_weights("all")
    assert model.architecture.image_quality
    assert len(_scenes(provenance["pretrain"])) == 46


def test_open_has_seen_open_scenes_alone():
    _, provenance = load(bundled_weights("open"))
    seen = {*_scenes(provenance["pretrain"]), *_scenes(provenance["adapt"])}
    assert len(seen) >= 25
    assert not [name for name in seen if not OPEN_SCENES.match(name)]
    assert provenance["adapt"]["reimaged_by"] == provenance["adapt"]["encoders"], "sharpened by weights of other scenes"
    assert "reimaged_by" not in provenance["pretrain"]
    assert "reimaged_by" not in provenance["pretrain"]["before"]


def _scenes(facts: dict[str, object]) -> set[str]:
    """Of a training and of what it went on from."""
    before = facts.get("before")
    return {*facts["scenes"], *(_scenes(before) if before else ())}  # type: ignore[misc]


def test_a_name_is_a_file_and_a_path_stays_one(tmp_path, monkeypatch):
    convert = Weights().convert
    for name in BUNDLED:
        assert convert(name, None, None) == convert(name.upper(), None, None) == bundled_weights(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open").write_bytes(b"mine")
    assert convert("./open", None, None).read_bytes() == b"mine"


def test_a_file_that_is_not_there_tells_the_names(tmp_path):
    with pytest.raises(WeightsError, match=r"no weight file .*opne; those .* are called open and all"):
        load(tmp_path / "opne")


def test_an_installation_without_a_file_says_so(monkeypatch):
    monkeypatch.setitem(BUNDLED, DEFAULT, "gone.safetensors")
    with pytest.raises(WeightsError, match="this installation has no gone.safetensors"):
        bundled_weights()
    with pytest.raises(click.BadParameter, match="this installation has no gone.safetensors"):
        Weights().convert(DEFAULT, None, None)


def test_a_shell_completes_names_and_files():
    shell = ShellComplete(main, {}, "crossdiff", "_CROSSDIFF_COMPLETE")
    found = shell.get_completions(["sharpen", "--weights"], "o")
    assert [(item.value, item.type) for item in found] == [("open", "plain"), ("o", "file")]
