import json
import pickle
import resource
from pathlib import Path

import pytest
import torch
from conftest import SMALL, small_model
from safetensors import safe_open
from safetensors.torch import save_file

from crossdiff_cli.errors import WeightsError
from crossdiff_cli.model.weights import digest, load, save


def test_round_trip_is_bit_equal(tmp_path):
    model = small_model()
    save(model, tmp_path / "w.safetensors", {"steps": 3}, dtype=torch.float32)
    loaded, provenance = load(tmp_path / "w.safetensors")
    assert provenance == {"steps": 3}
    assert loaded.architecture == SMALL
    for name, value in loaded.head.state_dict().items():
        assert torch.equal(value, model.head.state_dict()[name])
    for name, value in loaded.p2m.state_dict().items():
        assert torch.equal(value, model.p2m.state_dict()[name])
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_others_may_read_weights_as_they_may_any_file(tmp_path):
    (tmp_path / "plain").touch()
    save(small_model(), tmp_path / "w.safetensors", {})
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_signal_while_weights_are_written_leaves_the_old_ones_alone(tmp_path, monkeypatch):
    def told_to_end(state, path, metadata):
        path.write_bytes(b"half")
        raise SystemExit(143)

    target = tmp_path / "w.safetensors"
    target.write_text("old")
    monkeypatch.setattr("crossdiff_cli.model.weights.save_file", told_to_end)
    with pytest.raises(SystemExit):
        save(small_model(), target, {})
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("w.safetensors", "old")]


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(WeightsError, match="no weight file"):
        load(tmp_path / "none.safetensors")
    bad = tmp_path / "bad.safetensors"
    for content in (b"", b"text", b"\xff" * 100, (10**15).to_bytes(8, "little") + b"{}"):
        bad.write_bytes(content)
        with pytest.raises(WeightsError, match=r"bad.safetensors"):
            load(bad)
    save_file({"a": torch.zeros(2)}, bad, {"format": "other"})
    with pytest.raises(WeightsError, match="another program"):
        load(bad)
    with pytest.raises(WeightsError, match="a folder, pipe or device"):
        load(tmp_path)


@pytest.fixture
def memory_limit():
    """One GiB of address space beyond what is in use."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def parts(tmp_path):
    save(small_model(), tmp_path / "w.safetensors", {}, dtype=torch.float32)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        return {n: file.get_tensor(n) for n in file.keys()}, file.metadata()


def test_missing_foreign_misshapen_and_infinite_tensors(tmp_path, parts):
    state, metadata = parts
    name = "head.pan_stem.weight"
    cases = {
        "missing or foreign": {k: v for k, v in state.items() if k != name},
        "missing or foreign .*the first zzz": {**state, "zzz": torch.zeros(1)},
        "a shape that its architecture does not have": {**state, name: torch.zeros(1, 2, 6, 6)},
        "not finite": {**state, name: torch.full_like(state[name], float("nan"))},
    }
    for text, tensors in cases.items():
        save_file(tensors, tmp_path / "x.safetensors", metadata)
        with pytest.raises(WeightsError, match=text):
            load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"widths": [8, 8]},
        {"widths": [10**9, 8, 8]},
        {"blocks": "x"},
        {"extra": 1},
        {"widths": [8, 8, -1]},
        {"timesteps": 0},
        {"widths": [4096, 4096, 4096], "blocks": [64, 64, 64]},
        {"blocks": [4096, 1, 1]},
        {"widths": [8] * 1000, "blocks": [1] * 1000},
        {"p2m_timestep": "x"},
        {"m2p_timestep": -1},
        {"kappa": float("nan")},
        {"objective": ["x0"]},
        {"decoder_width": 1.5},
        {"m2p_features": 1},
    ],
)
def test_impossible_architectures_are_refused_before_memory_is_taken(tmp_path, parts, change, memory_limit):
    """The largest of them would need 60 GB."""
    state, metadata = parts
    metadata["architecture"] = json.dumps({**json.loads(metadata["architecture"]), **change})
    save_file(state, tmp_path / "x.safetensors", metadata)
    with pytest.raises(WeightsError):
        load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("key", ["architecture", "provenance"])
@pytest.mark.parametrize("text", ["[" * 100_000, "", "[]", "NaN", "3"])
def test_metadata_that_is_no_description(tmp_path, parts, key, text):
    state, metadata = parts
    save_file(state, tmp_path / "x.safetensors", {**metadata, key: text})
    with pytest.raises(WeightsError, match=r"x\.safetensors: it describes no network"):
        load(tmp_path / "x.safetensors")


def test_a_file_that_fills_the_memory_is_not_read(tmp_path, memory_limit):
    path = tmp_path / "sparse.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with path.open("r+b") as file:
        file.truncate(8 + len(header) + 2**40)
    with pytest.raises(WeightsError, match="found 1048576 MiB"):
        load(path)


def test_weights_run_no_code(tmp_path):
    """A pickle under the name of safetensors is no safetensors file."""
    trace, path = tmp_path / "trace", tmp_path / "x.safetensors"

    class Hostile:
        def __reduce__(self):
            return open, (str(trace), "w")

    for write in (lambda: path.write_bytes(pickle.dumps(Hostile())), lambda: torch.save(Hostile(), path)):
        write()
        with pytest.raises(WeightsError, match="damaged"):
            load(path)
        assert not trace.exists()


def test_whole_numbers_are_no_weights(tmp_path, parts):
    state, metadata = parts
    name = "head.pan_stem.weight"
    save_file({**state, name: state[name].to(torch.int64)}, tmp_path / "x.safetensors", metadata)
    with pytest.raises(WeightsError, match=name):
        load(tmp_path / "x.safetensors")


def test_digest_follows_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    assert len(digest(tmp_path / "a")) == 16
