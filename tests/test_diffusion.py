"""Objectives and sensor_model against their closed forms."""

import pytest
import torch
from torch import Generator

from crossdiff_cli.model.diffusion import PREDICTION_TYPES, NoiseSchedule, Prediction

SCHEDULE = NoiseSchedule.residual_shift(1000, 0.2)


def images(batch=4):
    generator = Generator().manual_seed(0)
    return [torch.randn(batch, 2, 8, 8, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_true_correction_gives_x_0_back(prediction_type):
    x_0, prior, eps = images()
    timestep = torch.tensor([200, 400, 600, 840])
    x_t = SCHEDULE.add_noise(x_0, prior, timestep, eps)
    prediction = Prediction(prediction_type, SCHEDULE)
    correction = prediction.target(x_0, x_t, eps)
    assert torch.allclose(prediction.x_0(correction, x_t, prior, timestep), x_0, atol=1e-4)


def test_everything_is_finite_at_both_ends_of_the_chain():
    x_0, prior, eps = images(2)
    timestep = torch.tensor([1, 1000])
    x_t = SCHEDULE.add_noise(x_0, prior, timestep, eps)
    for prediction_type in PREDICTION_TYPES:
        prediction = Prediction(prediction_type, SCHEDULE)
        correction = prediction.target(x_0, x_t, eps)
        assert correction.isfinite().all()
        assert prediction.x_0(correction, x_t, prior, timestep).isfinite().all()


def test_eps_is_the_noise_and_x0_the_rest_from_x_t():
    x_0, prior, eps = images()
    x_t = SCHEDULE.add_noise(x_0, prior, torch.tensor([100, 300, 500, 1000]), eps)
    assert torch.equal(Prediction("eps", SCHEDULE).target(x_0, x_t, eps), eps)
    assert torch.equal(Prediction("x0", SCHEDULE).target(x_0, x_t, eps), x_0 - x_t)
