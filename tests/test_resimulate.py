"""Re-imaged scenes: the truth is sharpened whole, and PAN and MS are exact images of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.imaging.back_projection import ITERATIONS
from crossdiff_cli.imaging.normalisation import Normalisation
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.model.crossdiff import Architecture, CrossDiff
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import save
from crossdiff_cli.training import resimulate as module
from crossdiff_cli.training.patches import PatchSampler
from crossdiff_cli.training.resimulate import resimulate, resimulated, sharpen_scene
from crossdiff_cli.training.training_scene import TrainingScene

SMALL = Architecture(widths=(8, 8, 8), blocks=(1, 1, 1), decoder_width=8, head_widths=(8, 8, 8))


def _smooth(bands: int, size: int, seed: int) -> Tensor:
    coarse = torch.randn(1, bands, size // 4, size // 4, generator=Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return (image - image.mean(dim=(2, 3), keepdim=True)) / image.std(dim=(2, 3), keepdim=True)


@pytest.fixture
def scene() -> TrainingScene:
    """Four bands, ratio 4, 256 PAN pixels."""
    return TrainingScene(
        name="made",
        sensor="wv4",
        pan=_smooth(1, 256, 0),
        pan_mask=torch.ones(256, 256, dtype=torch.bool),
        ms=_smooth(4, 64, 1),
        ms_mask=torch.ones(64, 64, dtype=torch.bool),
        sensor_model=SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), (0.3,) * 4),
        spectrum=Spectrum(
            torch.tensor([480.0, 545.0, 672.0, 850.0]), torch.full((4,), 60.0), torch.tensor([450.0, 800.0]), 4.0
        ),
        pan_gain=0.15,
        reference=None,
        normalisation=Normalisation(0.0, 1.0, torch.zeros(4), torch.ones(4)),
    )


def test_a_scene_sharpened_in_windows_equals_one_pass(scene: TrainingScene, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = CrossDiff(SMALL).eval()
    whole = model.fuse(scene.pan, scene.ms, scene.sensor_model, scene.spectrum, ITERATIONS).detach()
    monkeypatch.setattr(module, "_CORE", 64)
    monkeypatch.setattr(module, "_HALO", 120)
    assert torch.allclose(sharpen_scene(model, scene), whole, atol=1e-3)


def test_the_ms_is_the_truth_averaged_by_its_mtf(scene: TrainingScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NOISE", 0.0)
    truth = _smooth(4, 256, 2)
    for seed in range(6):
        made = resimulate(scene, truth, Generator().manual_seed(seed))
        assert made.reference is truth
        ratio, offset = made.sensor_model.grid.ratio[0], made.sensor_model.grid.offset
        assert ratio in {2.0, 3.0, 4.0}
        sigma = ratio * (-2 * torch.log(torch.tensor(made.sensor_model.nyquist_gains[1]))).sqrt() / torch.pi
        row, col = 9, 12
        middle = offset[0] + (row + 0.5) * ratio, offset[1] + (col + 0.5) * ratio
        at = torch.arange(256) + 0.5
        weight = torch.exp(-0.5 * ((at - middle[0]) / sigma) ** 2)[:, None]
        weight = weight * torch.exp(-0.5 * ((at - middle[1]) / sigma) ** 2)
        assert made.ms[0, 1, row, col] == pytest.approx(float((truth[0, 1] * weight).sum() / weight.sum()), abs=0.02)


def test_the_pan_sees_the_bands_inside_its_range(scene: TrainingScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NOISE", 0.0)
    truth = _smooth(4, 256, 3)
    made = resimulate(replace(scene, pan=torch.zeros(1, 1, 256, 256)), truth, Generator().manual_seed(4))
    low, high = made.spectrum.pan_nm
    weights = torch.linalg.lstsq(truth.flatten(2)[0].T, made.pan.flatten()[:, None]).solution[:, 0]
    inside = (scene.spectrum.center_nm > low) & (scene.spectrum.center_nm < high)
    assert float(made.pan.mean()) == pytest.approx(0.0, abs=1e-4)
    assert float(made.pan.std()) == pytest.approx(1.0, abs=1e-3)
    assert float(weights[inside].min()) > 4 * float(weights[~inside].max() if (~inside).any() else 0.0)


def test_a_re_imaged_scene_feeds_the_sampler(scene: TrainingScene) -> None:
    made = resimulate(scene, _smooth(4, 256, 5), Generator().manual_seed(1))
    example = PatchSampler([made], 64, 2).draw(Generator().manual_seed(0), reduced=True)
    assert example.reference is not None
    assert example.reference.shape == (*example.ms.shape[:2], 64, 64)


def test_the_weights_that_are_named_make_the_truth(scene: TrainingScene, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model, file = CrossDiff(SMALL).eval(), tmp_path / "mine.safetensors"
    save(model, file, {}, torch.float32)
    (mine,), (shipped,) = (resimulated([scene], 1, 0, weights) for weights in (file, None))
    assert mine.reference is not None and shipped.reference is not None
    assert torch.equal(mine.reference, sharpen_scene(model, scene))
    assert not torch.allclose(shipped.reference, mine.reference, atol=1e-2)
