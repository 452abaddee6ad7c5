"""Light, materials and camera: from reflectance spectra to the digital numbers of a sensor."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

WAVELENGTHS = np.arange(400.0, 1001.0, 5.0)
"""Grid on which spectra are integrated, nm."""

SUPERSAMPLING = 2
"""Least number of ground samples per PAN pixel along each axis."""
COARSEST_SAMPLE = 0.31
"""Metres between ground samples at most: cars, kerbs and painted lines need them."""

SUN_AZIMUTH = 151.4
SUN_ELEVATION = 49.2
EDGE_NM = 3.0
"""Width over which a band's response falls off at either end, nm."""


@dataclass(frozen=True, slots=True)
class Band:
    """One detector line: passband in nm, gain of the whole camera at its own Nyquist frequency, electrons and noise."""

    name: str
    low: float
    high: float
    nyquist_gain: float
    radiance_per_dn: float
    electrons_per_dn: float
    read_noise_dn: float

    def response(self) -> NDArray[np.float64]:
        """Spectral response at WAVELENGTHS, 0..1, with soft edges."""
        rise = 1.0 / (1.0 + np.exp(-(WAVELENGTHS - self.low) / EDGE_NM))
        fall = 1.0 / (1.0 + np.exp((WAVELENGTHS - self.high) / EDGE_NM))
        return np.asarray(rise * fall)


MS_BANDS = (
    Band("B", 450.0, 510.0, 0.23, 0.225, 34.0, 1.0),
    Band("G", 510.0, 580.0, 0.23, 0.205, 34.0, 1.0),
    Band("R", 655.0, 690.0, 0.23, 0.170, 30.0, 1.0),
    Band("N", 780.0, 920.0, 0.23, 0.120, 34.0, 1.0),
)
PAN_BAND = Band("P", 450.0, 800.0, 0.16, 0.165, 18.0, 1.2)
BANDS = (*MS_BANDS, PAN_BAND)


@dataclass(frozen=True, slots=True)
class Camera:
    """An instrument: its MS bands in file order, its PAN band, and how both sample the ground."""

    key: str
    ms: tuple[Band, ...]
    pan: Band
    ratio: int
    """MS pixels over PAN pixels along each axis."""
    pan_gsd: float
    """Metres."""
    max_dn: int

    @property
    def bands(self) -> tuple[Band, ...]:
        """The MS bands, and the PAN band last."""
        return (*self.ms, self.pan)

    @property
    def supersampling(self) -> int:
        """Ground samples per PAN pixel along each axis."""
        return max(SUPERSAMPLING, math.ceil(self.pan_gsd / COARSEST_SAMPLE))


WORLDVIEW_4 = Camera("wv4", MS_BANDS, PAN_BAND, 4, 0.31, 2047)

