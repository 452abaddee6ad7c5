"""The Nyquist gains that are estimated on a scene, on pairs blurred in the Fourier domain by a known MTF."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import PAN_GRID, write_raster
from rasterio.transform import Affine

from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import OptionError
from crossdiff_cli.estimate.matching import SampleWindow
from crossdiff_cli.estimate.mtf import estimate_nyquist_gains
from crossdiff_cli.estimate.registration import Registration
from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import EstimateOptions, PairOptions
from crossdiff_cli.quality.files import JudgedFiles

VNIR = (480.0, 550.0, 660.0, 830.0)
BANDS = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


def scene(size: int, seed: int = 0) -> np.ndarray:
    """A periodic image with the amplitude spectrum 1 / f of real scenes, seen by a PAN with the Nyquist gain .15."""
    random = np.random.default_rng(seed)
    rows, cols = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    spectrum = np.fft.rfft2(random.standard_normal((size, size)))
    mtf = 0.15 ** ((2 * rows) ** 2 + (2 * cols) ** 2)
    image = np.fft.irfft2(mtf * spectrum / np.hypot(rows, cols).clip(1 / size), s=(size, size))
    return 1000 + 200 * image / image.std()


def imaged(image: np.ndarray, gain: float, ratio: int, offset: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """MS pixels of a periodic image: the MTF gain^((2 ratio f)^2) per axis, by its definition, then sampled."""
    size = len(image)
    rows, cols = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    gains = gain ** ((2 * ratio * rows) ** 2) * gain ** ((2 * ratio * cols) ** 2)
    row, col = (start + ratio / 2 - 0.5 for start in offset)
    moved = np.exp(2j * np.pi * (rows * row + cols * col))
    return np.fft.irfft2(np.fft.rfft2(image) * gains * moved, s=image.shape)[::ratio, ::ratio]


def view(pan: np.ndarray, ms: list[np.ndarray]) -> SampleWindow:
    mask = torch.ones(ms[0].shape, dtype=torch.bool)
    mask[:3] = mask[-3:] = False  # the operators of the project are not periodic
    mask[:, :3] = mask[:, -3:] = False
    bands = torch.from_numpy(np.stack(ms)).float()
    return SampleWindow(torch.from_numpy(pan)[None, None].float(), bands, mask, (0.0, 0.0), (0.0, 0.0))


@pytest.mark.parametrize(("gain", "ratio"), [(0.12, 2), (0.3, 2), (0.12, 4), (0.3, 4), (0.5, 4)])
def test_a_known_gain_is_found(gain, ratio):
    pan = scene(512)
    found = estimate_nyquist_gains(
        [view(pan, [imaged(pan, gain, ratio)] * 4)], (ratio, ratio), Registration(), 0.0, VNIR
    )
    assert all(band is not None for band in found)
    assert [band.gain for band in found] == pytest.approx([gain] * 4, abs=0.03)


def test_gains_of_single_bands_at_a_shift_of_their_own_under_noise():
    pan, ratio, gains = scene(512), 4, (0.15, 0.25, 0.35, 0.45)
    shifts = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.0), (0.0, -0.75))
    random = np.random.default_rng(1)
    ms = [
        imaged(pan, gain, ratio, (0.4 + row, -0.3 + col)) + random.normal(0, 4, (128, 128))
        for gain, (row, col) in zip(gains, shifts, strict=True)
    ]
    noisy = pan + random.normal(0, 8, pan.shape)
    place = Registration(shift=(0.4, -0.3), correlation=1.0, band_shifts=shifts)
    found = estimate_nyquist_gains([view(noisy, ms)], (ratio, ratio), place, 8.0, VNIR)
    assert [band.gain for band in found] == pytest.approx(gains, abs=0.04)
    for band, gain in zip(found, gains, strict=True):
        assert abs(band.gain - gain) < 3 * band.standard_error + 0.02


def test_a_focal_plane_is_pooled_and_another_one_is_not():
    """A band of noise takes the mean of its focal plane; infrared bands do not see it."""
    pan, ratio = scene(512), 2
    noise = np.random.default_rng(2).normal(1000, 50, (256, 256))
    ms = [imaged(pan, 0.3, ratio), imaged(pan, 0.3, ratio), noise, imaged(pan, 0.4, ratio)]
    found = estimate_nyquist_gains([view(pan, ms)], (ratio, ratio), Registration(), 0.0, (480, 560, 660, 1600))
    assert found[2].gain == pytest.approx(found[0].gain, abs=0.02)
    assert found[3].gain == pytest.approx(0.4, abs=0.05)
    alone = estimate_nyquist_gains([view(pan, ms[2:3])], (ratio, ratio), Registration(), 0.0, (660,))
    assert alone == [None]


def test_what_cannot_be_estimated_is_none():
    pan = scene(256)
    flat = np.full((64, 64), 300.0)
    nothing = [None] * 4
    assert estimate_nyquist_gains([view(pan, [flat] * 4)], (4, 4), Registration(), 0.0, VNIR) == nothing
    near = [imaged(pan, 0.3, 1)] * 4
    assert estimate_nyquist_gains([view(pan, near)], (1.0, 1.0), Registration(), 0.0, VNIR) == nothing
    few = view(pan[:32, :32], [imaged(pan, 0.3, 4)[:8, :8]] * 4)
    assert estimate_nyquist_gains([few], (4, 4), Registration(), 0.0, VNIR) == nothing


@pytest.fixture
def pair(tmp_path):
    """A pair on disk whose MS is that of a sensor with the gain .15, where the table says .3."""
    pan = scene(512)
    ms = np.stack([imaged(pan, 0.15, 4) * level for level in (0.8, 0.9, 1.0, 1.1)])
    return (
        write_raster(tmp_path / "pan.tif", np.rint(pan[None]).astype("uint16"), PAN_GRID),
        write_raster(tmp_path / "ms.tif", np.rint(ms).astype("uint16"), PAN_GRID @ Affine.scale(4)),
    )


def surveyed(files, options: EstimateOptions):
    with open_pair(files[0], [files[1]], BANDS) as opened:
        return survey(opened.sample_windows(), opened.grid, opened.bands, options)


def test_the_survey_takes_scene_table_or_option(pair):
    found = surveyed(pair, EstimateOptions())
    assert found.nyquist_gains == pytest.approx([0.15] * 4, abs=0.03)
    assert found.mtf_sources == ("scene",) * 4
    assert "(estimated on the scene)" in found.describe_mtf()
    table = surveyed(pair, EstimateOptions(mtf="table"))
    assert (table.nyquist_gains, table.mtf_sources) == ((0.3,) * 4, ("table",) * 4)
    given = surveyed(pair, EstimateOptions(mtf=(0.2, 0.21, 0.22, 0.23)))
    assert (given.nyquist_gains, given.mtf_sources) == ((0.2, 0.21, 0.22, 0.23), ("option",) * 4)
    assert surveyed(pair, EstimateOptions(mtf=(0.2,))).nyquist_gains == (0.2,) * 4
    with pytest.raises(OptionError, match=r"number of Nyquist gains .*found 3, expected 4 or 1"):
        surveyed(pair, EstimateOptions(mtf=(0.2, 0.2, 0.2)))
    with pytest.raises(OptionError, match="out of range"):
        EstimateOptions(mtf=(1.5,))


def test_a_pair_without_common_detail_keeps_the_table(pair):
    assert surveyed(pair, EstimateOptions(align=False)).mtf_sources == ("scene",) * 4
    noise = np.random.default_rng(3).integers(0, 1000, (4, 128, 128)).astype("uint16")
    write_raster(pair[1], noise, PAN_GRID @ Affine.scale(4))
    assert surveyed(pair, EstimateOptions()).mtf_sources == ("table",) * 4


def test_the_order_of_bands_in_the_file_does_not_matter(pair, tmp_path):
    pan = scene(512)
    gains = (0.15, 0.2, 0.25, 0.3)
    ms = np.stack([imaged(pan, gain, 4) for gain in gains])
    for names, order in ((("B", "G", "R", "NIR"), (0, 1, 2, 3)), (("NIR", "R", "B", "G"), (3, 2, 0, 1))):
        path = write_raster(tmp_path / "m.tif", np.rint(ms[list(order)]).astype("uint16"), PAN_GRID @ Affine.scale(4))
        with open_pair(pair[0], [path], PairOptions(sensor="vhr", bands=names)) as opened:
            found = survey(opened.sample_windows(), opened.grid, opened.bands)
        assert found.nyquist_gains == pytest.approx([gains[i] for i in order], abs=0.03)


def command(*arguments):
    done = CliRunner().invoke(main, [*map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_commands_take_the_mtf_and_tell_it(pair, tmp_path, small_weights):
    pan, ms = pair
    files = (pan, ms, "--sensor", "vhr", "--bands", "B,G,R,NIR")
    code, out, _ = command("info", *files, "--json")
    told = json.loads(out)
    assert (code, told["mtf_source"]) == (0, ["scene"] * 4)
    assert told["nyquist_gains"] == pytest.approx([0.15] * 4, abs=0.03)
    results = {}
    for mtf in ("auto", "table", "0.15"):
        path = tmp_path / f"{mtf}.tif"
        code, out, _ = command("sharpen", *files, "-o", path, "--weights", small_weights, "--mtf", mtf, "--json")
        assert code == 0
        results[mtf] = json.loads(out)
    assert results["table"]["nyquist_gains"] == [0.3] * 4
    assert results["0.15"]["mtf_source"] == ["option"] * 4
    assert results["auto"]["mtf_source"] == ["scene"] * 4
    code, _, err = command("sharpen", *files, "-o", tmp_path / "x.tif", "--mtf", "sharp")
    assert (code, "neither auto nor table" in err) == (2, True)
    code, _, err = command("sharpen", *files, "-o", tmp_path / "x.tif", "--mtf", "0.2,1.2")
    assert (code, "out of range" in err) == (2, True)
    code, out, _ = command("degrade", *files, "-o", tmp_path / "wald", "--mtf", "table", "--json")
    assert (code, json.loads(out)["nyquist_gains"]) == (0, [0.3] * 4)


def test_a_result_is_judged_by_the_mtf_of_the_scene_and_by_that_of_the_table(pair, tmp_path):
    """The image that the MS was made from agrees with it by the scene's MTF, not by the table's."""
    truth = np.stack([scene(512) * level for level in (0.8, 0.9, 1.0, 1.1)])
    fused = write_raster(tmp_path / "truth.tif", truth.astype("float32"), PAN_GRID)
    with JudgedFiles(fused, pair[0], [pair[1]], None, BANDS) as files:
        report = files.report()
    assert report.r_ergas_table > 3 * report.r_ergas
    assert report.d_lambda_table > report.d_lambda
    assert report.hqnr_table < report.hqnr
    with JudgedFiles(fused, pair[0], [pair[1]], None, BANDS, mtf="table") as files:
        by_table = files.report()
    assert by_table.r_ergas == pytest.approx(report.r_ergas_table)
    assert by_table.d_lambda == pytest.approx(report.d_lambda_table)
    assert by_table.r_ergas_table is None
    assert "R-ERGAS table" not in str(by_table)
    assert "R-ERGAS table" in str(report)
    assert math.isfinite(report.hqnr_table)
