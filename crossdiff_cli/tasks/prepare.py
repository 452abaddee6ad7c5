"""What sharpening begins with: the pair opened, the scene surveyed, the network bound to it, the tiles planned."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from crossdiff_cli.estimate.survey import SceneEstimates, survey
from crossdiff_cli.geometry.window import Tile, Window
from crossdiff_cli.inference.plan import plan_tiles
from crossdiff_cli.inference.run import BoundScene, DeviceWorker, OutputPixels, bind_workers
from crossdiff_cli.io.cache import bounded_cache
from crossdiff_cli.io.extent import chosen_bands, extent_of
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.profile import profile_of
from crossdiff_cli.io.writer import OutputProfile
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.device import choose_devices, exact_float32
from crossdiff_cli.model.spectral import ImageQuality, Spectrum
from crossdiff_cli.model.weights import WeightStore
from crossdiff_cli.options import NetworkOptions, SharpenOptions
from crossdiff_cli.sensors.definitions import file_key
from crossdiff_cli.sensors.table import spectral_order
from crossdiff_cli.system.weight_files import bundled_weights, find_adapted_head

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreparedScene:
    """All that is known of a scene before its first tile is fused."""

    pair: ScenePair
    estimates: SceneEstimates
    extent: Window
    """Part of the PAN that is written."""
    bands: tuple[int, ...]
    """Places of the bands that are written."""
    profile: OutputProfile
    workers: Sequence[DeviceWorker]
    plan: Sequence[Tile]

    def facts(self) -> dict[str, Any]:
        """Sensor, bands, ratio, registration and MTF, in plain types."""
        shift = self.estimates.registration.shift
        return {
            "sensor": self.pair.sensor.key,
            "bands": tuple(band.name for band in self.profile.bands),
            "ratio": self.pair.ratio,
            "shift_px": (round(shift[1], 3), round(shift[0], 3)),
            "nyquist_gains": tuple(round(gain, 3) for gain in self.estimates.nyquist_gains),
            "mtf_source": self.estimates.mtf_sources,
            "pan_nyquist_gain": round(self.estimates.pan_nyquist_gain, 3),
            "pan_mtf_source": self.estimates.pan_mtf_source,
        }


@contextmanager
def prepared(
    pan: str, ms: Sequence[str], options: SharpenOptions, store: WeightStore | None = None
) -> Iterator[PreparedScene]:
    """Open, survey and plan a scene; its files stay open within the context. Arguments as `tasks.sharpen.sharpen`.

    Raises:
        CrossDiffError: any bad input.
    """
    output, runtime, network = options.output, options.runtime, options.network
    devices = choose_devices(runtime.device, runtime.precision, runtime.worker)
    bundled = _load(network, options.pair.sensor, devices, store)
    with bounded_cache([pan, *ms]), exact_float32(devices), open_pair(pan, ms, options.pair) as pair:
        estimates = _survey(pair, options)
        networks, tuned = _fine_tuned(network, pair, estimates, bundled, devices)
        _check_stage(networks[0], pair)
        extent = extent_of(pair, output.extent, output.bounds, output.bounds_crs)
        bands = chosen_bands(pair, output.bands)
        tags = {**estimates.tags(), **tuned, "CROSSDIFF_WEIGHTS": bundled[0][1]}
        profile = profile_of(pair, extent, bands, output.dtype, output.driver, output.creation, tags=tags)
        pixels = OutputPixels(tuple(bands), profile.dtype, profile.nodata)
        workers = bind_workers(networks, _bound(pair, estimates, pixels), devices, runtime, network.iterations)
        plan = plan_tiles(extent, networks[0], estimates, workers, network.iterations, runtime.tile)
        yield PreparedScene(pair, estimates, extent, tuple(bands), profile, workers, plan)


def _load(
    network: NetworkOptions, sensor: str, devices: Sequence[torch.device], store: WeightStore | None
) -> list[tuple[CrossDiff, str]]:
    """Load the network on every device; return each with the digest of its weights."""
    adapted = None if sensor == "auto" else find_adapted_head(file_key(sensor))
    path, store = network.weights or adapted or bundled_weights(), store or WeightStore(keep=len(devices))
    return [store.get(path, device) for device in devices]


def _survey(pair: ScenePair, options: SharpenOptions) -> SceneEstimates:
    """Estimate what the scene tells of itself, and log it."""
    estimates = survey(
        pair.sample_windows(), pair.grid, pair.bands, options.estimate, pair.pan.path, pair.sensor.pan_nyquist_gain
    )
    if pair.inputs.delivery:
        _log.info("%s", pair.inputs.delivery)
    bands = ",".join(band.name for band in pair.bands)
    _log.info("%s (%s), bands %s, ratio %.4g", pair.sensor.name, pair.sensor_source, bands, pair.ratio)
    if estimates.registration.correlation:
        _log.info("%s", estimates.registration.describe(pair.footprint.shape))
    if shifts := estimates.describe_band_shifts():
        _log.info("offset of single bands beyond that (x,y in PAN px): %s, corrected", shifts)
    _log.info("%s", estimates.describe_mtf())
    if levels := estimates.describe_noise():
        _log.info("noise (standard deviation, DN): %s; weaker detail is suppressed", levels)
    if aliasing := estimates.describe_aliasing():
        _log.info("%s (aliasing, noise): it is corrected (--aliasing off keeps it)", aliasing)
    return estimates


def _fine_tuned(
    network: NetworkOptions,
    pair: ScenePair,
    estimates: SceneEstimates,
    bundled: Sequence[tuple[CrossDiff, str]],
    devices: Sequence[torch.device],
) -> tuple[list[CrossDiff], Mapping[str, str]]:
    """Fine-tune the fusion head on the scene if asked; return the network of every device, and tags that say so."""
    first = bundled[0][0]
    if network.fine_tune_steps:
        from crossdiff_cli.training.zero_shot import fine_tune

        first = fine_tune(pair, estimates, first, network.fine_tune_steps)
    if first is bundled[0][0]:
        return [model for model, _ in bundled], {}
    tags = {"CROSSDIFF_ADAPTED": f"{network.fine_tune_steps} steps"}
    return [first, *(copy.deepcopy(first).to(device) for device in devices[1:])], tags


def _check_stage(model: CrossDiff, pair: ScenePair) -> None:
    """Warn where the head was adapted to a sensor's bands and the scene has others."""
    stage = model.head.stage
    if stage is not None and not stage.fits(torch.tensor([band.center_nm for band in pair.bands])):
        _log.warning(
            "the head was adapted to bands at %s nm, this scene has %s: its sensor stage is left out",
            ", ".join(f"{center:.0f}" for center in stage.center_nm),
            ", ".join(f"{band.name} at {band.center_nm:.0f}" for band in pair.bands),
        )


def _bound(pair: ScenePair, estimates: SceneEstimates, output: OutputPixels) -> BoundScene:
    order = spectral_order(pair.bands)
    bands = [pair.bands[i] for i in order]
    return BoundScene(
        order=tuple(order),
        path=pair.pan.path,
        spectrum=Spectrum.of(
            [(band.center_nm, band.width_nm) for band in bands],
            pair.sensor.pan_nm,
            pair.ratio,
            ImageQuality.of(
                [estimates.nyquist_gains[i] for i in order],
                [estimates.ms_noise[i] for i in order],
                estimates.pan_nyquist_gain,
                estimates.pan_noise,
            ),
        ),
        normalisation=estimates.normalisation.select(order),
        nyquist_gains=tuple(estimates.nyquist_gains[i] for i in order),
        sensor_model=lambda patch: estimates.sensor_model(patch).select_bands(order),
        output=output,
    )
