"""Cameras of real sensors, from the sensor table of CrossDiff; and made-up ones near them."""

import math

import numpy as np

from crossdiff_cli.sensors import find_sensor
from simulator.sensor import WAVELENGTHS, WORLDVIEW_4, Band, Camera, band_average, irradiance

COARSEST_GSD = 0.6
"""Metres. A coarser sensor is simulated at this pixel size: its bands, ratio and MTF, on a town seen from nearer."""

_PAN_GSD = {"wv2": 0.46, "ge1": 0.41, "qb": 0.6, "ik": 0.8, "phr": 0.5, "pneo": 0.3}
_BRIGHT = 0.45
"""Reflectance that fills half of the numbers."""
_ELECTRONS, _READ_NOISE = 30.0, 1.0
_EDGE_JITTER_NM, _GAIN_JITTER = 5.0, 0.03


def camera(key: str, rng: np.random.Generator | None = None) -> Camera:
    """The camera of a sensor of the table; with `rng` one near it: other band edges, MTF gains and noise.

    Bands that lie outside the visible and near infrared (400 to 1000 nm) are left out.

    Raises:
        SensorError: the table has no such sensor.
        ValueError: none of its bands can be simulated.
    """
    if key == WORLDVIEW_4.key and rng is None:
        return WORLDVIEW_4
    sensor = find_sensor(key)
    top = 2**sensor.bit_depth - 1

    def made(name: str, low: float, high: float, gain: float) -> Band:
        if rng is not None:
            low, high = low + _EDGE_JITTER_NM * rng.uniform(-1, 1), high + _EDGE_JITTER_NM * rng.uniform(-1, 1)
            gain = float(np.clip(gain + _GAIN_JITTER * rng.uniform(-1, 1), 0.08, 0.45))
        noise = 1.0 if rng is None else math.exp(0.5 * rng.standard_normal())
        plain = Band(name, low, high, gain, 1.0, 1.0, 1.0)
        direct, sky, _ = irradiance()
        half = float(band_average((direct + sky) * _BRIGHT / math.pi, [plain])[0]) / (top / 2)
        return Band(name, low, high, gain, half, _ELECTRONS / noise, _READ_NOISE * noise * top / WORLDVIEW_4.max_dn)

    bands = sensor.layout(max(len(names) for names in sensor.layouts)) if sensor.layouts else sensor.bands
    edges = [(b, b.center_nm - b.width_nm / 2, b.center_nm + b.width_nm / 2) for b in bands]
    seen = [(b, low, high) for b, low, high in edges if low > WAVELENGTHS[0] - 10 and high < WAVELENGTHS[-1] + 60]
    if not seen:
        raise ValueError(f"{sensor.name} has no band between 400 and 1000 nm")
    return Camera(
        sensor.key,
        tuple(made(b.name, low, high, b.nyquist_gain) for b, low, high in seen),
        made("P", *sensor.pan_nm, sensor.pan_nyquist_gain),
        max(2, round(sensor.ratio)),
        min(_PAN_GSD.get(sensor.key, COARSEST_GSD), COARSEST_GSD),
        top,
    )
