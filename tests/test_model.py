import math
from dataclasses import replace

import pytest
import torch
from conftest import SMALL, small_model, told_of_quality

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import STRIDE
from crossdiff_cli.imaging.back_projection import back_project
from crossdiff_cli.imaging.injection import local_gain, prepare
from crossdiff_cli.imaging.limiter import Limits
from crossdiff_cli.imaging.resample import degrade, expand
from crossdiff_cli.imaging.sensor_model import SensorModel, pan_on_ms_grid, to_ms, to_pan
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.spectral import ImageQuality, Spectrum, embed_wavelengths

SPECTRUM = Spectrum(
    torch.tensor([480.0, 545.0, 672.0, 850.0]),
    torch.tensor([60.0, 70.0, 35.0, 140.0]),
    torch.tensor([450.0, 800.0]),
    4.0,
)
SENSOR_MODEL = SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), (0.34, 0.32, 0.30, 0.22))


def inputs(size: int = 96, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 1, size, size, generator=generator), torch.randn(
        1, 4, size // 4, size // 4, generator=generator
    )


def test_the_untrained_head_is_mtf_glp():
    pan, ms = inputs()
    out = small_model(trained=False).fuse(pan, ms, SENSOR_MODEL, SPECTRUM, iterations=0)
    for band, gain in enumerate(SENSOR_MODEL.nyquist_gains):
        low = expand(degrade(pan, (24, 24), (4.0, 4.0), (0.0, 0.0), [gain]), (96, 96), (4.0, 4.0), (0.0, 0.0))
        glp = expand(ms[:, band : band + 1], (96, 96), (4.0, 4.0), (0.0, 0.0)) + pan - low
        assert torch.allclose(out[:, band : band + 1], glp, atol=1e-5)


def test_a_random_head_is_not_mtf_glp():
    pan, ms = inputs()
    plain, other = (small_model(trained=t).fuse(pan, ms, SENSOR_MODEL, SPECTRUM, iterations=0) for t in (False, True))
    assert (plain - other).abs().max() > 0.01


def test_any_order_of_bands_gives_the_same_bands():
    pan, ms = inputs()
    order = torch.tensor([2, 0, 3, 1])
    model = small_model()
    out = model.fuse(pan, ms, SENSOR_MODEL, SPECTRUM, iterations=1)
    shuffled = Spectrum(SPECTRUM.center_nm[order], SPECTRUM.width_nm[order], SPECTRUM.pan_nm, 4.0)
    sensor_model = SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), tuple(SENSOR_MODEL.nyquist_gains[i] for i in order))
    assert torch.allclose(model.fuse(pan, ms[:, order], sensor_model, shuffled, iterations=1), out[:, order], atol=1e-5)


def of_quality(gains=(0.34, 0.32, 0.30, 0.22), noise=(0.1, 0.0, 0.05, 0.2), pan_gain=0.4, pan_noise=0.1):
    return replace(SPECTRUM, quality=ImageQuality.of(gains, noise, pan_gain, pan_noise))


@pytest.mark.parametrize(
    "other",
    [
        of_quality(pan_gain=0.15),
        of_quality(pan_noise=0.0),
        of_quality(noise=(0.1, 0.0, 0.05, 0.0)),
        of_quality(gains=(0.34, 0.32, 0.30, 0.5)),
    ],
    ids=["PAN gain", "PAN noise", "MS noise", "MS gain"],
)
def test_the_network_is_told_mtf_and_noise(other):
    pan, ms = inputs()
    model = small_model()
    known = model.fuse(pan, ms, SENSOR_MODEL, of_quality(), iterations=0)
    assert torch.equal(model.fuse(pan, ms, SENSOR_MODEL, SPECTRUM, iterations=0), known), "it begins without effect"
    told_of_quality(model)
    found = model.fuse(pan, ms, SENSOR_MODEL, of_quality(), iterations=0)
    assert (model.fuse(pan, ms, SENSOR_MODEL, other, iterations=0) - found).abs().max() > 1e-4


def test_a_network_that_is_not_told_the_quality_has_no_weights_for_it():
    torch.manual_seed(0)
    model = CrossDiff(replace(SMALL, image_quality=False))
    assert not any("quality" in name for name in model.state_dict())
    plain = small_model(trained=False).state_dict()
    assert all(torch.equal(plain[name], value) for name, value in model.state_dict().items())


