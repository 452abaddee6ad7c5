"""The pictures of a page: an overview and the hardest places, each as layers that lie exactly over each other."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.png import png
from crossdiff_cli.quality.files import JudgedFiles
from crossdiff_cli.quality.inputs import read
from crossdiff_cli.report.colour import Stretch, composites, stretch
from crossdiff_cli.report.hotspots import Place
from crossdiff_cli.report.rivals import rival_picture

OVERVIEW = 1024
"""Longer side of the overview in pixels, at most."""

Image = tuple[NDArray[np.float32], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Layer:
    """One image of a view, one picture per composite; a layer of one picture shows it for all of them.

    Attributes:
        pictures: PNG data URIs by composite.
        box: left, top, width and height in per cent of the view.
    """

    pictures: Mapping[str, str]
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class MapView:
    """A part of the scene.

    Attributes:
        title: short name.
        note: why it is shown.
        size: width and height in PAN pixels.
        sharp: show pixels as squares.
        layers: by name, `MS`, `PAN`, `Result` and perhaps a baseline.
    """

    title: str
    note: str
    size: tuple[int, int]
    sharp: bool
    layers: Mapping[str, Layer] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        layers = {name: {"src": dict(layer.pictures), "box": layer.box} for name, layer in self.layers.items()}
        return {"title": self.title, "note": self.note, "size": self.size, "sharp": self.sharp, "layers": layers}


@dataclass(frozen=True, slots=True)
class Palette:
    """How bands are shown, alike in all layers of a view: composites by title, grey levels of the bands and of PAN."""

    composites: Mapping[str, tuple[int, int, int]]
    bands: Stretch
    pan: Stretch


@dataclass(frozen=True, slots=True)
class Samples:
    """The whole scene, reduced: what the overview and the histograms are made from."""

    fused: Image
    pan: Image
    ms: Image


def sample(files: JudgedFiles) -> Samples:
    """Read result, PAN and MS no larger than the overview."""
    extent, under = files.extent, files.under
    shape = _fit(extent.shape)
    inside = Window(extent.row - files.place.row, extent.col - files.place.col, *extent.shape)
    parts = [raster.read_reduced(under, _fit(under.shape)) for raster in files.pair.ms]
    ms = np.concatenate([data for data, _ in parts]), np.logical_and.reduce([mask for _, mask in parts])
    return Samples(files.fused.read_reduced(inside, shape), files.pair.pan.read_reduced(extent, shape), ms)


def palette(files: JudgedFiles, samples: Samples) -> Palette:
    """The contrast comes from the MS alone, so that a result that is off looks off."""
    return Palette(composites(files.pair.bands), stretch(*samples.ms), stretch(*samples.pan))


def overview(files: JudgedFiles, samples: Samples, colours: Palette) -> MapView:
    """The whole scene."""
    whole = Window(0, 0, *files.extent.shape)
    reduced = samples.fused[1].shape != files.extent.shape
    layers = {
        "MS": Layer(_coloured(samples.ms, colours), _ms_box(files, whole, Window(0, 0, *files.under.shape))),
        "PAN": Layer(_grey(samples.pan, colours), (0, 0, 100, 100)),
        "Result": Layer(_coloured(samples.fused, colours), (0, 0, 100, 100)),
    }
    note = "The whole result" + (", reduced: open a place to see the pixels." if reduced else ", every pixel.")
    return MapView("Overview", note, (files.extent.width, files.extent.height), False, layers)


def close_up(files: JudgedFiles, place: Place, number: int, colours: Palette, rival: str) -> MapView:
    """A place at full resolution, with what a baseline makes of it."""
    judged, window = files.judged, place.window
    around = judged.grid.ms_window(window, 0).intersection(Window(0, 0, *judged.ms_shape)) or Window(0, 0, 1, 1)
    fused, pan, ms = (
        (image.numpy().astype(np.float32), mask.numpy())
        for image, mask in (read(judged.fused, window), read(judged.pan, window), read(judged.ms, around))
    )
    colours = replace(colours, bands=colours.bands.near(stretch(*ms)), pan=colours.pan.near(stretch(*pan)))
    classical = rival_picture(judged, window, rival).numpy().astype(np.float32), fused[1]
    whole = (0.0, 0.0, 100.0, 100.0)
    layers = {
        "MS": Layer(_coloured(ms, colours), _ms_box(files, window, around)),
        "PAN": Layer(_grey(pan, colours), whole),
        "Result": Layer(_coloured(fused, colours), whole),
        rival: Layer(_coloured(classical, colours), whole),
    }
    note = (
        f"Detail is hardest here: the correlation with PAN is {place.figure:.3f}."
        if place.kind == "detail"
        else f"Colour is hardest here: degraded, the result misses the MS by {place.figure:.2%}."
    )
    return MapView(f"{place.kind.capitalize()} {number}", note, (window.width, window.height), True, layers)


def data_uri(levels: NDArray[np.uint8]) -> str:
    """A PNG that lies in the page itself."""
    return "data:image/png;base64," + base64.b64encode(png(levels)).decode("ascii")


def _coloured(image: Image, colours: Palette) -> dict[str, str]:
    return {
        title: data_uri(colours.bands.picture(*image, bands if len(set(bands)) == 3 else bands[:1]))
        for title, bands in colours.composites.items()
    }


def _grey(image: Image, colours: Palette) -> dict[str, str]:
    return {"": data_uri(colours.pan.picture(*image))}


def _fit(shape: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, OVERVIEW / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _ms_box(files: JudgedFiles, window: Window, around: Window) -> tuple[float, float, float, float]:
    """Where MS pixels lie on a window of the judged extent, in per cent of it."""
    row, col = files.judged.grid.local_offset(window, around)
    rows, cols = files.judged.grid.ratio
    return (
        round(100 * col / window.width, 4),
        round(100 * row / window.height, 4),
        round(100 * around.width * cols / window.width, 4),
        round(100 * around.height * rows / window.height, 4),
    )


_ERROR_RAMP = ((250, 247, 240), (253, 219, 161), (247, 159, 84), (221, 84, 51), (148, 26, 62), (61, 8, 51))
_CORRELATION_RAMP = ((52, 12, 84), (66, 63, 133), (48, 110, 140), (46, 158, 130), (124, 203, 92), (247, 230, 60))
RAMPS = {"error": _ERROR_RAMP, "correlation": _CORRELATION_RAMP}


def map_picture(values: torch.Tensor, ramp: str, low: float, high: float) -> str:
    """Colours of (rows, columns); what is not finite is transparent."""
    stops = np.array(RAMPS[ramp], np.float64)
    known = np.isfinite(values.numpy())
    at = np.clip((np.nan_to_num(values.numpy()) - low) / max(high - low, 1e-12), 0, 1) * (len(stops) - 1)
    levels = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return data_uri(np.rint(np.stack([*levels, 255.0 * known])).astype(np.uint8))
