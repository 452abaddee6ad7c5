"""Fitting a head to a sensor: held-out windows, selection, what is refused, and that `sharpen --sensor` finds it."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
import torch
from click.testing import CliRunner
from conftest import small_model
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Generator

from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import OutputError, SensorError, TrainingError
from crossdiff_cli.imaging.back_projection import ITERATIONS
from crossdiff_cli.model.weights import digest, load, save
from crossdiff_cli.options import AdaptOptions, LossWeights, SceneSources, TrainingOptions
from crossdiff_cli.sensors.definitions import file_key
from crossdiff_cli.sensors.table import SENSORS
from crossdiff_cli.system.weight_files import adapted_head_path, find_adapted_head
from crossdiff_cli.training.manifest import Entry
from crossdiff_cli.training.patches import PatchSampler, fitting_patch
from crossdiff_cli.training.run_adapt import run_adapt
from crossdiff_cli.training.selection import EDGE, Score, hold_out, score
from crossdiff_cli.training.training_scene import load_scene

BUDGET = TrainingOptions(steps=4, patch=32, batch=1, groups=2, rate=1e-3, checkpoint_every=2)


@pytest.fixture
def files(make_pair):
    return make_pair(shape=(480, 480), name="a_", seed=3)


@pytest.fixture
def scene(files):
    return load_scene(Entry("a", files.pan, files.ms, None, "vhr", ("B", "G", "R", "NIR"), "train"))


def test_held_out_windows_are_not_trained_on(scene):
    rest, windows = hold_out(scene)
    assert 1 <= len(windows) <= 3
    cut = int(rest.pan_mask.any(dim=0).nonzero().max()) + 1
    assert 350 <= cut <= 370
    first_ms = round((cut - scene.sensor_model.grid.offset[1]) / 4)
    assert rest.ms_mask[:, first_ms - 1].any()
    assert not rest.ms_mask[:, first_ms:].any()
    assert torch.equal(rest.pan_mask[:, :cut], scene.pan_mask[:, :cut])
    for window in windows:
        assert window.example.reference is None
        held = scene.pan[0, 0, :, cut:]
        size = window.example.pan.shape[-1]
        found = held.unfold(0, size, 1).unfold(1, size, 1)
        assert (found == window.example.pan[0, 0]).all(dim=(2, 3)).any()


def test_of_a_tall_scene_the_lower_quarter_is_held_out(make_pair):
    """The longer side is cut, so that what is held out is as little of a strip as can be."""
    files = make_pair(shape=(512, 256), name="tall_")
    tall = load_scene(Entry("tall", files.pan, files.ms, None, "vhr", ("B", "G", "R", "NIR"), "train"))
    rest, windows = hold_out(tall)
    assert windows
    assert int(rest.pan_mask.any(dim=1).nonzero().max()) + 1 == pytest.approx(384, abs=10)
    assert rest.pan_mask.any(dim=0).all()


def test_a_scene_without_room_is_left_whole(scene, caplog):
    small = replace(
        scene,
        pan=scene.pan[..., :160, :160],
        pan_mask=scene.pan_mask[:160, :160],
        ms=scene.ms[..., :40, :40],
        ms_mask=scene.ms_mask[:40, :40],
    )
    rest, windows = hold_out(small)
    assert windows == []
    assert rest is small
    assert "too small to hold windows out" in caplog.text


def test_the_score_is_of_the_sharpened_window_in_its_own_unit(scene):
    model = small_model(trained=False)
    _, windows = hold_out(scene)
    found = score(model, windows)
    report = windows[0].report(model)
    e = windows[0].example
    hrms = model.fuse(e.pan, e.ms, e.sensor_model, e.spectrum, ITERATIONS)[0, :, EDGE:-EDGE, EDGE:-EDGE]
    assert 0 < found.hqnr <= 1
    assert 0 < found.d_rho < 1
    pan = e.pan[0, 0, EDGE:-EDGE, EDGE:-EDGE]
    correlation = torch.corrcoef(torch.stack([hrms[1].flatten(), pan.flatten()]))[0, 1]
    assert report.bands[1].d_rho < 1.5 * (1 - float(correlation)) + 0.5
    assert report.valid == 1.0


def test_a_softer_picture_does_not_win():
    start = Score(0.90, 0.100)
    assert Score(0.91, 0.100).beats(start, start)
    assert not Score(0.91, 0.120).beats(start, start)
    assert not Score(0.89, 0.050).beats(start, start)


def test_a_picture_farther_from_the_truth_does_not_win():
    start = Score(0.90, 0.100, 2.00)
    assert Score(0.90, 0.120, 1.99).beats(start, start)
    assert not Score(0.95, 0.100, 2.01).beats(start, start)
    assert not Score(0.89, 0.100, 1.90).beats(start, start)  # too little left of the spectral consistency
    assert Score(0.91, 0.100, None).beats(start, start)


def forge_scores(monkeypatch, forged):
    for room in ("selection", "run_adapt"):
        monkeypatch.setattr(f"crossdiff_cli.training.{room}.score", forged)


def test_the_head_that_held_out_windows_prefer_is_kept(files, tmp_path, small_weights, monkeypatch, caplog):
    """Scores are forged to peak at the mean of the head in the middle and the first one: that is written."""
    heads = []
    hqnr = iter([0.5, 0.8, 0.9, 0.7, 0.7, 0.7, 0.7])

    def forged(model, windows):
        heads.append({n: v.clone() for n, v in model.head.state_dict().items()})
        return Score(next(hqnr), 0.1)

    forge_scores(monkeypatch, forged)
    sources = SceneSources(scenes=(files.pan, files.ms), sensor="vhr")
    target = tmp_path / "h.safetensors"
    result = run_adapt(sources, target, AdaptOptions(BUDGET, small_weights))
    assert (result.before.hqnr, result.after.hqnr) == (0.5, 0.9)
    assert "chosen by HQNR alone" in caplog.text
    written = load(target)[0].head.state_dict()
    name = "out.kernels.out.weight"
    assert torch.allclose(written[name], heads[2][name], atol=1e-2)
    assert torch.allclose(heads[2][name], (heads[0][name] + heads[1][name]) / 2, atol=1e-6)
    assert torch.allclose(heads[3][name], (3 * heads[0][name] + heads[1][name]) / 4, atol=1e-6)
    assert not torch.equal(heads[1][name], heads[0][name])
    assert not torch.equal(heads[4][name], heads[1][name])
    assert sorted(p.name for p in tmp_path.glob("h*")) == ["h.safetensors"]


def test_a_run_that_was_stopped_remembers_its_best_head(files, tmp_path, small_weights, monkeypatch):
    """The best is that of the first checkpoint; the run ends at the second, and goes on from there."""
    monkeypatch.setattr("crossdiff_cli.training.selection.INTERPOLATION_FACTORS", (1.0,))
    heads = []

    def run(*scores):
        hqnr = iter(scores)

        def forged(model, windows):
            heads.append({n: v.clone() for n, v in model.head.state_dict().items()})
            value = next(hqnr)
            return Score(value, 0.1, 3 - value)

        forge_scores(monkeypatch, forged)
        options = AdaptOptions(replace(BUDGET, steps=6), small_weights)
        return run_adapt(SceneSources(scenes=(files.pan, files.ms), sensor="vhr"), tmp_path / "h.safetensors", options)

    with pytest.raises(StopIteration):
        run(0.5, 0.9)
    found = run(0.5, 0.7)
    assert len(heads) == 5  # start, first, second that was not told; start, third
    assert (found.after.hqnr, found.after.ergas) == (0.9, 2.1)
    written, name = load(found.output)[0].head.state_dict(), "out.kernels.out.weight"
    assert torch.allclose(written[name], heads[1][name], atol=1e-2, rtol=1e-2)
    assert (heads[4][name] - heads[1][name]).abs().max() > 0


def test_a_damaged_memory_of_the_best_head_is_not_believed(files, tmp_path, small_weights, monkeypatch, caplog):
    """The checkpoint before it is gone on from."""

    def full(*_arguments):
        raise OutputError("full")

    sources, target = SceneSources((files.pan, files.ms), sensor="vhr"), tmp_path / "h.safetensors"
    options = AdaptOptions(BUDGET, weights=small_weights)
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="full"):
        patch.setattr("crossdiff_cli.training.run_adapt.save", full)
        run_adapt(sources, target, options)
    newest = tmp_path / "h.checkpoint"
    with safe_open(newest, "pt") as file:
        state, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    name = "selector.head.out.kernels.out.weight"
    save_file({**state, name: torch.full_like(state[name], float("nan"))}, newest, metadata)
    run_adapt(sources, target, options)
    assert "h.checkpoint is damaged" in caplog.text
    assert all(bool(value.isfinite().all()) for value in load(target)[0].head.state_dict().values())


def test_a_bad_target_is_known_before_scenes_are_read(tmp_path, monkeypatch):
    (tmp_path / "picture.tif").write_bytes(b"")
    read = []
    monkeypatch.setattr("crossdiff_cli.training.run_adapt.training_scenes", lambda *_: read.append(1))
    with pytest.raises(OutputError, match=r"picture\.tif"):
        run_adapt(SceneSources(scenes=("nothing",)), tmp_path / "picture.tif", AdaptOptions(BUDGET))
    assert not read


def numbers(path):
    """All weights of a head, in one row."""
    return torch.cat([value.flatten() for value in load(path)[0].head.state_dict().values()])


def test_no_gain_keeps_the_head(files, tmp_path, small_weights, monkeypatch):
    hqnr = iter([0.5, 0.4, 0.4, 0.4, 0.3, 0.3, 0.3])
    forge_scores(monkeypatch, lambda *_: Score(next(hqnr), 0.1))
    result = run_adapt(
        SceneSources(scenes=(files.pan, files.ms), sensor="vhr"),
        tmp_path / "h.safetensors",
        AdaptOptions(BUDGET, small_weights),
    )
    assert result.after == result.before
    before, after = (load(path)[0].head.state_dict() for path in (small_weights, result.output))
    for name, value in before.items():
        assert torch.allclose(after[name], value, atol=1e-2), name


def test_a_better_head_is_not_overwritten(files, tmp_path, small_weights, monkeypatch):
    target = tmp_path / "h.safetensors"
    save(small_model(seed=5), target, {})
    kept = digest(target)
    hqnr = iter([0.5] + 6 * [0.6] + [0.7])
    forge_scores(monkeypatch, lambda *_: Score(next(hqnr), 0.1))
    sources = SceneSources(scenes=(files.pan, files.ms), sensor="vhr")
    with pytest.raises(
        OutputError,
        match=r"holds a better head .*found HQNR 0\.7000, .*expected worse than HQNR 0\.6000, .*; --force",
    ):
        run_adapt(sources, target, AdaptOptions(BUDGET, small_weights))
    assert digest(target) == kept
    hqnr = iter([0.5] + 6 * [0.6])
    run_adapt(sources, target, AdaptOptions(BUDGET, small_weights, force=True))
    assert digest(target) != kept


def test_the_head_is_fitted_on_the_device_that_is_named(files, tmp_path, small_weights, monkeypatch):
    found = []

    def look(model, *_arguments, **_options):
        found.append({p.device.type for p in model.parameters()})
        raise InterruptedError

    options = AdaptOptions(BUDGET, device="meta", weights=small_weights, restart=True, select=False)
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr("crossdiff_cli.training.run_adapt.choose_device", torch.device)
        patch.setattr("crossdiff_cli.training.run_adapt.adapt", look)
        run_adapt(SceneSources((files.pan, files.ms), sensor="vhr"), tmp_path / "h.safetensors", options)
    assert found == [{"meta"}]
    missing = ["adapt", files.pan, files.ms, "--sensor", "vhr", "-o", str(tmp_path / "h"), "--device", "cuda:77"]
    done = CliRunner().invoke(main, missing)
    assert done.exit_code == 1
    assert "cuda:77" in done.stderr.splitlines()[-1]


def test_a_checkpoint_of_other_losses_or_another_beginning_is_not_gone_on_from(
    files, tmp_path, small_weights, monkeypatch
):
    def full(*_arguments):
        raise OutputError("full")

    sources, target = SceneSources((files.pan, files.ms), sensor="vhr"), tmp_path / "h.safetensors"
    options = AdaptOptions(BUDGET, weights=small_weights, select=False)
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="full"):
        patch.setattr("crossdiff_cli.training.run_adapt.save", full)
        run_adapt(sources, target, options)
    for change, text in (
        ({"losses": LossWeights(qnr=1.0)}, "losses"),
        ({"stage": False}, "stage differs .*expected none"),
        ({"restart": True}, "start differs .*expected untrained"),
        ({"budget": replace(BUDGET, rate=0.5)}, "rate differs .found 0.001, expected 0.5"),
    ):
        with pytest.raises(TrainingError, match=text):
            run_adapt(sources, target, replace(options, **change))
    run_adapt(sources, target, options)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("h")] == ["h.safetensors"]


def test_a_head_for_one_sensor_gets_a_stage_for_its_bands(files, tmp_path, small_weights):
    sources = SceneSources(scenes=(files.pan, files.ms), sensor="vhr")
    options = AdaptOptions(BUDGET, small_weights, select=False)
    staged = load(run_adapt(sources, tmp_path / "s.safetensors", options).output)[0]
    wanted = sorted(band.center_nm for band in SENSORS["vhr"].layout(4))
    assert list(staged.architecture.stage_nm) == wanted
    assert staged.head.stage.out.weight.abs().max() > 0  # it learned
    plain = load(run_adapt(sources, tmp_path / "p.safetensors", replace(options, stage=False)).output)[0]
    assert plain.architecture.stage_nm == () and plain.head.stage is None
    options = replace(options, weights=tmp_path / "s.safetensors")
    again = load(run_adapt(sources, tmp_path / "t.safetensors", options).output)[0]
    assert again.architecture == staged.architecture  # it is trained on, not replaced
    assert torch.allclose(again.head.stage.stem.weight, staged.head.stage.stem.weight, atol=0.05)


def test_only_the_head_learns_and_losses_can_be_left_out(files, tmp_path, small_weights):
    sources = SceneSources(scenes=(files.pan, files.ms), sensor="vhr")
    options = AdaptOptions(BUDGET, small_weights, select=False, losses=LossWeights(supervised=0.0))
    result = run_adapt(sources, tmp_path / "h.safetensors", options)
    before, after = (load(path)[0].state_dict() for path in (small_weights, result.output))
    changed = {
        name.split(".")[0] for name in before if not torch.allclose(before[name], after[name], atol=1e-2, rtol=1e-2)
    }
    assert changed <= {"head"}


def test_adapt_then_sharpen_by_the_name_of_the_sensor(files, tmp_path, small_weights, monkeypatch):
    monkeypatch.setenv("CROSSDIFF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    sizes = ["--steps", "2", "--patch", "32", "--batch", "1", "--groups", "2", "--weights", str(small_weights)]
    done = CliRunner().invoke(main, ["adapt", "--sensor", "WV4", *sizes])
    assert done.exit_code == 0, done.output
    assert "fitted to a" in done.output
    assert "windows not trained on" in done.output
    head = tmp_path / "home" / "heads" / "wv4.safetensors"
    assert done.output.strip().endswith(str(head))
    for name, expected in (("own", head), ("given", small_weights)):
        given = [] if expected == head else ["--weights", str(small_weights)]
        out = tmp_path / f"{name}.tif"
        arguments = ["sharpen", files.pan, files.ms, "-o", str(out), "--sensor", "worldview4", "--bands", "B,G,R,NIR"]
        made = CliRunner().invoke(main, [*arguments, *given])
        assert made.exit_code == 0, made.output
        with rasterio.open(out) as file:
            assert file.tags()["CROSSDIFF_WEIGHTS"] == digest(expected)


def test_heads_have_safe_names(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSDIFF_HOME", str(tmp_path))
    assert file_key("WorldView-4") == file_key("wv4")
    assert adapted_head_path("wv4") == tmp_path / "heads" / "wv4.safetensors"
    assert find_adapted_head("wv4") is None
    with pytest.raises(SensorError, match="letters, digits"):
        file_key("../x")
    (tmp_path / "heads").mkdir()
    shutil.copy(Path(__file__), tmp_path / "heads" / "wv4.safetensors")
    assert find_adapted_head("wv4") == tmp_path / "heads" / "wv4.safetensors"


def test_a_name_or_a_file_is_needed():
    done = CliRunner().invoke(main, ["adapt", "x"])
    assert done.exit_code == 2
    assert "--sensor" in done.output


def test_a_large_scene_is_judged_against_the_truth_one_ratio_down_too(make_pair):
    files = make_pair(shape=(512, 2048), name="b_", seed=4)
    wide = load_scene(Entry("b", files.pan, files.ms, None, "vhr", ("B", "G", "R", "NIR"), "train"))
    _, windows = hold_out(wide)
    truth = [window for window in windows if window.example.reference is not None]
    assert len(truth) == 1
    assert len(windows) >= 2
    report = truth[0].report(small_model(trained=False))
    found = score(small_model(trained=False), windows)
    assert found.ergas == pytest.approx(report.ergas)
    full = [window.report(small_model(trained=False)).hqnr for window in windows if window is not truth[0]]
    assert found.hqnr == pytest.approx(sum(full) / len(full))


SIZES = ["--steps", "2", "--patch", "32", "--batch", "1", "--groups", "2"]


def test_a_made_up_sensor_from_definition_to_result(files, tmp_path, small_weights, monkeypatch):
    """Defined by a TOML file, or by options; `sharpen --sensor` finds definition and head by the name."""
    monkeypatch.setenv("CROSSDIFF_HOME", str(tmp_path / "home"))
    bands = "".join(f"[[bands]]\nname = '{name}'\n" for name in ("NIR", "R", "G", "B"))
    (tmp_path / "mysat.toml").write_text(f"pan_nm = [470, 790]\n{bands}")
    options = ["--bands", "NIR,R,G,B", "--wavelengths", "840/110,655/60,555/70,485/60", "--mtf", "0.28"]
    for name, told in ((str(tmp_path / "mysat.toml"), []), ("yoursat", [*options, "--pan-range", "470-790"])):
        arguments = ["adapt", files.pan, files.ms, "--sensor", name, *told, *SIZES, "--weights", str(small_weights)]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        key = Path(name).stem
        out = tmp_path / f"{key}.tif"
        made = CliRunner().invoke(main, ["sharpen", files.pan, files.ms, "-o", str(out), "--sensor", key])
        assert made.exit_code == 0, made.output
        with rasterio.open(out) as file:
            assert file.tags()["CROSSDIFF_WEIGHTS"] == digest(tmp_path / "home" / "heads" / f"{key}.safetensors")
            assert file.tags()["CROSSDIFF_SENSOR"] == key
            assert file.descriptions == ("NIR", "R", "G", "B")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--sensor", "wv4", "--mtf", "0.3"], "--mtf defines a new sensor"),
        (["--sensor", "foo", "--wavelengths", "480/60"], "--wavelengths defines a new sensor"),
        (["--sensor", "foo", "--bands", "B", "--wavelengths", "480"], "no list of pairs like 480/560"),
        (["--sensor", "foo", "--bands", "B", "--mtf", "x"], "no list of numbers like 0.3,0.28"),
        (["--sensor", "foo", "--bands", "B", "--pan-range", "450-800,1-2"], "--pan-range takes one range"),
        (["--sensor", "x.toml", "--pan-mtf", "0.2"], "leave --pan-mtf out"),
        (["--sensor", "wv4", "--loss", "mse=1"], "write a term (spectral, structural, supervised, qnr)"),
        (["--sensor", "wv4", "--loss", "qnr=-1"], "and its weight, like qnr=1"),
    ],
)
def test_contradictory_options_are_usage_errors(tmp_path, monkeypatch, told, words):
    monkeypatch.setenv("CROSSDIFF_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text("[[bands]]\nname = 'B'\n")
    done = CliRunner().invoke(main, ["adapt", "p.tif", "m.tif", *told])
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.split())


def test_the_loss_of_the_paper_can_be_chosen(files, tmp_path, small_weights, caplog):
    arguments = ["adapt", files.pan, files.ms, "-o", str(tmp_path / "h.safetensors"), *SIZES]
    only = ["--loss", "spectral=0", "--loss", "structural=0", "--loss", "supervised=0"]
    done = CliRunner().invoke(main, [*arguments, *only, "--loss", "qnr=1", "--weights", str(small_weights)])
    assert done.exit_code == 0, done.output
    assert "step 2: qnr 0." in caplog.text + done.output
    done = CliRunner().invoke(main, [*arguments, *only, "--weights", str(small_weights)])
    assert done.exit_code == 1
    assert "every loss term has weight 0" in done.output


def test_patches_that_fit_do_so_in_every_draw(scene):
    """Whatever is masked: what fits by chance alone would end a long run in its middle."""
    sides = set()
    for rows, cols in ((40, 40), (52, 52), (56, 60), (68, 72), (72, 72), (68, 104), (90, 90), (120, 120)):
        ms_mask, pan_mask = torch.zeros_like(scene.ms_mask), torch.zeros_like(scene.pan_mask)
        ms_mask[:rows, :cols], pan_mask[: 4 * rows, : 4 * cols] = True, True
        masked = replace(scene, ms_mask=ms_mask, pan_mask=pan_mask)
        side = fitting_patch([masked], 96, reduced=True)
        sides.add(side)
        for seed in range(10 if side else 0):
            drawn = PatchSampler([masked], side, 4).draw(Generator().manual_seed(seed), reduced=True)
            assert drawn.pan.shape == (4, 1, side, side)
    assert sides >= {0, 32, 64}


def test_small_scenes_get_smaller_patches_and_the_smallest_no_supervised_term(
    make_pair, tmp_path, small_weights, caplog
):
    """What is not held out of 640 pixels leaves, one ratio down, room for 64; 200 pixels leave none."""
    caplog.set_level("INFO")
    for side, wanted in ((640, "patches of 64 pixels instead of 96"), (200, "fitted without the supervised term")):
        files = make_pair(shape=(side, side), name=f"s{side}_")
        sources = SceneSources((files.pan, files.ms), sensor="vhr", bands=("B", "G", "R", "NIR"))
        target = tmp_path / f"{side}.safetensors"
        run_adapt(sources, target, AdaptOptions(TrainingOptions(steps=1, batch=1, groups=1), weights=small_weights))
        assert wanted in caplog.text
        load(target)


def test_heads_are_interpolated(tmp_path, small_weights):
    model, facts = load(small_weights)
    for parameter in model.head.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=Generator().manual_seed(0)))
    fitted, mixed = tmp_path / "fitted.safetensors", tmp_path / "mixed.safetensors"
    save(model, fitted, facts)
    script = Path(__file__).parents[1] / "benchmarks" / "interpolate_heads.py"
    subprocess.run([sys.executable, script, small_weights, fitted, "0.25", mixed], check=True)
    first, last, found = (load(path)[0].head.state_dict() for path in (small_weights, fitted, mixed))
    for name, value in found.items():
        assert torch.allclose(value, 0.25 * last[name] + 0.75 * first[name], atol=0.02), name
    assert max(float((last[name] - first[name]).abs().max()) for name in found) > 1
