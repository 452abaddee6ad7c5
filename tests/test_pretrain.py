"""The pretrain command from scenes on disk to weights and a journal, and several processes together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import SMALL, small_model
from safetensors.torch import load_file

from crossdiff_cli.cli.main import main
from crossdiff_cli.model.diffusion import Prediction
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import load
from crossdiff_cli.training.pretrain import Task, predict

SIZES = ["--patch", "32", "--batch", "1", "--groups", "2", "--steps", "2"]


@pytest.fixture
def manifest(make_pair, tmp_path):
    items = []
    for name, split in (("a", "train"), ("b", "validation")):
        files = make_pair(shape=(480, 480), name=name, seed=ord(name))
        items.append({"name": name, "files": {"pan": files.pan, "ms": files.ms}, "sensor": "vhr",
                      "bands": ["B", "G", "R", "NIR"], "split": split})  # fmt: skip
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(items))
    return path


def test_pretrain_writes_weights_and_a_journal(manifest, tmp_path):
    out = tmp_path / "run"
    arguments = ["pretrain", str(manifest), "-o", str(out), *SIZES, "--prediction-type", "eps"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    model, provenance = load(out / "encoders.safetensors")
    assert model.architecture.prediction_type == provenance["pretrain"]["prediction_type"] == "eps"
    lines = [json.loads(line) for line in (out / "pretrain.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2]
    assert {name: len(row) for name, row in lines[0]["validation"].items()} == {"m2p": 5, "p2m": 5}
    assert lines[0]["patches_per_s"] > 0
    assert 0 <= lines[0]["waiting"] < 1
    again = CliRunner().invoke(main, [*arguments, "--steps", "3"])
    assert again.exit_code == 1
    assert "steps differs (found 2, expected 3)" in again.output


def test_an_untrained_m2p_restores_the_prior(manifest, tmp_path):
    """Its correction is zero, so that the error is that of the prior."""
    out = tmp_path / "run"
    result = CliRunner().invoke(main, ["pretrain", str(manifest), "-o", str(out), *SIZES, "--rate", "1e-30"])
    assert result.exit_code == 0, result.output
    journal = json.loads((out / "pretrain.jsonl").read_text())
    assert journal["validation"]["m2p"][-1] > 0.9


def test_an_untrained_p2m_predicts_mtf_glp_at_the_end_of_the_chain():
    """With x0 it adds the PAN detail that x_t lacks, whose factor is the weight of the prior in x_t; with eps none."""
    x_t, detail = (torch.randn(3, 4, 32, 32, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    spectrum = Spectrum(torch.linspace(450, 850, 4), torch.full((4,), 60.0), torch.tensor([450.0, 800.0]), 4.0)
    task = Task(small_model(trained=False).p2m, 1000, x_t, x_t, detail[:, :1], detail, spectrum)
    for prediction_type, factors in (("x0", (0.0, 0.5, 1.0)), ("eps", (0.0, 0.0, 0.0))):
        prediction = Prediction(prediction_type, SMALL.schedule())
        found = predict(task, prediction, x_t, torch.tensor([1, 500, 1000]), torch.float32)
        assert torch.allclose(found, torch.tensor(factors)[:, None, None, None] * detail, atol=1e-4)


def test_a_run_that_asks_otherwise_does_not_go_on_from_the_checkpoint(manifest, tmp_path):
    arguments = ["pretrain", str(manifest), "-o", str(tmp_path / "run"), *SIZES, "--branch", "m2p"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    for asked, words in (
        (["--condition-dropout", "0"], "condition dropout differs (found 0.1, expected 0.0)"),
        (["--branch", "both"], "branch differs (found m2p, expected both)"),
    ):
        other = CliRunner().invoke(main, [*arguments, *asked])
        assert other.exit_code == 1, other.output
        assert words in other.output


def test_bad_choices_are_one_line(manifest, tmp_path):
    for arguments, code, words in (
        (["--patch", "33"], 1, "found 33, expected a multiple of 8"),
        (["--prediction-type", "x1"], 2, "Invalid value for '--prediction-type'"),
        (["--patch", "512", "--steps", "1"], 1, "512"),
    ):
        result = CliRunner().invoke(main, ["pretrain", str(manifest), "-o", str(tmp_path / "o"), *SIZES, *arguments])
        assert result.exit_code == code, result.output
        assert words in result.output
        assert "Traceback" not in result.output


WORKER = """
import sys
from pathlib import Path
from crossdiff_cli.model.crossdiff import Architecture
from crossdiff_cli.options import TrainingOptions, PretrainOptions, SceneSources
from crossdiff_cli.training.run_pretrain import run_pretrain
small = Architecture(widths=(8, 8, 8), blocks=(1, 1, 1), decoder_width=8, head_widths=(8, 8, 8))
budget = TrainingOptions(steps=3, patch=32, batch=1, groups=2, checkpoint_every=3)
run_pretrain(SceneSources(scenes=(sys.argv[1],)), Path(sys.argv[2]), PretrainOptions(budget), small)
"""


def _together(count: int, code: str, *arguments: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def test_two_processes_train_one_network_on_different_batches(manifest, tmp_path):
    """Averaged gradients of two processes differ from those of one; and one writes what both agree on."""
    _together(2, WORKER, manifest, tmp_path / "two")
    _together(2, WORKER, manifest, tmp_path / "two again")
    _together(1, WORKER, manifest, tmp_path / "one")
    two, again, one = (load_file(tmp_path / n / "encoders.safetensors") for n in ("two", "two again", "one"))
    name = "p2m.levels.0.0.conv1.weight"
    assert torch.equal(two[name], again[name])
    assert not torch.equal(two[name], one[name])
    assert len((tmp_path / "two" / "pretrain.jsonl").read_text().splitlines()) == 1


def test_workers_average_what_they_hold(tmp_path):
    """The mean of two processes' numbers, computed by hand."""
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from crossdiff_cli.training.distributed import joined\n"
        "with joined('cpu') as workers:\n"
        "    a, b = torch.full((3,), 1.0 + workers.rank), torch.tensor([[10.0 * workers.rank]])\n"
        "    p = torch.nn.Parameter(torch.zeros(2))\n"
        "    p.grad = torch.ones(2) if workers.first else None\n"
        "    workers.average([a, b]); workers.average_gradients([p])\n"
        "    Path(sys.argv[1], f'{workers.rank}').write_text(str([a.tolist(), b.tolist(), p.grad.tolist()]))\n"
    )
    _together(2, code, tmp_path)
    expected = str([[1.5, 1.5, 1.5], [[5.0]], [0.5, 0.5]])
    assert [(tmp_path / name).read_text() for name in "01"] == [expected, expected]


def test_going_on_from_weights_with_one_branch_leaves_the_other_alone(manifest, tmp_path, small_weights):
    out = tmp_path / "run"
    arguments = ["pretrain", str(manifest), "-o", str(out), *SIZES, "--weights", str(small_weights), "--branch", "p2m"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    before, after = load_file(small_weights), load_file(out / "encoders.safetensors")
    for name, value in after.items():
        same = torch.allclose(value.float(), before[name].float(), rtol=1e-2, atol=1e-6)
        assert same or name.startswith("p2m."), name
    changed = [n for n in after if not torch.allclose(after[n].float(), before[n].float(), rtol=1e-2, atol=1e-6)]
    assert changed
    losses = json.loads((out / "pretrain.jsonl").read_text())["losses"]
    assert list(losses) == ["p2m"]
    facts = load(out / "encoders.safetensors")[1]["pretrain"]
    assert facts["branch"] == "p2m"
    other = CliRunner().invoke(main, [*arguments, "--prediction-type", "eps"])
    assert other.exit_code == 1
    assert "another --prediction-type (found x0, expected eps)" in other.output
