"""The range that a result may have: that of the MS nearby, and what the PAN shows beyond its own."""

import pytest
import torch

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.back_projection import regress_on_pan
from crossdiff_cli.imaging.limiter import Limits
from crossdiff_cli.imaging.sensor_model import SensorModel, pan_on_ms_grid, to_ms, to_pan

MODEL = SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), (0.3, 0.3))
FLAT = torch.zeros(1, 1, 64, 64), torch.zeros(1, 2, 16, 16)


def limit(hrms, pan, ms, pan_ms, model):
    return Limits.of(ms, pan_ms, model).clip(hrms, pan, model)


def expand_guided(residual, pan, pan_ms):
    left, slope = to_pan(regress_on_pan(residual, pan_ms), (64, 64), MODEL).chunk(2)
    return left + slope * pan


def random_ms(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(seed))


def brute(ms: torch.Tensor, row: int, col: int) -> tuple[float, float]:
    """Range of the 3 x 3 MS pixels around PAN pixel (row, col), widened by a quarter to both sides."""
    near = ms[max(0, row // 4 - 1) : row // 4 + 2, max(0, col // 4 - 1) : col // 4 + 2]
    low, high = float(near.min()), float(near.max())
    return low - 0.25 * (high - low), high + 0.25 * (high - low)


def test_where_the_pan_is_flat_the_ms_nearby_sets_the_range():
    ms, hrms = random_ms(), 3 * torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(1))
    limited = limit(hrms, FLAT[0], ms, FLAT[1], MODEL)
    for row, col in ((0, 0), (3, 4), (31, 17), (63, 63), (40, 7)):
        low, high = brute(ms[0, 1], row, col)
        assert float(limited[0, 1, row, col]) == pytest.approx(min(max(float(hrms[0, 1, row, col]), low), high))
    assert (limited != hrms).any()


def test_what_lies_inside_the_range_stays_as_it_is_to_the_bit():
    ms = random_ms()
    inside = ms.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(limit(inside, FLAT[0], ms, FLAT[1], MODEL), inside)


def test_a_roof_that_only_the_pan_shows_may_be_as_bright_as_there():
    pan = torch.zeros(1, 1, 64, 64)
    pan[..., 30:32, 30:32] = 5.0
    pan_ms = pan_on_ms_grid(pan, (16, 16), MODEL)
    ms = torch.zeros(1, 2, 16, 16)
    limited = limit(pan.expand(-1, 2, -1, -1) * 2, pan, ms, pan_ms, MODEL)
    expected = 5.0 - float(pan_ms.max())
    assert float(limited[0, 0, 30, 30]) == pytest.approx(expected, rel=1e-5)
    assert float(limited[0, 0, 50, 50]) == 0.0


def test_bands_apart_are_limited_each_at_its_place():
    ms = torch.zeros(1, 2, 16, 16)
    ms[..., 8, 8] = 1.0
    hrms = torch.full((1, 2, 64, 64), 9.0)
    shifted = SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0), ((0.0, 0.0), (8.0, 0.0))), (0.3, 0.3))
    limited = limit(hrms, FLAT[0], ms, FLAT[1], shifted)
    assert float(limited[0, 0, 28, 34]) == 1.25
    assert float(limited[0, 1, 28, 34]) == 0.0
    assert float(limited[0, 1, 36, 34]) == 1.25


def test_a_residual_is_expanded_along_the_edges_of_the_pan():
    """A residual that follows an edge of the PAN comes back with that edge, not blurred over three MS pixels."""
    pan = torch.zeros(1, 1, 64, 64)
    pan[..., 33:] = 1.0
    pan_ms = pan_on_ms_grid(pan, (16, 16), MODEL)
    truth = 0.3 * pan.expand(-1, 2, -1, -1)
    update = expand_guided(to_ms(truth, (16, 16), MODEL), pan, pan_ms)
    inner = (slice(None), slice(None), slice(16, -16), slice(16, -16))
    plain = expand_guided(to_ms(truth, (16, 16), MODEL), FLAT[0], FLAT[1])
    error, other = ((x - truth)[inner].square().mean() for x in (update, plain))
    assert error < 0.3 * other
    constant = expand_guided(torch.ones(1, 2, 16, 16), pan, pan_ms)
    assert torch.allclose(constant, torch.ones(1, 2, 64, 64), atol=1e-5)


def test_parts_are_limited_as_the_whole_is():
    ms, hrms = random_ms(), 3 * torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(1))
    pan = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    shifted = SensorModel(
        GridMapping((4.0, 4.0), (-1.3, 0.6), ((0.0, 0.0), (0.7, 0.0))), (0.3, 0.3), saturation=(1.0, 2.0)
    )
    limits = Limits.of(ms, pan_on_ms_grid(pan, (16, 16), shifted), shifted)
    whole, part = limits.clip(hrms, pan, shifted), Window(16, 8, 24, 40)
    found = limits.clip(part.crop(hrms), part.crop(pan), shifted.crop(part))
    assert torch.equal(found, part.crop(whole))
    assert (whole != hrms).any()
