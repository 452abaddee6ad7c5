"""GDAL's cache of decoded blocks, bounded."""

import re
from collections.abc import Sequence

import rasterio

_LEAST, _MOST = 32 * 2**20, 192 * 2**20
_REMOTE = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)\b|\b(https?|ftp|s3|gs|az)://")


def bounded_cache(paths: Sequence[str], wanted: float = 0.0) -> rasterio.Env:
    """Keep the cache, by default a share of the machine's memory, small: what fills it is not the tile's.

    Args:
        paths: what is read. Of files on a network the most is kept, since a block read again is fetched again.
        wanted: bytes that reads one after the other have in common; as much is given within limits.
    """
    remote = any(_REMOTE.search(path) for path in paths)
    return rasterio.Env(GDAL_CACHEMAX=_MOST if remote else int(min(max(wanted, _LEAST), _MOST)))
