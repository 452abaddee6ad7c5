"""Tiles in flight: read ahead by threads, fused on every device in turn, encoded by one thread behind them."""

import copy
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossdiff_cli.errors import DeviceError, SceneError
from crossdiff_cli.geometry.patch import Patch
from crossdiff_cli.geometry.window import STRIDE, Tile, Window
from crossdiff_cli.imaging.masking import extend, extend_coarse
from crossdiff_cli.imaging.normalisation import Normalisation
from crossdiff_cli.imaging.quantise import count_clipped, to_dtype
from crossdiff_cli.imaging.resample import EXPAND_RADIUS
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.inference.bound import bind
from crossdiff_cli.inference.plan import workers_on
from crossdiff_cli.inference.stage_times import StageTimes
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.device import inference_dtype
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.options import Backend, RuntimeOptions

_log = logging.getLogger(__name__)

_MAX_PENDING_WRITES = 2
"""Results that may wait for the encoder."""
_OUT_OF_MEMORY = (
    "can't allocate memory",  # the CPU's allocator
    "not enough memory",
    "CUDA error: out of memory",  # pinned memory and the driver
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_MIN_TILE = 256
"""Side in PAN pixels of a core that is not cut further when memory runs out."""


@dataclass(frozen=True, slots=True)
class FusedTile:
    """The core of a tile."""

    tile: Tile
    data: NDArray[Any]
    """(bands, rows, cols), those that are written, in the data type of the file."""
    clipped: int
    """How many values that type does not hold."""
    squared_error: float
    """Of the result, degraded, against the MS pixels whose centres lie in the core: DN squared, summed over bands."""
    squared_signal: float
    """Of those MS pixels."""


@dataclass(frozen=True, slots=True)
class OutputPixels:
    """What is written of a scene."""

    bands: tuple[int, ...]
    """Their places in the file of the MS."""
    dtype: str
    nodata: float | None


@dataclass(frozen=True, slots=True)
class BoundScene:
    """What a network takes of a scene; bands in the order of their wavelengths, whatever that of the file."""

    order: tuple[int, ...]
    """Index in the file of each band."""
    path: str
    """Of the PAN, for errors."""
    spectrum: Spectrum
    normalisation: Normalisation
    nyquist_gains: tuple[float, ...]
    sensor_model: Callable[[Patch], SensorModel]
    """Of a patch."""
    output: OutputPixels


class DeviceWorker:
    """One device, or one of several streams on it, with its copy of the network."""

    def __init__(
        self,
        model: CrossDiff,
        scene: BoundScene,
        device: torch.device,
        dtype: torch.dtype,
        iterations: int,
        backend: Backend = "auto",
    ) -> None:
        """Bind a network to a scene.

        Args:
            model: on `device`.
            scene: what the network takes of it.
            device: to compute on.
            dtype: precision of the network; int8 for its residual blocks alone.
            iterations: of back-projection.
            backend: as in `bind`.
        """
        self.device = device
        self._scene, self._iterations = scene, iterations
        self._stream = _stream(device)
        self._network, self.precision = bind(model, scene.spectrum, scene.nyquist_gains, device, dtype, backend)
        self.dtype = torch.float32 if dtype == torch.int8 else dtype
        self._normalisation = scene.normalisation.to(device)
        self._written = [scene.order.index(band) for band in scene.output.bands]

    def second_stream(self) -> "DeviceWorker":
        """Another one on the same device, with the same network."""
        twin = copy.copy(self)
        twin._stream = _stream(self.device)
        return twin

    def fuse(self, tile: Tile, patch: Patch) -> FusedTile:
        """Fuse one tile; where memory does not suffice for it, half by half.

        Raises:
            DeviceError: not even the smallest tile fits into memory.
            SceneError: the network gave values that are not finite.
        """
        try:
            with self._on_stream(), torch.inference_mode():
                return self._fuse(tile, patch)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            rows, cols = tile.core.shape
            if max(rows, cols) <= _MIN_TILE:
                raise DeviceError(
                    f"the memory of {self.device} does not suffice for {cols} x {rows} pixels of PAN",
                    cure="free some, or choose another --device",
                ) from error
        _log.warning("out of memory on %s for %d x %d pixels: working on halves (--tile sets less)",
                     self.device, cols, rows)  # fmt: skip
        if self._stream is not None:
            torch.cuda.empty_cache()
        return self._halves(tile, patch)

    def _halves(self, tile: Tile, patch: Patch) -> FusedTile:
        axis = int(tile.core.width > tile.core.height)
        parts = []
        for core in tile.core.halves(axis):
            margin = tile.core.row - tile.window.row, tile.core.col - tile.window.col
            window = core.grown(max(margin), STRIDE).intersection(tile.window) or tile.window
            rows, cols = window.within(tile.window)
            offset = patch.offset[0] - rows.start, patch.offset[1] - cols.start
            cut = replace(
                patch, pan=patch.pan[:, rows, cols], pan_mask=patch.pan_mask[rows, cols], offset=offset, window=window
            )
            parts.append(self.fuse(Tile(core, window), cut))
        return FusedTile(
            tile,
            np.concatenate([part.data for part in parts], axis=axis + 1),
            sum(part.clipped for part in parts),
            sum(part.squared_error for part in parts),
            sum(part.squared_signal for part in parts),
        )

    def _fuse(self, tile: Tile, patch: Patch) -> FusedTile:
        core = tile.core.within(tile.window)
        mask = patch.valid[core]
        output = self._scene.output
        if not mask.any():
            empty = np.full((len(output.bands), *tile.core.shape), output.nodata or 0.0, output.dtype)
            return FusedTile(tile, empty, 0, 0.0, 0.0)
        pan, ms = self._inputs(patch)
        sensor_model = self._scene.sensor_model(patch)
        inner = tile.core.relative_to(tile.window)
        hrms, left = self._network.fuse(pan, ms, sensor_model, inner, self._iterations)
        counted = (self._to_device(patch.ms_mask) & _inside(sensor_model, inner, ms)).double()
        data = self._normalisation.denormalise_ms(hrms[0], self._written)
        valid = None if mask.all() else self._to_device(mask)
        sums = torch.stack([
            ((left[0] * self._normalisation.ms_std[:, None, None]).double().square() * counted).sum(),
            (self._normalisation.denormalise_ms(ms[0]).double().square() * counted).sum(),
            torch.isfinite(hrms.sum()),  # as soon as one value is not, the sum is not; a seventh of the time
            count_clipped(data, valid, output.dtype),
        ])  # fmt: skip
        pixels, figures = self._to_host(to_dtype(data, valid, output.dtype, output.nodata), sums)
        error, signal, finite, clipped = figures.tolist()
        if not finite:
            raise SceneError(
                "the network gave values that are not finite",
                path=self._scene.path,
                found=f"row {tile.core.row}, column {tile.core.col}",
            )
        return FusedTile(tile, pixels.numpy(), int(clipped), error, signal)

    def _inputs(self, patch: Patch) -> tuple[Tensor, Tensor]:
        """PAN (1, 1, H, W) and MS (1, C, h, w) on the device, normalised, masked pixels filled."""
        pan = self._normalisation.normalise_pan(self._to_device(patch.pan))[None]
        ms = self._normalisation.normalise_ms(self._to_device(patch.ms[list(self._scene.order)]))[None]
        if not patch.pan_mask.all():
            pan = extend_coarse(pan, self._to_device(patch.pan_mask)[None, None], iterations=8)
        if not patch.ms_mask.all():
            ms = extend(ms, self._to_device(patch.ms_mask)[None, None], iterations=2 * EXPAND_RADIUS)
        return pan, ms

    def _on_stream(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        """On the device; from pinned memory, so that the copy does not hold up the other stream."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor if self._stream is None else tensor.pin_memory().to(self.device, non_blocking=True)

    def _to_host(self, *tensors: Tensor) -> list[Tensor]:
        """In main memory, once all that was begun on the stream is done: the one time that a tile waits for it."""
        if self._stream is None:
            return list(tensors)
        pinned = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True) for t in tensors]
        self._stream.synchronize()
        return pinned


def bind_workers(
    networks: Sequence[CrossDiff],
    scene: BoundScene,
    devices: Sequence[torch.device],
    runtime: RuntimeOptions,
    iterations: int,
) -> list[DeviceWorker]:
    """Bind the network of every device to a scene; a device that can overlap two tiles gets two workers."""
    workers: list[DeviceWorker] = []
    for device, model in zip(devices, networks, strict=True):
        dtype = inference_dtype(device, runtime.precision)
        first = DeviceWorker(model, scene, device, dtype, iterations, runtime.backend)
        workers += [first, *(first.second_stream() for _ in range(1, workers_on(device, devices)))]
    return workers


def run_tiles(
    plan: Iterable[Tile],
    read: Callable[[Window], Patch],
    workers: Sequence[DeviceWorker],
    jobs: int,
    times: StageTimes | None = None,
) -> Generator[FusedTile, None, None]:
    """Yield every tile, fused, in the order of `plan`, with the next ones read ahead by `jobs` threads.

    `times` counts `read` and `fuse`. A single worker works in the calling thread, which a signal can interrupt; several
    have a thread each. Closing the generator waits for its threads: their files may be closed only afterwards.
    """
    times = times or StageTimes()
    read = times.timed("read", read)
    idle: SimpleQueue[DeviceWorker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def fuse(tile: Tile, patch: Future[Patch]) -> FusedTile:
        worker = idle.get()
        try:
            return times.timed("fuse", worker.fuse)(tile, patch.result())
        finally:
            idle.put(worker)

    share = max(1, torch.get_num_threads() // len(workers))
    ahead: deque[tuple[Callable[[], FusedTile], list[Future[Any]]]] = deque()
    with (
        ThreadPoolExecutor(jobs, "reader") as readers,
        ThreadPoolExecutor(len(workers), "worker", torch.set_num_threads, (share,)) as pool,
    ):
        try:
            for tile in plan:
                patch = readers.submit(read, tile.window)
                if len(workers) == 1:
                    ahead.append((partial(fuse, tile, patch), [patch]))
                else:
                    fused = pool.submit(fuse, tile, patch)
                    ahead.append((fused.result, [fused, patch]))
                if len(ahead) > jobs + len(workers) - 1:
                    yield ahead.popleft()[0]()
            while ahead:
                yield ahead.popleft()[0]()
        finally:
            for _, futures in ahead:
                for future in futures:
                    future.cancel()


class WriterThread:
    """One thread that writes what it is given, in order, a bounded number of results behind.

    What goes wrong in it is raised by the next `submit`, or on leaving the context; left by an error, it drops what
    waits and ends after what it is at.
    """

    def __init__(self) -> None:
        """Start the thread with the first result."""
        self._thread = ThreadPoolExecutor(1, "encoder")
        self._waiting: deque[Future[None]] = deque()

    def submit(self, write: Callable[..., None], *arguments: Any) -> None:
        """Call `write(*arguments)` in the thread, once there is room."""
        while len(self._waiting) >= _MAX_PENDING_WRITES:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(write, *arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                while self._waiting:
                    self._waiting.popleft().result()
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream of its own for a worker, which begins after what the default stream has still to do."""
    if device.type != "cuda":
        return None
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.default_stream(device))
    return stream


def _inside(sensor_model: SensorModel, core: Window, ms: Tensor) -> Tensor:
    """MS pixels whose centres lie in the core: (h, w)."""
    axes = []
    for axis, (start, stop) in enumerate(zip((core.row, core.col), core.stop, strict=True)):
        count = torch.arange(ms.shape[2 + axis], device=ms.device)
        centre = sensor_model.grid.offset[axis] + (count + 0.5) * sensor_model.grid.ratio[axis]
        axes.append((centre >= start) & (centre < stop))
    return axes[0][:, None] & axes[1]


def _out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Return whether memory did not suffice: PyTorch has an error of its own for its allocator on a GPU alone."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in _OUT_OF_MEMORY)
