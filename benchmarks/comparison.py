"""The picture of the README: PAN, MS, gdal_pansharpen and CrossDiff on a scene under an open licence, pixel by pixel.

    python benchmarks/comparison.py index.json -o docs/comparison.png

`gdal_pansharpen` is GDAL's own pansharpened VRT, which that command writes. The scene is WorldView-2 over Rotterdam
(SpaceNet 6, CC BY-SA 4.0), of the split `validation`: no weights have seen it.
"""

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

import crossdiff_cli
from crossdiff_cli.options import OutputOptions, PairOptions, SharpenOptions

SCENE, RATIO = "worldview2_spacenet6_rotterdam2", 4
SHOWN = [2, 1, 0]
"""Places of the bands that are shown as red, green and blue."""
CROPS = ((400, 335), (448, 84))
"""Upper left pixels (row, column)."""
SIDE, ZOOM, GAP = 148, 2, 8

Image = NDArray[np.float64]


def gdal_pansharpen(pan: Path, ms: Path, bands: int) -> Image:
    """The bands (C, H, W) of GDAL's weighted Brovey with cubic interpolation, all bands of equal weight."""
    listed = "".join(
        f'<SpectralBand dstBand="{n}"><SourceFilename>{ms}</SourceFilename><SourceBand>{n}</SourceBand></SpectralBand>'
        for n in range(1, bands + 1)
    )
    vrt = f"""<VRTDataset subClass="VRTPansharpenedDataset"><PansharpeningOptions><Resampling>Cubic</Resampling>
        <PanchroBand><SourceFilename>{pan}</SourceFilename><SourceBand>1</SourceBand></PanchroBand>{listed}
        </PansharpeningOptions></VRTDataset>"""
    with MemoryFile(vrt.encode(), ext="vrt") as memory, memory.open() as file:
        return file.read().astype(float)


def crossdiff(pan: Path, ms: Path, pair: PairOptions) -> Image:
    """The bands (C, H, W) of `crossdiff sharpen --extent pan`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "fused.tif"
        crossdiff_cli.sharpen(pan, [ms], out, SharpenOptions(pair, output=OutputOptions(extent="pan")))
        return _read(out)


def _read(path: Path) -> Image:
    with rasterio.open(path) as file:
        return file.read().astype(float)


def _stretch(image: Image, like: Image) -> Image:
    low, high = np.percentile(like, [1, 99], axis=(1, 2))[..., None, None]
    return np.clip((image - low) / (high - low), 0, 1) ** 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    listed = json.loads(arguments.index.read_text())
    (scene,) = [s for s in (listed if isinstance(listed, list) else listed["scenes"]) if s["name"] == SCENE]
    pan, ms = (arguments.index.parent / scene["files"][kind] for kind in ("pan", "ms"))
    coarse = _read(ms).repeat(RATIO, axis=1).repeat(RATIO, axis=2)
    pair = PairOptions(sensor=scene["sensor"], bands=tuple(scene["bands"]))
    images = [image[SHOWN] for image in (coarse, gdal_pansharpen(pan, ms, len(coarse)), crossdiff(pan, ms, pair))]
    rows = []
    for top, left in CROPS:
        area = (slice(None), slice(top, top + SIDE), slice(left, left + SIDE))
        grey = _read(pan)[area]
        panels = [_stretch(grey, grey).repeat(3, axis=0)] + [_stretch(i[area], images[0][area]) for i in images]
        padded = [
            np.pad(p.repeat(ZOOM, 1).repeat(ZOOM, 2), ((0, 0), (0, GAP), (0, GAP)), constant_values=1) for p in panels
        ]
        rows.append(np.concatenate(padded, axis=2))
    picture = np.rint(np.concatenate(rows, axis=1)[:, :-GAP, :-GAP] * 255).astype("uint8")
    shape = {"count": 3, "height": picture.shape[1], "width": picture.shape[2], "dtype": "uint8"}
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.open(arguments.output, "w", driver="PNG", **shape) as file:
        file.write(picture)


if __name__ == "__main__":
    main()
