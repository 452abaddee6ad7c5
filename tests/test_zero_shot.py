"""`sharpen --adapt-steps`: the head is fitted to the scene at hand, kept only where held-out windows prefer it."""

import rasterio
import torch
from click.testing import CliRunner
from conftest import sharpen_options, small_model

from crossdiff_cli.cli.main import main
from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.model.weights import digest
from crossdiff_cli.options import EstimateOptions, PairOptions
from crossdiff_cli.tasks.sharpen import sharpen
from crossdiff_cli.training import zero_shot
from crossdiff_cli.training.selection import Score, gain
from crossdiff_cli.training.training_scene import scene_of
from crossdiff_cli.training.zero_shot import fine_tune

OPTIONS = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


def test_a_window_of_a_pair_is_the_same_as_in_the_whole_scene(make_pair):
    files = make_pair(shape=(256, 320))
    with open_pair(files.pan, [files.ms], OPTIONS) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
        whole = scene_of(pair, found, Window(0, 0, 256, 320), "whole")
        part = scene_of(pair, found, Window(64, 128, 96, 96), "part")
    assert torch.equal(part.pan, whole.pan[..., 64:160, 128:224])
    first = round((part.sensor_model.grid.offset[0] - whole.sensor_model.grid.offset[0] + 64) / 4)
    assert torch.equal(part.ms[..., 4:10, 4:10], whole.ms[..., first + 4 : first + 10, first + 20 : first + 26])


def test_the_shared_network_is_not_changed_and_the_better_head_is_taken(make_pair, monkeypatch):
    """Scores are forged: the second moment is the best; the head of that moment comes back, on a copy."""
    monkeypatch.setattr(zero_shot, "_WINDOW_MS_PX", 80)
    files = make_pair(shape=(512, 512), seed=2)
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen, hqnr = [], iter([0.5, 0.9] + 5 * [0.7])

    def forged(model, windows):
        seen.append({name: value.clone() for name, value in model.head.state_dict().items()})
        return Score(next(hqnr), 0.1)

    monkeypatch.setattr("crossdiff_cli.training.selection.score", forged)
    monkeypatch.setattr(zero_shot, "_CHECKS", 2)
    with open_pair(files.pan, [files.ms], OPTIONS) as pair:
        tuned = fine_tune(pair, survey(pair.sample_windows(), pair.grid, pair.bands), model, 4)
    assert len(seen) == 7
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, value in tuned.head.state_dict().items():
        assert torch.equal(value, seen[1][name]), name
    assert not torch.equal(seen[1]["out.kernels.out.weight"], seen[0]["out.kernels.out.weight"])


def test_a_fitted_sharpening_is_repeatable_and_says_so(make_pair, small_weights, tmp_path):
    files, written = make_pair(shape=(512, 512), seed=2), []
    for name, said in (("first", ["-q"]), ("second", [])):
        out = tmp_path / f"{name}.tif"
        arguments = ["sharpen", files.pan, files.ms, "-o", str(out), "--sensor", "vhr", "--weights", str(small_weights)]
        made = CliRunner().invoke(main, [*arguments, *said, "--bands", "B,G,R,NIR", "--adapt-steps", "3"])
        assert made.exit_code == 0, made.output
        assert "step/s" not in made.stderr
        assert (made.stderr == "") == bool(said)
        with rasterio.open(out) as file:
            assert file.tags()["CROSSDIFF_ADAPTED"] == "3 steps"
            assert file.tags()["CROSSDIFF_WEIGHTS"] == digest(small_weights)
            written.append(file.read())
    assert (written[0] == written[1]).all()


def test_a_small_scene_is_fitted_with_smaller_patches(make_pair, caplog):
    """A quarter of its one window is held out: patches have to fit into the rest."""
    files, model = make_pair(shape=(512, 512), seed=2), small_model()
    caplog.set_level("INFO")
    with open_pair(files.pan, [files.ms], OPTIONS) as pair:
        tuned = fine_tune(
            pair, survey(pair.sample_windows(), pair.grid, pair.bands, EstimateOptions(align=False)), model, 1
        )
    assert tuned is not model
    assert "fine-tuned on the scene" in caplog.text


def test_a_scene_too_small_to_fit_to_is_sharpened_as_it_is_and_nothing_else_is_said(
    make_pair, small_weights, tmp_path, caplog
):
    files, model, out = make_pair(shape=(128, 128)), small_model(), tmp_path / "out.tif"
    with open_pair(files.pan, [files.ms], OPTIONS) as pair:
        assert (
            fine_tune(
                pair, survey(pair.sample_windows(), pair.grid, pair.bands, EstimateOptions(align=False)), model, 2
            )
            is model
        )
    assert "too small to fit the head to it" in caplog.text
    sharpen(files.pan, [files.ms], out, sharpen_options(pair=OPTIONS, weights=small_weights, fine_tune_steps=2))
    with rasterio.open(out) as file:
        assert "CROSSDIFF_CONSISTENCY" in file.tags()
        assert "CROSSDIFF_ADAPTED" not in file.tags()


def test_the_gain_is_said_in_words():
    assert gain(Score(0.9, 0.1, 2.0), Score(0.92, 0.09, 1.9), 3) == (
        "HQNR 0.9000 -> 0.9200, D_rho 0.1000 -> 0.0900, ERGAS one ratio down 2.000 -> 1.900 on 3 windows not trained on"
    )
    assert gain(Score(0.9, 0.1), Score(0.9, 0.1), 3).endswith("no step was better, the head is as it was")
