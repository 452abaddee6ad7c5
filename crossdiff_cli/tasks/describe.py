"""Description of a pair before anything is sharpened."""

from collections.abc import Sequence
from typing import Any

from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import PairOptions


def describe(pan: str, ms: Sequence[str], options: PairOptions | None = None) -> dict[str, Any]:
    """Open, check and survey a pair; plain types for JSON.

    Raises:
        SceneError, SensorError: the pair cannot be sharpened, and why.
    """
    with open_pair(pan, ms, options) as pair:
        table = pair.sensor.pan_nyquist_gain
        found = survey(pair.sample_windows(), pair.grid, pair.bands, path=pair.pan.path, pan_nyquist_gain=table)
        delivery = {"delivery": pair.inputs.delivery} if pair.inputs.delivery else {}
        return {
            **delivery,
            "sensor": pair.sensor.key,
            "sensor_from": pair.sensor_source,
            "bands": [band.name for band in pair.bands],
            "wavelengths": [f"{band.center_nm:g} nm" for band in pair.bands],
            "nyquist_gains": [round(gain, 3) for gain in found.nyquist_gains],
            "mtf_source": list(found.mtf_sources),
            "pan_nyquist_gain": round(found.pan_nyquist_gain, 3),
            "pan_mtf_source": found.pan_mtf_source,
            "ratio": round(pair.ratio, 6),
            "pan_size": [pair.pan.shape[1], pair.pan.shape[0]],
            "ms_size": [pair.ms_shape[1], pair.ms_shape[0]],
            "result_size": [pair.footprint.width, pair.footprint.height],
            "dtype": pair.dtype,
            "nodata": pair.nodata,
            "crs": None if pair.crs is None else pair.crs.to_string(),
            "shift_px": [round(found.registration.shift[1], 3), round(found.registration.shift[0], 3)],
            "stretch": [round(value, 6) for value in reversed(found.registration.stretch)],
            "correlation": round(found.registration.correlation, 4),
            "noise": [float(f"{deviation:.3g}") for deviation in found.ms_noise_dn],
            "pan_noise": float(f"{found.pan_noise_dn:.3g}"),
            "aliasing": None if found.intensity is None else round(found.intensity.aliased, 3),
            "notes": pair.notes,
        }
