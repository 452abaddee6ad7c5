"""The optimiser loop: it learns, resumes bit-exactly, and loses nothing when something goes wrong."""

import logging
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.training.checkpoint import previous
from crossdiff_cli.training.loop import Plan, fit


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(3, 1)


class Silent(list):
    def set_postfix(self, *_, **__) -> None:
        pass


def draw(generator):
    return torch.randn(16, 3, generator=generator)


def toy_step(model):
    def step(x, generator):
        noise = 0.01 * torch.randn(16, generator=generator)
        return {"error": (model.line(x)[:, 0] - x.sum(dim=1) + noise).square().mean()}

    return step


def test_fit_learns_and_ends_with_the_average():
    model = Toy()
    fit(model, draw, toy_step(model), Plan(steps=400, learning_rate=0.05, ema_decay=0.9))
    assert torch.allclose(model.line.weight, torch.ones(1, 3), atol=0.05)


def test_a_resumed_run_is_bit_exact(tmp_path):
    whole = Toy()
    fit(whole, draw, toy_step(whole), Plan(steps=60, checkpoint=tmp_path / "whole", checkpoint_every=20))
    stopped = Toy()
    plan = Plan(steps=60, checkpoint=tmp_path / "part", checkpoint_every=20)
    calls = 0

    def dying(x, generator):
        nonlocal calls
        calls += 1
        if calls > 35:
            raise KeyboardInterrupt
        return toy_step(stopped)(x, generator)

    with pytest.raises(KeyboardInterrupt):
        fit(stopped, draw, dying, plan)
    resumed = Toy()
    torch.nn.init.zeros_(resumed.line.weight)
    fit(resumed, draw, toy_step(resumed), plan)
    assert torch.equal(resumed.line.weight, whole.line.weight)
    assert torch.equal(resumed.line.bias, whole.line.bias)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    model, path = Toy(), tmp_path / "c"
    fit(model, draw, toy_step(model), Plan(steps=5, checkpoint=path, checkpoint_every=2, run={"scenes": "a, b"}))
    with pytest.raises(TrainingError, match="seed differs .found 0, expected 1"):
        fit(model, draw, toy_step(model), Plan(steps=5, checkpoint=path, seed=1, run={"scenes": "a, b"}))
    with pytest.raises(
        TrainingError, match="scenes differs .found a, b, expected a.; go on with that run, or remove the file"
    ):
        fit(model, draw, toy_step(model), Plan(steps=5, checkpoint=path, run={"scenes": "a"}))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    whole, path = Toy(), tmp_path / "c"
    plan = Plan(steps=9, checkpoint=path, checkpoint_every=3)
    fit(whole, draw, toy_step(whole), plan)
    assert previous(path).exists()
    path.write_bytes(path.read_bytes()[:200])
    again = Toy()
    with caplog.at_level(logging.WARNING):
        fit(again, draw, toy_step(again), plan)
    assert "is damaged" in caplog.text
    assert str(previous(path)) in caplog.text
    assert torch.equal(again.line.weight, whole.line.weight)


@pytest.mark.parametrize("damage", [lambda t: t.fill_(float("nan")), lambda t: t[..., :1].clone()])
def test_numbers_that_are_none_and_wrong_shapes_are_damage(tmp_path, caplog, damage):
    """A tensor of one row would be copied to all rows without a word."""
    whole, path = Toy(), tmp_path / "c"
    plan = Plan(steps=9, checkpoint=path, checkpoint_every=3)
    fit(whole, draw, toy_step(whole), plan)
    with safe_open(path, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    tensors["ema.line.weight"] = damage(tensors["ema.line.weight"])
    save_file(tensors, path, metadata)
    again = Toy()
    with caplog.at_level(logging.WARNING):
        fit(again, draw, toy_step(again), plan)
    assert "line.weight has another shape or holds numbers that are not finite" in caplog.text
    assert torch.equal(again.line.weight, whole.line.weight)


def test_damage_without_an_older_checkpoint_is_said(tmp_path):
    model, path = Toy(), tmp_path / "c"
    path.write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"c is damaged .*; remove it to start anew"):
        fit(model, draw, toy_step(model), Plan(steps=5, checkpoint=path))
    assert path.read_bytes() == b"nothing"


