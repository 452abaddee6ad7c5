"""Grey levels to PNG files in memory, by GDAL."""

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile


def png(levels: NDArray[np.uint8]) -> bytes:
    """Encode (bands, rows, columns): one band is grey, three are red, green, blue, four have alpha last."""
    count, height, width = levels.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="PNG", count=count, height=height, width=width, dtype="uint8", zlevel=9, write_metadata_as_text="NO"
        ) as file:
            file.write(levels)
        return bytes(memory.read())