def test_the_quality_of_bands_goes_with_them():
    pan, ms = inputs()
    order = torch.tensor([2, 0, 3, 1])
    model = small_model()
    told_of_quality(model)
    out = model.fuse(pan, ms, SENSOR_MODEL, of_quality(), iterations=1)
    shuffled, sensor_model = of_quality().select_bands(order), SENSOR_MODEL.select_bands(order.tolist())
    assert torch.allclose(model.fuse(pan, ms[:, order], sensor_model, shuffled, iterations=1), out[:, order], atol=1e-5)


def test_blur_and_noise_are_described_by_numbers_of_order_one():
    found = ImageQuality.of((0.05, 0.9), (0.0, 0.3), 0.237, 0.007).described()
    assert found[:, 0].tolist() == pytest.approx([0.531, -0.875], abs=1e-3)
    assert found[:, 1].tolist() == pytest.approx([0.0] * 2, abs=1e-3)
    assert found[:, 2].tolist() == pytest.approx([-0.523, 1.481], abs=1e-3)
    assert found[:, 3].tolist() == pytest.approx([0.0] * 2, abs=1e-6)


def test_one_network_takes_any_number_of_bands():
    pan, ms = inputs()
    for count in (1, 3, 8, 16):
        spectrum = Spectrum(torch.linspace(430, 2200, count), torch.full((count,), 50.0), SPECTRUM.pan_nm, 4.0)
        many = ms[:, :1].expand(-1, count, -1, -1)
        out = small_model().fuse(
            pan, many, SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), (0.3,) * count), spectrum, iterations=1
        )
        assert out.shape == (1, count, 96, 96)
        assert torch.isfinite(out).all()


