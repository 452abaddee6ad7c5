"""PAN, MS and result side by side as a PNG: `python quicklook.py FUSED [-o quicklook.png]`, for the example scene."""

import argparse
import warnings
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

HERE = Path(__file__).parent
ROW, COLUMN, SIZE = 100, 300, 320
GAP = 8


def stretch(image: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring (bands, rows, cols) to [0, 1] between the 1st and 99.5th percentile of each band of `whole`."""
    low, high = np.percentile(whole, [1, 99.5], axis=(1, 2))[..., None, None]
    return np.clip((image - low) / (high - low), 0, 1) ** 0.8


def panels(fused: Path) -> list[NDArray[np.float64]]:
    """PAN, MS in true colour, result in true and in false colour: (3, SIZE, SIZE) each, in [0, 1]."""
    with rasterio.open(HERE / "pan.tif") as pan, rasterio.open(HERE / "ms.tif") as ms, rasterio.open(fused) as result:
        images = [file.read().astype(float) for file in (pan, ms, result)]
    pan_image, ms_image, result_image = images
    area = (slice(None), slice(ROW, ROW + SIZE), slice(COLUMN, COLUMN + SIZE))
    coarse = ms_image.repeat(4, axis=1).repeat(4, axis=2)
    true, false = [2, 1, 0], [3, 2, 1]
    return [
        stretch(pan_image[area], pan_image).repeat(3, axis=0),
        stretch(coarse[true][area], ms_image[true]),
        stretch(result_image[true][area], ms_image[true]),
        stretch(result_image[false][area], ms_image[false]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fused", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "quicklook.png")
    arguments = parser.parse_args()
    gap = np.ones((3, SIZE, GAP))
    parts = [part for panel in panels(arguments.fused) for part in (panel, gap)][:-1]
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    picture = np.rint(np.concatenate(parts, axis=2) * 255).astype("uint8")
    shape = {"count": 3, "height": picture.shape[1], "width": picture.shape[2], "dtype": "uint8"}
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.open(arguments.output, "w", driver="PNG", **shape) as file:
        file.write(picture)


if __name__ == "__main__":
    main()
