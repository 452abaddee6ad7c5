"""The options of the command line are those of the options classes, with the same defaults."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields

import click
import pytest

from crossdiff_cli.cli.batch import batch
from crossdiff_cli.cli.options import default
from crossdiff_cli.cli.sharpen import sharpen
from crossdiff_cli.cli.train import adapt, pretrain
from crossdiff_cli.errors import OptionError
from crossdiff_cli.imaging.back_projection import ITERATIONS
from crossdiff_cli.options import (
    AdaptOptions,
    AdaptTrainingOptions,
    BatchOptions,
    DefinitionOptions,
    EstimateOptions,
    NetworkOptions,
    OutputOptions,
    PairOptions,
    PretrainOptions,
    RuntimeOptions,
    SceneSources,
    SharpenOptions,
    TrainingOptions,
)

GROUPS = (PairOptions, EstimateOptions, NetworkOptions, OutputOptions, RuntimeOptions)
NOT_OF_A_USER = {"runtime_worker", "runtime_progress"}


def settings(*classes: type) -> Iterator[tuple[str, "Field"]]:
    """The name of each field on the command line and the field."""
    for cls in classes:
        for field in fields(cls):
            yield f"{cls.__name__.removesuffix('Options').lower()}_{field.name}", field


def of(command: click.Command) -> dict[str, click.Parameter]:
    """The parameters of a command that set a field."""
    return {parameter.name: parameter for parameter in command.params if "_" in parameter.name}


@pytest.mark.parametrize(("command", "classes"), [(sharpen, GROUPS), (batch, (BatchOptions,))])
def test_each_field_has_one_option_with_its_default(command, classes):
    found = of(command)
    assert max(Counter(parameter.name for parameter in command.params).values()) == 1
    for name, field in settings(*classes):
        if name in NOT_OF_A_USER:
            assert name not in found
            continue
        got = found[name].get_default(click.Context(command))
        if field.default is not MISSING:
            assert got == ("auto" if name == "runtime_tile" else field.default), name


def test_a_command_line_without_options_gives_the_defaults(monkeypatch):
    seen = []

    def stop(*arguments):
        seen.append(arguments[-1])
        raise OptionError("seen")

    monkeypatch.setattr("crossdiff_cli.tasks.sharpen.sharpen", stop)
    with pytest.raises(click.ClickException):
        sharpen.main(["pan.tif", "ms.tif", "-o", "out.tif", "--quiet"], standalone_mode=False)
    assert seen == [SharpenOptions()]


def test_no_consistency_is_no_iteration():
    option = of(sharpen)["network_iterations"]
    assert option.get_default(click.Context(sharpen)) == ITERATIONS == NetworkOptions().iterations
    context = sharpen.make_context("sharpen", ["p.tif", "m.tif", "-o", "o.tif", "--no-consistency"])
    assert context.params["network_iterations"] == 0
    assert sharpen.make_context("sharpen", ["p.tif", "m.tif", "-o", "o.tif"]).params["network_iterations"] == ITERATIONS


def test_the_default_of_a_field_made_anew_is_left_to_its_class():
    assert default(OutputOptions, "creation") is None
    assert OutputOptions().creation == {}


def test_bounds_crs_needs_bounds():
    with pytest.raises(OptionError, match="--bounds-crs needs --bounds"):
        OutputOptions(bounds_crs="EPSG:4326")


@pytest.mark.parametrize(
    ("command", "run", "arguments", "expected"),
    [
        (
            pretrain,
            "run_pretrain.run_pretrain",
            ["a.json", "-o", "out"],
            (SceneSources(("a.json",)), PretrainOptions()),
        ),
        (adapt, "run_adapt.run_adapt", ["a.json", "-o", "h.safetensors"], (SceneSources(("a.json",)), AdaptOptions())),
    ],
)
def test_a_training_command_without_options_gives_the_defaults(monkeypatch, command, run, arguments, expected):
    seen = []

    def stop(sources, _target, options):
        seen.append((sources, options))
        raise OptionError("seen")

    monkeypatch.setattr(f"crossdiff_cli.training.{run}", stop)
    with pytest.raises(click.ClickException):
        command.main([*arguments, "--quiet"], standalone_mode=False)
    assert seen == [expected]


@pytest.mark.parametrize(
    ("command", "classes", "without"),
    [
        (
            pretrain,
            (TrainingOptions, SceneSources, PretrainOptions),
            {"scenesources_scenes", "scenesources_sensor", "scenesources_bands"},
        ),
        (
            adapt,
            (AdaptTrainingOptions, SceneSources, AdaptOptions, DefinitionOptions),
            {"scenesources_scenes", "scenesources_held_out"},
        ),
    ],
)
def test_each_field_of_training_has_one_option(command, classes, without):
    names = {name for name, _ in settings(*classes)} - without - {"pretrain_budget", "adapt_budget"}
    assert set(of(command)) == names