def test_no_pixel_farther_than_the_halo_matters():
    """Changing one PAN pixel and one MS pixel changes nothing beyond the computed receptive field."""
    model = small_model()
    reach = model.halo(SENSOR_MODEL.grid.ratio, SENSOR_MODEL.nyquist_gains, iterations=1)
    size = (2 * reach // STRIDE + 6) * STRIDE
    pan, ms = inputs(size)
    plain = model.fuse(pan, ms, SENSOR_MODEL, SPECTRUM, iterations=1)
    pan[..., size // 2, size // 2] += 50
    ms[..., size // 8, size // 8] += 50
    changed = (model.fuse(pan, ms, SENSOR_MODEL, SPECTRUM, iterations=1) - plain).abs().amax(dim=(0, 1)) > 1e-4
    rows, cols = torch.nonzero(changed, as_tuple=True)
    farthest = max(int((rows - size // 2).abs().max()), int((cols - size // 2).abs().max()))
    assert 8 < farthest <= reach


def test_both_encoders_see_both_images():
    pan, ms = inputs()
    model = small_model()
    _, ms_up, _ = prepare(pan, ms, SENSOR_MODEL)
    plain = model.features(pan, ms_up, SPECTRUM)
    for changed in (
        model.features(pan + 1, ms_up, SPECTRUM),
        model.features(pan, ms_up.flip(1), SPECTRUM),
    ):
        for before, after in zip((*plain.p2m, *plain.m2p), (*changed.p2m, *changed.m2p), strict=True):
            assert (before - after).abs().max() > 1e-3
        assert (plain.decoded - changed.decoded).abs().amax(dim=(0, 2, 3)).min() > 0


@pytest.mark.parametrize("encoders", ["both", "p2m", "none"])
def test_gradients_reach_head_and_laterals(encoders):
    """And with or without them the result is the same, and what was given is as it was."""
    torch.manual_seed(0)
    model = CrossDiff(SMALL, encoders=encoders != "none").eval()
    if encoders == "p2m":
        model.with_m2p_features(False)
    for module in (model.head, model.p2m):
        if module is not None:
            torch.nn.init.normal_((module.out if module is model.head else module.ms_out).kernels.out.weight, std=0.05)
    pan, ms = inputs()
    given = pan, *prepare(pan, ms, SENSOR_MODEL)
    kept = [image.clone() for image in given]
    trained = model(*given, of_quality())
    assert trained.requires_grad
    with torch.inference_mode():
        quick = model(*given, of_quality())
    assert torch.equal(quick, trained)
    assert (trained - given[2] - pan + given[1]).abs().max() > 0.01
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))
    trained.square().mean().backward()
    if model.p2m is not None:
        taken = (*model.head.named_parameters(), *model.p2m.laterals.named_parameters())
        assert not [name for name, weight in taken if weight.grad is None]


def test_decoders_predict_the_shape_of_their_target():
    pan, ms = inputs()
    model = small_model()
    _, ms_up, _ = prepare(pan, ms, SENSOR_MODEL)
    t = torch.ones(1)
    assert model.p2m(ms_up, t, pan, pan - ms_up, SPECTRUM).shape == ms_up.shape
    assert model.m2p(pan, t, ms_up, None, SPECTRUM).shape == pan.shape


def test_p2m_predicts_a_gain_on_the_detail_and_a_residual():
    """The correction is affine in the detail: what is left without any is the residual."""
    pan, ms = inputs()
    model = small_model()
    torch.nn.init.normal_(model.p2m.ms_out.kernels.out.weight, std=0.1)
    pan_low, ms_up, _ = prepare(pan, ms, SENSOR_MODEL)
    decoded = model.p2m.decode(model.p2m.encode(ms_up, torch.ones(1), pan, SPECTRUM))
    none, once, twice = (model.p2m.correct(decoded, k * (pan - pan_low), SPECTRUM) for k in (0, 1, 2))
    assert torch.allclose(none, model.p2m.correct(decoded, None, SPECTRUM))
    assert torch.allclose(twice - none, 2 * (once - none), atol=1e-4)
    assert (once - none).abs().max() > 1e-3


def test_the_untrained_head_takes_the_detail_that_p2m_predicts():
    pan, ms = inputs()
    model = small_model(trained=False)
    torch.nn.init.normal_(model.p2m.ms_out.kernels.out.weight, std=0.02)
    pan_low, ms_up, beta = prepare(pan, ms, SENSOR_MODEL)
    detail = pan - pan_low
    decoded = model.p2m.decode(model.features(pan, ms_up, SPECTRUM).p2m)
    correction = model.p2m.correct(decoded, detail, SPECTRUM)
    wanted = ms_up + detail + correction
    assert torch.allclose(model(pan, pan_low, ms_up, beta, SPECTRUM), wanted, atol=1e-5)
    assert correction.abs().max() > 1e-3


def test_back_projection_brings_the_result_to_the_ms(monkeypatch):
    """Without the limits, which keep a result from following an MS that PAN and MS nearby do not show."""
    monkeypatch.setattr(Limits, "clip", lambda _, hrms, *__: hrms)
    pan, ms = inputs(seed=3)
    ms = degrade(pan.expand(-1, 4, -1, -1) * 0.5, (24, 24), (4.0, 4.0), (0.0, 0.0), [0.3]) + 0.3
    start = small_model().fuse(pan, ms, SENSOR_MODEL, SPECTRUM, iterations=0)
    pan_ms = pan_on_ms_grid(pan, (24, 24), SENSOR_MODEL)

    def error(image: torch.Tensor) -> float:
        seen = degrade(image, (24, 24), (4.0, 4.0), (0.0, 0.0), SENSOR_MODEL.nyquist_gains)
        return float((seen - ms)[..., 3:-3, 3:-3].square().mean().sqrt())

    errors = [error(back_project(start, pan, ms, pan_ms, SENSOR_MODEL, iterations)) for iterations in (0, 1, 2, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.6 * errors[0]
    assert errors[3] < 0.4 * errors[0]


@pytest.mark.parametrize("period", [6, 8, 12])
def test_a_wave_is_left_over_as_its_mtf_says(period):
    """Of a wave that the MTF passes with gain e, (1 - e)(1 - 1.4 e) is left after two iterations; none grows."""
    sensor_model = SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), (0.3,))
    ms = torch.cos(2 * math.pi * torch.arange(96) / period).expand(1, 1, 96, 96)
    passed = 0.3 ** ((2 / period) ** 2)
    start = torch.zeros(1, 1, 384, 384)
    flat = torch.zeros(1, 1, 384, 384), torch.zeros(1, 1, 96, 96)  # a PAN that guides nothing
    for iterations, factor in ((1, 1 - passed), (2, (1 - passed) * (1 - 1.4 * passed))):
        result = back_project(start, flat[0], ms, flat[1], sensor_model, iterations)
        left = (ms - to_ms(result, (96, 96), sensor_model))[..., 24:-24, 24:-24]
        found = float((left * ms[..., 24:-24, 24:-24]).sum() / ms[..., 24:-24, 24:-24].square().sum())
        assert found == pytest.approx(factor, abs=0.02)
        assert abs(found) < 1


def test_local_gain_is_the_regression_slope():
    pan = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    beta = local_gain(torch.cat([0.5 * pan + 2, -0.4 * pan], dim=1), pan.expand(-1, 2, -1, -1))[..., 4:-4, 4:-4]
    assert torch.allclose(beta[:, 0], torch.full_like(beta[:, 0], 0.5), atol=0.05)
    assert torch.allclose(beta[:, 1], torch.full_like(beta[:, 1], -0.4), atol=0.1)
    flat = torch.zeros_like(pan)
    assert torch.allclose(local_gain(flat + 1, flat), torch.ones_like(flat))


def test_wavelength_embedding_is_the_expectation_over_the_response():
    """Monte Carlo over a Gaussian response is an independent way to the same numbers."""
    center, width = 660.0, 120.0
    draws = torch.normal(center, width / 2.355, (200_000,), generator=torch.Generator().manual_seed(0))
    sampled = embed_wavelengths(draws, torch.zeros(len(draws))).mean(dim=0)
    assert torch.allclose(embed_wavelengths(torch.tensor([center]), torch.tensor([width]))[0], sampled, atol=0.01)


def test_head_without_encoders_is_a_working_control():
    model = CrossDiff(SMALL, encoders=False).eval()
    pan, ms = inputs()
    assert model.fuse(pan, ms, SENSOR_MODEL, SPECTRUM, iterations=1).shape == (1, 4, 96, 96)
    assert not any(name.startswith(("p2m", "m2p")) for name in model.state_dict())


def test_bands_that_lie_apart_are_read_where_they_lie():
    """A ramp, sampled by each band at its own place, comes back to the PAN grid unshifted, and the other way round."""
    ramp = torch.arange(96.0)[None, None, None, :].expand(1, 3, 96, -1)
    sensor_model = SensorModel(
        GridMapping((4.0, 4.0), (-16.0, -16.0), ((0.0, 0.0), (0.5, 1.25), (0.0, -0.75))), (0.3, 0.3, 0.25)
    )
    ms = to_ms(ramp, (32, 32), sensor_model)
    centre = -16 + (torch.arange(32) + 0.5) * 4 - 0.5
    for band, (_, col) in enumerate(sensor_model.grid.band_shifts):
        assert torch.allclose(ms[0, band, 16, 8:24], (centre + col)[8:24], atol=1e-3)
    back = to_pan(ms, (96, 96), sensor_model)
    assert torch.allclose(back[..., 32:64, 32:64], ramp[..., 32:64, 32:64], atol=1e-3)
    assert [offset for offset, _ in sensor_model.select_bands([1, 1, 0]).grid.bands_by_offset(3)] == [
        (-15.5, -14.75),
        (-16.0, -16.0),
    ]
    assert sensor_model.select_bands([1, 1, 0]).nyquist_gains == (0.3, 0.3, 0.3)


def test_bands_with_shifts_are_fused_like_the_same_bands_moved():
    """A shift of every band is the same as the common offset moved by it."""
    pan, ms = inputs()
    model = small_model()
    moved = SensorModel(GridMapping((4.0, 4.0), (0.5, -1.0)), SENSOR_MODEL.nyquist_gains)
    apart = SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0), ((0.5, -1.0),) * 4), SENSOR_MODEL.nyquist_gains)
    expected = model.fuse(pan, ms, moved, SPECTRUM, iterations=1)
    assert torch.allclose(model.fuse(pan, ms, apart, SPECTRUM, iterations=1), expected, atol=1e-5)
    one = SensorModel(
        GridMapping((4.0, 4.0), (0.0, 0.0), ((0.0, 0.0),) * 3 + ((0.5, -1.0),)), SENSOR_MODEL.nyquist_gains
    )
    assert (model.fuse(pan, ms, one, SPECTRUM, iterations=1) - expected).abs().amax(dim=(0, 2, 3)).min() > 1e-3
