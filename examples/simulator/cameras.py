"""Cameras of real sensors, from the sensor table of CrossDiff; and simulated ones near them."""

import math

import numpy as np

from crossdiff_cli.sensors.table import find_sensor
from simulator.sensor import WAVELENGTHS, WORLDVIEW_4, Band, Camera, band_average, irradiance

COARSEST_GSD = 2.0
"""Metres. A coarser sensor is simulated at this pixel size: its bands, ratio and MTF, on a town seen from nearer."""
LEAST_RATIO = 2
"""A sensor of a smaller ratio (SkySat, whose products have one pixel size) is simulated at this one."""

PAN_GSD = {
    "qb": 0.61, "ik": 0.82, "ge1": 0.41, "wv2": 0.46, "wv3": 0.31, "wv4": 0.31, "lg": 0.34, "phr": 0.5, "pneo": 0.3,
    "spot6": 1.5, "spot7": 1.5, "gf1": 2.0, "gf2": 0.8, "skysat": 0.5, "kompsat3a": 0.55, "sv1": 0.5, "triplesat": 0.8,
    "geosat2": 0.75, "vision1": 0.9, "cbers4a": 2.0, "l7": 15.0, "l8": 15.0, "l9": 15.0, "vhr": 0.5, "generic": 0.5,
}  # fmt: skip
"""Metres, as delivered or at nadir, of every sensor of the table; those that are no one sensor have a usual size."""
_BRIGHT = 0.45
"""Reflectance that fills half of the numbers."""
_FULL_WELL = 30.0 * WORLDVIEW_4.max_dn
"""Photo-electrons at the top of the range, whatever the bits that number it."""
_READ_NOISE = 1.0 / WORLDVIEW_4.max_dn
"""Of the range."""
_EDGE_JITTER_NM, _GAIN_JITTER = 5.0, 0.03


def camera(key: str, rng: np.random.Generator | None = None) -> Camera:
    """The camera of a sensor of the table; with `rng` one near it: other band edges, MTF gains and noise.

    Bands that lie outside the visible and near infrared (400 to 1000 nm) are left out.

    Raises:
        SensorError: the table has no such sensor.
        ValueError: none of its bands can be simulated.
    """
    sensor = find_sensor(key)
    if sensor.key == WORLDVIEW_4.key and rng is None:
        return WORLDVIEW_4
    top = 2**sensor.bit_depth - 1

    def made(name: str, low: float, high: float, gain: float) -> Band:
        if rng is not None:
            low, high = low + _EDGE_JITTER_NM * rng.uniform(-1, 1), high + _EDGE_JITTER_NM * rng.uniform(-1, 1)
            gain = float(np.clip(gain + _GAIN_JITTER * rng.uniform(-1, 1), 0.08, 0.45))
        noise = 1.0 if rng is None else math.exp(0.5 * rng.standard_normal())
        plain = Band(name, low, high, gain, 1.0, 1.0, 1.0)
        direct, sky, _ = irradiance()
        half = float(band_average((direct + sky) * _BRIGHT / math.pi, [plain])[0]) / (top / 2)
        return Band(name, low, high, gain, half, _FULL_WELL / top / noise, _READ_NOISE * top * noise)

    bands = sensor.layout(max(len(names) for names in sensor.layouts)) if sensor.layouts else sensor.bands
    edges = [(b, b.center_nm - b.width_nm / 2, b.center_nm + b.width_nm / 2) for b in bands]
    seen = [(b, low, high) for b, low, high in edges if low > WAVELENGTHS[0] - 10 and high < WAVELENGTHS[-1] + 60]
    if not seen:
        raise ValueError(f"{sensor.name} has no band between 400 and 1000 nm")
    return Camera(
        sensor.key,
        tuple(made(b.name, low, high, b.nyquist_gain) for b, low, high in seen),
        made("P", *sensor.pan_nm, sensor.pan_nyquist_gain),
        max(LEAST_RATIO, round(sensor.ratio)),
        min(PAN_GSD[sensor.key], COARSEST_GSD),
        top,
    )


def departures(camera: Camera) -> list[str]:
    """One line for each way in which a camera is knowingly not its sensor."""
    sensor, lines = find_sensor(camera.key), []
    if camera.ratio != sensor.ratio:
        lines.append(
            f"{sensor.name} is simulated at ratio {camera.ratio}: at ratio {sensor.ratio:g}, that of its products, "
            "there is nothing to sharpen"
        )
    if camera.pan_gsd != PAN_GSD[sensor.key]:
        lines.append(
            f"{sensor.name} is simulated with PAN pixels of {camera.pan_gsd:g} m, not {PAN_GSD[sensor.key]:g} m, in "
            "which nothing of the town would show"
        )
    return lines