def test_a_lost_newest_checkpoint_falls_back_too(tmp_path):
    """As when a run is killed between its two renames."""
    whole, path = Toy(), tmp_path / "c"
    plan = Plan(steps=9, checkpoint=path, checkpoint_every=3)
    fit(whole, draw, toy_step(whole), plan)
    path.unlink()
    steps = []
    again = Toy()
    fit(again, draw, toy_step(again), plan, on_checkpoint=lambda progress: steps.append(progress.step))
    assert steps == [9]
    assert torch.equal(again.line.weight, whole.line.weight)


def test_a_diverged_loss_keeps_the_last_good_checkpoint(tmp_path):
    model, path = Toy(), tmp_path / "c"

    def diverging(x, generator):
        factor = float("nan") if len(list(tmp_path.iterdir())) == 2 else 1.0
        return {"error": toy_step(model)(x, generator)["error"] * factor}

    with pytest.raises(TrainingError, match=rf"not finite at step 6; lower .* the last good state is {path}"):
        fit(model, draw, diverging, Plan(steps=20, checkpoint=path, checkpoint_every=3))
    resumed = []
    fit(model, draw, toy_step(model), Plan(steps=20, checkpoint=path), on_checkpoint=lambda p: resumed.append(p.step))
    assert resumed == [20]
    with pytest.raises(TrainingError, match="not finite at step 0"):
        fit(model, draw, lambda x, _: {"x": model.line.weight.sum() * float("nan")}, Plan(steps=5))


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("crossdiff_cli.training.loop.tqdm", lambda steps, **_: Silent(steps))  # its output has no room
    model, path = Toy(), tmp_path / "c"
    plan = Plan(steps=9, checkpoint=path, checkpoint_every=3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def filling(x, generator):
        if path.exists():
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
        return toy_step(model)(x, generator)

    try:
        with pytest.raises(TrainingError, match=r"the checkpoint of step 6 cannot be written .* make room"):
            fit(model, draw, filling, plan)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    steps = []
    fit(model, draw, toy_step(model), plan, on_checkpoint=lambda progress: steps.append(progress.step))
    assert steps == [6, 9]


def test_a_signal_while_a_checkpoint_is_written_leaves_the_last_good_one(tmp_path, monkeypatch):
    model, path = Toy(), tmp_path / "c"
    good = []

    def told_to_end_the_second_time(tensors, target, metadata):
        if path.exists():
            good.append(path.read_bytes())
            target.write_bytes(b"half")
            raise SystemExit(143)
        save_file(tensors, target, metadata)

    monkeypatch.setattr("crossdiff_cli.training.checkpoint.save_file", told_to_end_the_second_time)
    with pytest.raises(SystemExit):
        fit(model, draw, toy_step(model), Plan(steps=6, checkpoint=path, checkpoint_every=3))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("c", good[0])]


def test_the_watch_sees_averaged_parameters_and_training_goes_on_unchanged(tmp_path):
    plain, watched = Toy(), Toy()
    seen = []
    fit(plain, draw, toy_step(plain), Plan(steps=8, checkpoint_every=4))
    fit(watched, draw, toy_step(watched), Plan(steps=8, checkpoint_every=4),
        on_checkpoint=lambda p: seen.append((p.step, watched.line.weight.detach().clone(), p.waiting)))  # fmt: skip
    assert torch.equal(plain.line.weight, watched.line.weight)
    assert [step for step, _, _ in seen] == [4, 8]
    assert torch.equal(seen[1][1], watched.line.weight)
    assert all(0 <= waiting <= 1 for _, _, waiting in seen)


def test_an_error_while_drawing_is_raised(tmp_path):
    def empty(generator):
        raise TrainingError("no valid window")

    with pytest.raises(TrainingError, match="no valid window"):
        fit(Toy(), empty, toy_step(Toy()), Plan(steps=3))
