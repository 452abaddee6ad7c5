import math

import pytest
import torch

from crossdiff_cli.model.diffusion import NoiseSchedule


def test_cosine_chain_is_the_closed_form():
    schedule = NoiseSchedule.cosine(1000)
    for t in (1, 50, 500, 900):
        alpha_bar = math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        assert float(schedule.signal[t]) == pytest.approx(math.sqrt(alpha_bar), rel=1e-5)
        assert float(schedule.sigma[t]) == pytest.approx(math.sqrt(1 - alpha_bar), rel=1e-5)
    assert float(schedule.shift.abs().max()) == 0


def test_residual_shift_chain_runs_from_the_image_to_the_prior():
    schedule = NoiseSchedule.residual_shift(100, kappa=0.2)
    x_0, prior = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    zero = torch.zeros_like(x_0)
    assert torch.allclose(schedule.add_noise(x_0, prior, torch.tensor([0, 0]), zero), x_0)
    assert torch.allclose(schedule.add_noise(x_0, prior, torch.tensor([100, 100]), zero), prior, atol=1e-6)
    assert float(schedule.sigma[100]) == pytest.approx(0.2)
    assert bool((schedule.sigma.diff() >= 0).all())


def test_noise_has_the_variance_of_its_timestep_per_sample():
    schedule = NoiseSchedule.residual_shift(100, kappa=0.5)
    eps = torch.randn(2, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    x_t = schedule.add_noise(torch.zeros_like(eps), torch.zeros_like(eps), torch.tensor([10, 90]), eps)
    for sample, t in enumerate((10, 90)):
        assert float(x_t[sample].std()) == pytest.approx(0.5 * math.sin(math.pi * t / 200), rel=0.02)