_NODES = (400, 450, 500, 550, 600, 650, 680, 700, 720, 750, 800, 900, 1000)
_SPECTRA: dict[str, tuple[float, ...]] = {
    "crop": (0.03, 0.035, 0.045, 0.09, 0.055, 0.04, 0.032, 0.07, 0.20, 0.42, 0.50, 0.53, 0.53),
    "lawn": (0.035, 0.045, 0.055, 0.105, 0.08, 0.065, 0.055, 0.10, 0.21, 0.35, 0.40, 0.43, 0.44),
    "dry_grass": (0.05, 0.065, 0.095, 0.14, 0.165, 0.175, 0.175, 0.205, 0.25, 0.30, 0.33, 0.36, 0.38),
    "broadleaf": (0.028, 0.033, 0.043, 0.092, 0.062, 0.047, 0.037, 0.07, 0.19, 0.41, 0.48, 0.50, 0.50),
    "conifer": (0.015, 0.02, 0.026, 0.046, 0.033, 0.026, 0.022, 0.04, 0.10, 0.20, 0.25, 0.27, 0.28),
    "blossom": (0.12, 0.16, 0.19, 0.23, 0.23, 0.23, 0.225, 0.24, 0.31, 0.41, 0.46, 0.48, 0.48),
    "rapeseed": (0.035, 0.045, 0.085, 0.22, 0.225, 0.20, 0.185, 0.21, 0.31, 0.44, 0.50, 0.52, 0.52),
    "soil": (0.05, 0.066, 0.088, 0.112, 0.135, 0.155, 0.162, 0.167, 0.175, 0.188, 0.208, 0.24, 0.26),
    "pale_soil": (0.115, 0.148, 0.188, 0.226, 0.256, 0.277, 0.285, 0.29, 0.30, 0.315, 0.335, 0.365, 0.385),
    "gravel": (0.13, 0.155, 0.18, 0.20, 0.215, 0.225, 0.228, 0.23, 0.233, 0.237, 0.243, 0.25, 0.255),
    "asphalt": (0.068, 0.076, 0.085, 0.092, 0.098, 0.103, 0.105, 0.107, 0.108, 0.111, 0.115, 0.122, 0.13),
    "concrete": (0.17, 0.205, 0.24, 0.265, 0.285, 0.295, 0.30, 0.303, 0.306, 0.31, 0.315, 0.32, 0.325),
    "red_tile": (0.045, 0.055, 0.07, 0.10, 0.19, 0.25, 0.265, 0.275, 0.28, 0.29, 0.30, 0.32, 0.34),
    "brown_tile": (0.045, 0.05, 0.058, 0.072, 0.098, 0.12, 0.127, 0.13, 0.133, 0.14, 0.15, 0.165, 0.18),
    "slate": (0.10, 0.11, 0.118, 0.122, 0.124, 0.125, 0.125, 0.125, 0.126, 0.127, 0.13, 0.134, 0.14),
    "bitumen": (0.052, 0.056, 0.06, 0.064, 0.068, 0.071, 0.072, 0.073, 0.074, 0.076, 0.08, 0.086, 0.092),
    "metal": (0.36, 0.42, 0.46, 0.48, 0.49, 0.49, 0.49, 0.488, 0.485, 0.48, 0.47, 0.455, 0.46),
    "membrane": (0.40, 0.58, 0.63, 0.65, 0.66, 0.66, 0.66, 0.66, 0.655, 0.65, 0.645, 0.62, 0.60),
    "blue_metal": (0.15, 0.25, 0.23, 0.14, 0.085, 0.075, 0.08, 0.09, 0.105, 0.15, 0.24, 0.31, 0.33),
    "white_paint": (0.35, 0.53, 0.57, 0.58, 0.59, 0.59, 0.59, 0.59, 0.585, 0.58, 0.575, 0.56, 0.55),
    "silver_paint": (0.22, 0.255, 0.265, 0.268, 0.268, 0.266, 0.265, 0.264, 0.263, 0.26, 0.258, 0.255, 0.25),
    "yellow_paint": (0.04, 0.045, 0.10, 0.36, 0.48, 0.51, 0.52, 0.52, 0.52, 0.52, 0.52, 0.52, 0.52),
    "red_paint": (0.03, 0.032, 0.034, 0.04, 0.15, 0.31, 0.35, 0.365, 0.375, 0.385, 0.395, 0.41, 0.42),
    "dark_paint": (0.03, 0.03, 0.03, 0.031, 0.031, 0.032, 0.033, 0.034, 0.035, 0.037, 0.04, 0.045, 0.05),
    "solar_panel": (0.055, 0.052, 0.042, 0.036, 0.033, 0.031, 0.03, 0.03, 0.03, 0.03, 0.03, 0.032, 0.06),
    "river": (0.030, 0.040, 0.053, 0.062, 0.040, 0.027, 0.022, 0.019, 0.012, 0.009, 0.008, 0.004, 0.002),
    "pool": (0.22, 0.34, 0.40, 0.34, 0.10, 0.055, 0.045, 0.035, 0.022, 0.014, 0.012, 0.007, 0.004),
    "clay_court": (0.05, 0.06, 0.075, 0.11, 0.20, 0.245, 0.255, 0.26, 0.265, 0.275, 0.29, 0.31, 0.32),
}
"""Reflectance of each material at the _NODES, in nm; linear in between."""

_SUN_NODES = (400, 450, 500, 550, 600, 650, 700, 750, 800, 850, 900, 950, 1000)
_SUN_IRRADIANCE = (1690, 2070, 1930, 1880, 1770, 1610, 1420, 1270, 1120, 990, 910, 820, 745)
"""Exo-atmospheric, W m-2 um-1."""


def reflectance(material: str) -> NDArray[np.float64]:
    """Reflectance spectrum of a material at WAVELENGTHS, 0..1."""
    return np.asarray(np.interp(WAVELENGTHS, _NODES, _SPECTRA[material]))


