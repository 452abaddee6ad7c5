"""Arrays as temporary GeoTIFFs, whose georeference relates the grids of PAN and MS and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Types of numbers that images are sharpened in."""
_CRS = "EPSG:32631"
_ORIGIN = Affine.translation(500_000, 5_000_000) @ Affine.scale(1, -1)
"""The upper left corner of the PAN, whose pixels are 1 m: any place in the CRS will do."""


def write_array(path: Path, image: np.ndarray[Any, Any], grid: Affine | None = None) -> None:
    """Write (C, H, W) as an uncompressed GeoTIFF; a pixel is missing where any band is masked, or NaN.

    Args:
        path: the file.
        image: of one of `DTYPES`; a masked array or not.
        grid: pixels of the image to PAN pixels; None for the PAN itself.
    """
    count, height, width = image.shape
    floating = np.issubdtype(image.dtype, np.floating)
    missing = np.ma.getmaskarray(image).any(axis=0)
    data = np.ma.getdata(image)
    if floating:
        data = np.where(missing, np.nan, data).astype(image.dtype)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=image.dtype, crs=_CRS,
            transform=_ORIGIN if grid is None else _ORIGIN @ grid, tiled=True, bigtiff="IF_SAFER",
            nodata=np.nan if floating else None,
        ) as file,
    ):  # fmt: skip
        file.write(data)
        if missing.any() and not floating:
            file.write_mask(~missing)


def read_array(path: Path, *, masked: bool) -> np.ndarray[Any, Any]:
    """Read a file as (C, H, W), as a masked array on demand."""
    with rasterio.open(path) as file:
        image: np.ndarray[Any, Any] = file.read(masked=masked)
    return image
