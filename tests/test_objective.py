"""Objectives and sensor_model against their closed forms."""

import pytest
import torch
from torch import Generator

from crossdiff_cli.model.objective import OBJECTIVES, Prediction
from crossdiff_cli.model.sampling import draw
from crossdiff_cli.model.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.residual_shift(1000, 0.2)


def images(batch=4):
    generator = Generator().manual_seed(0)
    return [torch.randn(batch, 2, 8, 8, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_true_correction_gives_x_0_back(objective):
    x_0, prior, eps = images()
    timestep = torch.tensor([200, 400, 600, 840])
    x_t = SCHEDULE.add_noise(x_0, prior, timestep, eps)
    prediction = Prediction(objective, SCHEDULE)
    correction = prediction.target(x_0, x_t, x_t, eps, timestep)
    assert torch.allclose(prediction.x_0(correction, x_t, prior, x_t, timestep), x_0, atol=1e-4)


def test_eps_is_the_noise_and_v_the_velocity_of_the_chain():
    x_0, prior, eps = images()
    timestep = torch.tensor([100, 300, 500, 1000])
    x_t = SCHEDULE.add_noise(x_0, prior, timestep, eps)
    assert torch.equal(Prediction("eps", SCHEDULE).target(x_0, x_t, x_t, eps, timestep), eps)
    eta = torch.sin(timestep / 1000 * torch.pi / 2) ** 2
    velocity = (prior - x_0) + 0.2 * eps / eta.sqrt()[:, None, None, None]
    found = Prediction("v", SCHEDULE).target(x_0, x_t, x_t, eps, timestep)
    assert torch.allclose(found[1:], velocity[1:], atol=1e-3)
    assert found[0].abs().max() < velocity[0].abs().max()


def test_x_0_is_found_beside_a_base_and_nothing_else_of_x_t_gets_in():
    x_0, prior, eps = images()
    timestep = torch.tensor([100, 300, 500, 1000])
    x_t, noisier = (SCHEDULE.add_noise(x_0, prior, timestep, k * eps) for k in (1.0, 5.0))
    prediction, base = Prediction("x0", SCHEDULE), 0.5 * prior
    assert torch.equal(prediction.target(x_0, x_t, base, eps, timestep), x_0 - base)
    found = [prediction.x_0(0.1 * eps, seen, prior, base, timestep) for seen in (x_t, noisier)]
    assert torch.equal(*found)


def test_everything_is_finite_at_both_ends_of_the_chain():
    x_0, prior, eps = images(2)
    timestep = torch.tensor([1, 1000])
    x_t = SCHEDULE.add_noise(x_0, prior, timestep, eps)
    for objective in OBJECTIVES:
        prediction = Prediction(objective, SCHEDULE, min_snr=5.0)
        correction = prediction.target(x_0, x_t, x_t, eps, timestep)
        assert correction.isfinite().all()
        assert prediction.x_0(correction, x_t, prior, x_t, timestep).isfinite().all()
        assert prediction.weight(timestep).isfinite().all()


def test_min_snr_counts_noise_less_down_to_a_floor():
    weight = Prediction("x0", SCHEDULE, min_snr=5.0).weight(torch.arange(1, 1001))
    eta = torch.sin(torch.arange(1, 1001) / 1000 * torch.pi / 2) ** 2
    snr = (1 - eta) ** 2 / (0.04 * eta)
    assert torch.allclose(weight, (snr.clamp(max=5.0) / 5.0).clamp(min=0.2), atol=1e-3)
    assert weight[0] == 1.0
    assert weight[-1] == pytest.approx(0.2)
    assert torch.equal(Prediction("x0", SCHEDULE).weight(torch.arange(1, 1001)), torch.ones(1000))


def test_an_all_knowing_denoiser_draws_the_image_itself():
    x_0, prior, eps = images()
    asked = []

    def denoise(x_t, timestep):
        asked.append((int(timestep[0]), x_t))
        return x_0

    assert torch.allclose(draw(denoise, SCHEDULE, prior, eps, 5), x_0, atol=1e-5)
    assert [t for t, _ in asked] == [1000, 800, 600, 400, 200]
    for t, x_t in asked:
        assert torch.allclose(x_t, SCHEDULE.add_noise(x_0, prior, torch.full((4,), t), eps), atol=1e-4)


def test_a_drawn_image_follows_from_its_noise():
    _, prior, eps = images()

    def half(x_t, timestep):
        return 0.5 * x_t

    first = draw(half, SCHEDULE, prior, eps, 7)
    assert torch.equal(first, draw(half, SCHEDULE, prior, eps, 7))
    assert not torch.allclose(first, draw(half, SCHEDULE, prior, -eps, 7))
