"""What one raster says about its origin: GDAL's metadata domains, band labels, and the vendor's XML beside it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import rasterio
from rasterio._err import CPLE_BaseError

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.documents import leaf, read_facts

_LONGEST_UM = 30.0
"""A wavelength without units below this is in micrometres, else in nanometres."""


@dataclass(frozen=True, slots=True)
class Hints:
    """The evidence in one raster; tuples have one entry per band of the file.

    Attributes:
        path: the name it was opened by.
        imd: GDAL's IMD domain, quotes removed: Maxar IMD, Landsat MTL or DIMAP, as dotted keys.
        imagery: GDAL's IMAGERY domain (`SATELLITEID`, ...).
        tags: tags of the dataset.
        document: the XML beside the raster (DIMAP, GaoFen, ...) as dotted keys; empty when none can be read.
        descriptions: band descriptions, or None.
        wavelengths: (centre, FWHM or None) in nm from the band's tags, or None.
        colors: names of the colour interpretations.
        dtype: data type of the first band.
        sidecars: files that GDAL counts as part of the dataset.
        indexes: the bands in use, counted from 1.
    """

    path: str
    imd: Mapping[str, str] = field(default_factory=dict)
    imagery: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    document: Mapping[str, str] = field(default_factory=dict)
    descriptions: tuple[str | None, ...] = (None,)
    wavelengths: tuple[tuple[float, float | None] | None, ...] = (None,)
    colors: tuple[str, ...] = ("undefined",)
    dtype: str = "uint16"
    sidecars: tuple[str, ...] = ()
    indexes: tuple[int, ...] = (1,)

    def select(self, indexes: Sequence[int]) -> "Hints":
        """Return the same evidence for some of the bands only, `indexes` counted from 1."""
        return replace(self, indexes=tuple(indexes))

    @property
    def name(self) -> str:
        """The file name without folders."""
        return PurePosixPath(self.path.replace("\\", "/")).name

    @property
    def spectral(self) -> tuple[int, ...]:
        """Every band of the file, counted from 1, but for an alpha band that is not in use."""
        return tuple(i for i, color in enumerate(self.colors, start=1) if color.lower() != "alpha" or i in self.indexes)

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield (key, value) of the IMD domain, then of the document, each in its own order."""
        yield from self.imd.items()
        yield from self.document.items()

    def fact(self, name: str) -> str | None:
        """Return the first value whose key ends in `name`, whatever its case and parents."""
        return leaf(self.facts(), name)


def read_hints(dataset: rasterio.DatasetReader) -> Hints:
    """Collect the evidence of an open raster, all of its bands in use. Damaged sidecars count as absent."""
    colors = _colors(dataset)
    wavelengths = tuple(_wavelength(dataset, i) for i in dataset.indexes)
    descriptions = tuple(
        text or dataset.tags(i).get("BAND_DESCRIPTION")
        for i, text in zip(dataset.indexes, dataset.descriptions, strict=True)
    )
    sidecars = _files(dataset)
    return Hints(
        path=dataset.name,
        imd={key: value.strip().strip('"') for key, value in dataset.tags(ns="IMD").items()},
        imagery=dataset.tags(ns="IMAGERY"),
        tags=dataset.tags(),
        document=_read_document(dataset.name, sidecars),
        descriptions=descriptions,
        wavelengths=wavelengths,
        colors=colors,
        dtype=dataset.dtypes[0],
        sidecars=sidecars,
        indexes=tuple(dataset.indexes),
    )


def _colors(dataset: rasterio.DatasetReader) -> tuple[str, ...]:
    try:
        return tuple(color.name for color in dataset.colorinterp)
    except CPLE_BaseError:
        # GDAL reads the sidecars at the first question and reports a damaged one as that question's error, once.
        return tuple(color.name for color in dataset.colorinterp)


def _files(dataset: rasterio.DatasetReader) -> tuple[str, ...]:
    try:
        return tuple(str(name) for name in dataset.files)
    except UnicodeDecodeError:  # a name that is not UTF-8, in a damaged VRT for one
        return ()


def _read_document(name: str, sidecars: Sequence[str]) -> dict[str, str]:
    for path in _documents(name, sidecars):
        with suppress(SceneError):
            return read_facts(path)
    return {}


def _documents(name: str, sidecars: Sequence[str]) -> Iterator[Path]:
    """Local XML files that may describe the raster `name`, the likeliest first."""
    raster = Path(name)
    part = re.sub(r"(?i)^IMG_|_R\d+C\d+$", "", raster.stem)
    beside = (
        raster.with_name(stem + suffix)
        for stem in (raster.stem, f"DIM_{raster.stem}", f"DIM_{part}")
        for suffix in (".xml", ".XML", ".dim", ".DIM")
        if raster.name
    )
    for path in (raster, *map(Path, sidecars), *beside):
        is_xml = path.suffix.lower() in (".xml", ".dim")
        if is_xml and not path.name.lower().endswith(".aux.xml") and not path.name.lower().startswith("rpc_"):
            yield path


def _wavelength(dataset: rasterio.DatasetReader, index: int) -> tuple[float, float | None] | None:
    """Centre and FWHM in nm: GDAL's IMAGERY tags of the band, or its `wavelength`, as of an ENVI header."""
    imagery = dataset.tags(index, ns="IMAGERY")
    if center := _positive(imagery.get("CENTRAL_WAVELENGTH_UM")):
        width = _positive(imagery.get("FWHM_UM"))
        return center * 1000.0, width and width * 1000.0
    told = {key.lower(): value for key, value in dataset.tags(index).items()}
    center, width = _positive(told.get("wavelength") or told.get("central_wavelength")), _positive(told.get("fwhm"))
    if center is None:
        return None
    units = (told.get("wavelength_units") or dataset.tags().get("wavelength_units") or "").lower()
    micrometres = units.startswith("micro") or units == "um" or (not units and center < _LONGEST_UM)
    scale = 1000.0 if micrometres else 1.0
    return center * scale, width and width * scale


def _positive(text: str | None) -> float | None:
    """The first number of a text such as `665.0 Nanometers`."""
    try:
        value = float((text or "").split()[0])
    except (IndexError, ValueError):
        return None
    return value if 0 < value < float("inf") else None