def irradiance() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return direct and sky irradiance on flat ground and path radiance, each at WAVELENGTHS (per um).

    A single-scattering clear sky: Rayleigh and haze optical depths, the water line and the oxygen line.
    """
    um = WAVELENGTHS / 1000.0
    cos_zenith = math.sin(math.radians(SUN_ELEVATION))
    rayleigh = 0.00877 * um**-4.05
    haze = 0.12 * (um / 0.55) ** -1.3
    gas = 0.25 * np.exp(-(((WAVELENGTHS - 942.0) / 18.0) ** 2)) + 0.3 * np.exp(-(((WAVELENGTHS - 762.0) / 4.0) ** 2))
    top = np.interp(WAVELENGTHS, _SUN_NODES, _SUN_IRRADIANCE) * cos_zenith * np.exp(-gas / cos_zenith)
    direct = top * np.exp(-(rayleigh + haze) / cos_zenith)
    sky = top * (0.5 * (1.0 - np.exp(-rayleigh / cos_zenith)) + 0.75 * (1.0 - np.exp(-haze / cos_zenith)))
    path = top / math.pi * (rayleigh * 1.05 + haze * 0.25) / (4.0 * cos_zenith)
    return direct, sky, path


def _upward_transmission() -> NDArray[np.float64]:
    um = WAVELENGTHS / 1000.0
    return np.asarray(np.exp(-0.5 * 0.00877 * um**-4.05 - 0.25 * 0.12 * (um / 0.55) ** -1.3))


def band_average(spectrum: NDArray[np.float64], bands: Sequence[Band] = BANDS) -> NDArray[np.float64]:
    """Average a spectral radiance at WAVELENGTHS over the response of each band; shape (bands,)."""
    responses = np.stack([band.response() for band in bands])
    return np.asarray(responses @ spectrum / responses.sum(axis=1))


def material_light(bands: Sequence[Band] = BANDS) -> dict[str, Floats]:
    """Band radiance at the sensor of each material, flat and unshadowed: (2, bands), from the sun and from the sky."""
    direct, sky, _ = irradiance()
    up = _upward_transmission() / math.pi

    def seen(name: str) -> Floats:
        both = [band_average(light * up * reflectance(name), bands) for light in (direct, sky)]
        return np.stack(both).astype(np.float32)

    return {name: seen(name) for name in _SPECTRA}


def path_radiance(bands: Sequence[Band] = BANDS) -> Floats:
    """Radiance the air adds in each band; shape (bands,)."""
    return band_average(irradiance()[2], bands).astype(np.float32)


def _camera_matrix(samples: int, pixel: int, margin: int, nyquist_gain: float, shift: float) -> Floats:
    """Weights (pixels, samples): detector footprint of `pixel` samples, blurred until the Nyquist gain is met.

    The footprint alone passes 2/pi at Nyquist; the Gaussian of optics and motion supplies the rest. The fraction of the
    shift moves the Gaussian, so that it is exact and leaves the gain as it is.
    """
    whole = round(shift)
    fraction = shift - whole
    footprint_gain = float(np.abs(np.exp(1j * np.pi * np.arange(pixel) / pixel).mean()))
    sigma = pixel * math.sqrt(-2.0 * math.log(nyquist_gain / footprint_gain)) / math.pi
    reach = math.ceil(4.0 * sigma) + (fraction != 0.0)
    gaussian = np.exp(-0.5 * ((np.arange(-reach, reach + 1) - fraction) / sigma) ** 2)
    kernel = np.convolve(gaussian / gaussian.sum(), np.full(pixel, 1.0 / pixel))
    count = (samples - 2 * margin) // pixel
    matrix = np.zeros((count, samples), dtype=np.float32)
    for row in range(count):
        start = margin + row * pixel + whole - reach
        matrix[row, start : start + len(kernel)] = kernel
    return matrix


def image_band(
    radiance: Floats, pixel: int, margin: int, nyquist_gain: float, shift: tuple[float, float] = (0.0, 0.0)
) -> Floats:
    """See a ground radiance (H, W) through the camera.

    Args:
        radiance: (H, W), with `margin` samples on every side that lie outside the picture.
        pixel: ground samples per picture pixel along each axis.
        margin: samples to leave out, at least 4 sigma of the blur and the shift.
        nyquist_gain: transfer of the whole camera (optics and footprint) at half a cycle per pixel.
        shift: how far the pixels lie from their nominal place, in ground samples (rows, columns), whole or not.

    Returns:
        ((H - 2 margin) / pixel, (W - 2 margin) / pixel) radiance.
    """
    rows = _camera_matrix(radiance.shape[0], pixel, margin, nyquist_gain, shift[0])
    columns = _camera_matrix(radiance.shape[1], pixel, margin, nyquist_gain, shift[1])
    return np.asarray(rows @ radiance @ columns.T, dtype=np.float32)


def digitise(
    radiance: Floats, band: Band, rng: np.random.Generator, max_dn: int = WORLDVIEW_4.max_dn
) -> NDArray[np.uint16]:
    """Radiance to numbers from 1 to `max_dn`, with the photon noise and the read noise of the band."""
    dn = radiance.astype(np.float64) / band.radiance_per_dn
    deviation = np.sqrt(np.maximum(dn, 0.0) / band.electrons_per_dn + band.read_noise_dn**2)
    noisy = dn + deviation * rng.standard_normal(dn.shape)
    return np.clip(np.rint(noisy), 1, max_dn).astype(np.uint16)
