"""The plan of a run: how many workers, and tiles as large as the memory at hand allows."""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch

from crossdiff_cli.geometry.grid import Pixels
from crossdiff_cli.geometry.window import STRIDE, Tile, Window, tiles
from crossdiff_cli.inference.strips import STRIP
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.device import fast_in_bf16

_CPU_BYTES = 0.8e9
"""What the tiles in work may take of the main memory, where there is as much: the process stays under 2 GB."""
_BF16_BYTES = 0.55e9
"""The same where a CPU multiplies bf16: there the halo of a tile costs no more than larger images in the caches."""
_CUDA_BYTES = 16e9
"""What a tile may take on a GPU: more would not be faster."""
_TILES_A_WORKER = 4
"""At least, on a GPU."""
_LEAST_SIDE, _LARGEST_SIDE = 1024, 4096
"""Of the core of a tile on a GPU, in PAN pixels."""
_SHARE = 0.6
"""Of the memory that is free."""


class Placed(Protocol):
    """Where the MS of a scene lies; `estimate.survey.SceneEstimates` is one."""

    @property
    def nyquist_gains(self) -> tuple[float, ...]:
        """Of the bands."""

    def registered_ratio(self) -> Pixels:
        """PAN pixels per MS pixel as registered."""

    def farthest(self, extent: Window) -> float:
        """Largest displacement of any band in a part of the PAN, in PAN pixels."""


class Worker(Protocol):
    """What works on a tile; `inference.run.DeviceWorker` is one."""

    device: torch.device
    dtype: torch.dtype


def plan_tiles(
    extent: Window, model: CrossDiff, placed: Placed, workers: Sequence[Worker], iterations: int, size: int | None
) -> list[Tile]:
    """Cut a scene into tiles, of `size` pixels or as large as the memory allows; windows reach a halo beyond the cores.

    Args:
        extent: part of the PAN that is written.
        model: the network, whose receptive field sets the halo.
        placed: where the MS lies, which adds to it.
        workers: those that work at the same time.
        iterations: of back-projection.
        size: side of the cores in PAN pixels, or None.
    """
    gains = placed.nyquist_gains
    halo = model.halo(placed.registered_ratio(), gains, iterations) + math.ceil(placed.farthest(extent))
    devices = [worker.device for worker in workers]
    pixels = max_window_pixels(devices, len(gains), _widest(workers))
    if any(device.type == "cuda" for device in devices):
        pixels = min(pixels, most_pixels_to_overlap(extent, halo, len(workers)))
    return list(tiles(extent, size or choose_tile_size(extent, halo, pixels, workers=len(workers)), halo, STRIDE))


def most_pixels_to_overlap(extent: Window, halo: int, workers: int) -> int:
    """How many pixels a window may have so that a GPU computes while others are read and written.

    Each worker gets at least four tiles, as long as their cores are not smaller than 1024 pixels; none is larger than
    4096.
    """
    side = math.sqrt(extent.height * extent.width / (_TILES_A_WORKER * workers))
    return int((min(max(side, _LEAST_SIDE), _LARGEST_SIDE) + 2 * halo) ** 2)


def choose_tile_size(extent: Window, halo: int, pixels: int, workers: int = 1, unit: int = 256) -> tuple[int, int]:
    """Size of the cores (rows, columns) that cut `extent` with the fewest pixels read twice, for all workers alike.

    Args:
        extent: what is cut.
        halo: pixels around a core that its window holds.
        pixels: what a window may have at most.
        workers: how many tiles are worked on at the same time.
        unit: sides are multiples of it; one unit is never too much.
    """

    def sizes(length: int) -> list[int]:
        """The smallest multiple of the unit for every number of tiles."""
        units = -(-length // unit)
        return sorted({-(-units // count) * unit for count in range(1, units + 1)})

    def read(length: int, size: int) -> int:
        return length + 2 * halo * -(-length // size)

    def work(size: tuple[int, int]) -> float:
        """Pixels read, those that a worker could have read while it waits for the others at the end included."""
        count = -(-extent.height // size[0]) * -(-extent.width // size[1])
        turns = -(-count // workers)
        return read(extent.height, size[0]) * read(extent.width, size[1]) * turns * workers / count

    fitting = [
        (rows, cols)
        for rows in sizes(extent.height)
        for cols in sizes(extent.width)
        if (rows + 2 * halo) * (cols + 2 * halo) <= pixels
    ]
    return min(fitting or [(unit, unit)], key=lambda size: (work(size), -size[1]))


def workers_on(device: torch.device, devices: Sequence[torch.device]) -> int:
    """How many tiles are worked on at the same time on each mention of `device` among `devices`.

    On a GPU one computes while the other copies; cores wait less for each other at tiles of their own.
    """
    if device.type == "cuda":
        return 2
    return 2 if devices.count(device) == 1 and torch.get_num_threads() > 1 else 1


def max_window_pixels(devices: Sequence[torch.device], bands: int, dtype: torch.dtype) -> int:
    """How many PAN pixels a tile may have, halo included, for the memory that is free on the devices it goes round.

    Args:
        devices: those that work at the same time, each as often as it does.
        bands: of the MS.
        dtype: of the images in the network, the widest of all devices.
    """
    shares = []
    for device, workers in Counter(devices).items():
        if device.type == "cuda":
            shares.append(min(_SHARE * torch.cuda.mem_get_info(device)[0] / workers, _CUDA_BYTES))
        else:
            most = _BF16_BYTES if _narrow(devices, dtype) else _CPU_BYTES
            shares.append(min(_SHARE * _free(), most) / workers)
    pixel, column = _bytes(devices, bands, dtype)
    side = (math.sqrt(column**2 + 4 * pixel * min(shares)) - column) / (2 * pixel)
    return int(side**2)


def window_bytes(workers: Sequence[Worker], bands: int, pixels: int) -> int:
    """Return the peak memory of fusing a window of so many PAN pixels."""
    pixel, column = _bytes([worker.device for worker in workers], bands, _widest(workers))
    return math.ceil(pixel * pixels + column * math.sqrt(pixels))


def _bytes(devices: Sequence[torch.device], bands: int, dtype: torch.dtype) -> tuple[float, float]:
    """Return the memory of a window per pixel, and that of a strip per column, measured with a head on P2M alone.

    One on both encoders takes up to half more, for which `_SHARE` leaves room. A GPU works on the whole window as
    one strip. A CPU that multiplies bf16 by way of float32 holds copies in float32.
    """
    pixel, strip = (62.0 + 8.8 * bands, 95.0) if _narrow(devices, dtype) else (150.0 + 5.2 * bands, 132.0)
    if any(device.type == "cuda" for device in devices):
        return pixel + strip, 0.0
    return pixel, strip * (STRIP + STRIDE)


def _narrow(devices: Sequence[torch.device], dtype: torch.dtype) -> bool:
    """Return whether images of the network take two bytes a value, in the convolutions too."""
    return dtype == torch.bfloat16 and all(fast_in_bf16(device) for device in devices)


def _widest(workers: Sequence[Worker]) -> torch.dtype:
    return max((worker.dtype for worker in workers), key=lambda dtype: dtype.itemsize)


def _free() -> float:
    """Bytes of main memory that can be had, by the kernel and by the limit of the container; inf where neither says."""
    found = [math.inf]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024.0 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with suppress(OSError, ValueError):
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        found.append(float(limit - used))
    return max(min(found), 0.0)
