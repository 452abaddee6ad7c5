"""Small rasters with the vendors' metadata beside them, for the tests of detection."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from crossdiff_cli.io.identify import Hints, Identification, UserChoice, detect_sensor, read_hints


def tif(path: Path, count: int = 1, dtype: str = "uint16", **labels: Any) -> Path:
    """Write a flat 8x8 raster; labels: descriptions, wavelengths (um pairs), colors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", width=8, height=8, count=count, dtype=dtype) as out:
        for i, text in enumerate(labels.get("descriptions", ()), start=1):
            out.set_band_description(i, text)
        for i, (center, width) in enumerate(labels.get("wavelengths", ()), start=1):
            out.update_tags(i, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(center), FWHM_UM=str(width))
        if "colors" in labels:
            out.colorinterp = labels["colors"]
        out.write(np.ones((count, 8, 8), dtype))
    return path


def hints(path: Path) -> Hints:
    """Evidence of a file."""
    with rasterio.open(path) as dataset:
        return read_hints(dataset)


def detect(pan: Path, *ms: Path, ratio: float = 4.0, choice: UserChoice | None = None) -> Identification:
    """Detect from files, all bands in use."""
    read = [hints(path) for path in ms]
    return detect_sensor(hints(pan), read, sum(len(h.indexes) for h in read), ratio, choice)


def order(detection: Identification) -> str:
    """Band names, comma-separated."""
    return ",".join(band.name for band in detection.bands)


def imd(satellite: str, groups: str, band_id: str = "Multi", algorithm: str = "None") -> str:
    """A Maxar IMD file."""
    blocks = "".join(
        f"BEGIN_GROUP = BAND_{g}\n\tabsCalFactor = 1.0e-02;\nEND_GROUP = BAND_{g}\n" for g in groups.split()
    )
    return (
        f'version = "AA";\nbandId = "{band_id}";\npanSharpenAlgorithm = "{algorithm}";\n{blocks}'
        f'BEGIN_GROUP = IMAGE_1\n\tsatId = "{satellite}";\nEND_GROUP = IMAGE_1\nEND;\n'
    )


def band_list(bands: str) -> str:
    """The part of a DIMAP 2 document that names the bands of the files."""
    rows = "".join(
        f"<Raster_Index><BAND_ID>{band}</BAND_ID><BAND_INDEX>{i}</BAND_INDEX></Raster_Index>"
        for i, band in enumerate(bands.split(), start=1)
    )
    return f"<Raster_Display><Raster_Index_List>{rows}</Raster_Index_List></Raster_Display>"


def dimap2(mission: str, index: str, spectral: str, bands: str, image: str) -> str:
    """A DIMAP 2 document of one image."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><Dimap_Document><Metadata_Identification>'
        '<METADATA_FORMAT version="2.0">DIMAP</METADATA_FORMAT></Metadata_Identification>'
        "<Dataset_Content><Dataset_Components/></Dataset_Content><Processing_Information><Product_Settings>"
        f"<SPECTRAL_PROCESSING>{spectral}</SPECTRAL_PROCESSING></Product_Settings></Processing_Information>"
        "<Raster_Data><Data_Access><DATA_FILE_FORMAT>image/tiff</DATA_FILE_FORMAT><Data_Files>"
        f'<Data_File tile_R="1" tile_C="1"><DATA_FILE_PATH href="{image}"/></Data_File></Data_Files></Data_Access>'
        f"<Raster_Dimensions><NROWS>8</NROWS><NCOLS>8</NCOLS><NBANDS>{len(bands.split())}</NBANDS></Raster_Dimensions>"
        "<Raster_Encoding><NBITS>12</NBITS></Raster_Encoding>"
        f"{band_list(bands)}</Raster_Data>"
        f"<Dataset_Sources><Source_Identification><Strip_Source><MISSION>{mission}</MISSION>"
        f"<MISSION_INDEX>{index}</MISSION_INDEX></Strip_Source></Source_Identification></Dataset_Sources></Dimap_Document>"
    )
