"""What runs beside each other: readers, workers and the encoder; and that none of it shows in the result."""

import threading
import time
from itertools import accumulate, cycle
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from conftest import changed, sharpen_options, small_model

from crossdiff_cli.errors import DeviceError, OutputError, SceneError
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import STRIDE, Tile, Window, tiles
from crossdiff_cli.imaging.resample import degrade
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.inference.plan import (
    choose_tile_size,
    max_window_pixels,
    most_pixels_to_overlap,
    window_bytes,
    workers_on,
)
from crossdiff_cli.inference.run import DeviceWorker, FusedTile, WriterThread, run_tiles
from crossdiff_cli.inference.strips import StripNetwork
from crossdiff_cli.io.writer import Writer
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.device import choose_devices, fast_in_bf16
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import load
from crossdiff_cli.options import PairOptions
from crossdiff_cli.system.weight_files import bundled_weights
from crossdiff_cli.tasks.sharpen import sharpen

GAINS = (0.34, 0.32, 0.30, 0.22)
SPECTRUM = Spectrum(
    torch.tensor([480.0, 545.0, 672.0, 850.0]),
    torch.tensor([60.0, 70.0, 35.0, 140.0]),
    torch.tensor([450.0, 800.0]),
    4.0,
)


@pytest.fixture
def options(small_weights):
    pair = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))
    return sharpen_options(pair=pair, weights=small_weights, device="cpu", precision="fp32", tile=256)


@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize("encoders", ["both", "p2m", "none"])
def test_the_core_alone_is_the_core_of_the_whole_window(iterations, encoders):
    """Strips and cropped stages change nothing, and what is left of the MS is what the result, degraded, leaves."""
    torch.manual_seed(0)
    model = CrossDiff(small_model().architecture, encoders=False).eval() if encoders == "none" else small_model()
    if encoders == "p2m":
        model.with_m2p_features(False)
    reach = model.halo((4.0, 4.0), GAINS, iterations)
    margin = -(-reach // STRIDE) * STRIDE
    core = Window(margin, margin, 300, 92)
    height, width = (-(-n // STRIDE) * STRIDE for n in (core.stop[0] + margin, core.stop[1] + margin))
    sensor_model = SensorModel(
        GridMapping((4.0, 4.0), (-15.3, -16.2)), GAINS, ms_noise=(0.0, 0.3, 1.0, 2.0), pan_noise=0.9
    )
    pan, ms = torch.randn(1, 1, height, width), torch.randn(1, 4, height // 4 + 8, width // 4 + 8)
    with torch.inference_mode():
        whole = model.fuse(pan, ms, sensor_model, SPECTRUM, iterations)
        part, left = StripNetwork(model, SPECTRUM, torch.float32).fuse(pan, ms, sensor_model, core, iterations)
        wanted = ms - degrade(
            whole, (ms.shape[2], ms.shape[3]), sensor_model.grid.ratio, sensor_model.grid.offset, GAINS
        )
    assert torch.allclose(part, core.crop(whole), atol=2e-5)
    inside = (
        slice((core.row + 56) // 4, (core.stop[0] - 56) // 4),
        slice((core.col + 40) // 4, (core.stop[1] - 40) // 4),
    )
    assert torch.allclose(left[0, :, *inside], wanted[0, :, *inside], atol=2e-5)
    assert wanted[0, :, *inside].abs().max() > 0.01


def test_regions():
    window = Window(0, 0, 64, 96)
    part = Window(20, 30, 20, 20)
    assert part.grown_within(10, window) == Window(8, 16, 48, 48)
    assert part.grown_within(100, window) == window
    assert part.relative_to(Window(8, 16, 48, 48)) == Window(12, 14, 20, 20)
    assert part.intersection(Window(40, 0, 24, 96)) is None
    assert [strip.shape for strip in Window(0, 0, 20, 8).strips(8)] == [(8, 8), (8, 8), (4, 8)]
    assert [(strip.row, strip.stop[0]) for strip in Window(8, 0, 80, 8).strips(64)] == [(8, 48), (48, 88)]
    image = torch.arange(64 * 96.0).reshape(1, 1, 64, 96)
    assert torch.equal(Window(8, 16, 48, 48).crop(image[..., ::2, ::2], 2), image[..., 8:56:2, 16:64:2])


def test_neither_devices_nor_tiles_nor_lack_of_memory_show_in_the_file(
    make_pair, tmp_path, options, monkeypatch, caplog, read_all
):
    """One device, three, tiles by memory, and halves of tiles that do not fit: the same pixels and figures."""
    files = make_pair(shape=(300, 540))
    fuse_all = DeviceWorker._fuse

    def scarce(self, tile, patch):
        if tile.core.height * tile.core.width > 300 * 300:
            raise next(errors)
        return fuse_all(self, tile, patch)

    def result(**changes):
        found = sharpen(files.pan, [files.ms], tmp_path / "out.tif", changed(options, overwrite=True, **changes))
        return read_all(tmp_path / "out.tif").astype(int), found.consistency

    plain, consistency = result()
    others = [result(device="cpu,cpu,cpu"), result(tile=None)]
    assert not caplog.text
    errors = cycle(
        [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"), MemoryError()]
    )
    monkeypatch.setattr(DeviceWorker, "_fuse", scarce)
    others.append(result(tile=1024))
    assert "out of memory on cpu for 540 x 300 pixels" in caplog.text
    for image, figure in others:
        assert np.abs(image - plain).max() <= 1
        assert (image != plain).mean() < 1e-4
        assert figure == pytest.approx(consistency, rel=1e-3)


def test_every_lane_gets_tiles_and_their_order_is_kept():
    plan = list(tiles(Window(0, 0, 64, 640), 64, 0, 8))
    met = threading.Barrier(3, timeout=20)

    class Slow:
        def __init__(self):
            self.seen = []

        def fuse(self, tile, patch):
            if not self.seen:
                met.wait()
            self.seen.append(tile)
            return FusedTile(tile, patch, None, 0.0, 0.0)

    workers = [Slow(), Slow(), Slow()]
    out = list(run_tiles(plan, lambda window: window.col, workers, jobs=2))
    assert [fused.tile for fused in out] == plan
    assert [fused.data for fused in out] == [tile.core.col for tile in plan]
    assert all(worker.seen for worker in workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_is_read_than_is_asked_for(workers):
    """Memory is bounded by what is in flight, however long the scene."""
    read = []
    plan = list(tiles(Window(0, 0, 8, 8 * 500), 8, 0, 8))

    class Quick:
        def fuse(self, tile, patch):
            return FusedTile(tile, patch, None, 0.0, 0.0)

    parts = run_tiles(plan, read.append, [Quick() for _ in range(workers)], jobs=2)
    for _ in range(10):
        next(parts)
    parts.close()
    assert len(read) <= 10 + 2 + workers


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_a_reader_that_fails_is_one_clear_error(make_pair, tmp_path, options, devices):
    files = make_pair(shape=(600, 700), tiled=True, blockxsize=256, blockysize=256)
    whole = (tmp_path / "pan.tif").read_bytes()
    with rasterio.open(files.pan) as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_2_2", "TIFF", bidx=1))
    (tmp_path / "pan.tif").write_bytes(whole[: start + 100])
    (tmp_path / "result").mkdir()
    with pytest.raises(SceneError, match="damaged or truncated"):
        sharpen(files.pan, [files.ms], tmp_path / "result" / "out.tif", changed(options, device=devices))
    assert list((tmp_path / "result").iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name.startswith(("reader", "worker", "encoder"))]


def test_an_encoder_that_fails_is_one_clear_error(make_pair, tmp_path, options, monkeypatch):
    files = make_pair(shape=(300, 1800))
    calls = []

    def write(self, data, window):
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            raise OutputError("cannot write: the disk is full")

    monkeypatch.setattr(Writer, "write", write)
    (tmp_path / "result").mkdir()
    with pytest.raises(OutputError, match="the disk is full"):
        sharpen(files.pan, [files.ms], tmp_path / "result" / "out.tif", options)
    assert list((tmp_path / "result").iterdir()) == []
    assert calls[0].startswith("encoder")
    assert len(calls) < 7


def test_the_encoder_keeps_order_is_bounded_and_tells_the_last_error():
    done, gate = [], threading.Event()

    def write(number):
        assert gate.wait(20)
        done.append(number)
        if number == 4:
            raise OSError("the last one fails")

    with pytest.raises(OSError, match="the last one fails"), WriterThread() as encoder:
        threading.Timer(0.2, gate.set).start()
        for number in range(5):
            encoder.submit(write, number)
            assert number - len(done) <= 3
    assert done == [0, 1, 2, 3, 4]


def test_an_error_elsewhere_drops_what_waits_for_the_encoder():
    done, gate = [], threading.Event()

    def write(number):
        assert gate.wait(20)
        done.append(number)

    with pytest.raises(KeyboardInterrupt), WriterThread() as encoder:
        encoder.submit(write, 0)
        encoder.submit(write, 1)
        while not encoder._waiting[0].running():
            time.sleep(0.01)
        threading.Timer(0.2, gate.set).start()
        raise KeyboardInterrupt
    assert done == [0]


def test_no_memory_at_all_is_one_clear_error(make_pair, tmp_path, options, monkeypatch):
    files = make_pair()

    def none(self, tile, patch):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DeviceWorker, "_fuse", none)
    with pytest.raises(DeviceError):
        sharpen(files.pan, [files.ms], tmp_path / "out.tif", options)
    assert not (tmp_path / "out.tif").exists()


def test_other_errors_of_the_network_are_not_taken_for_lack_of_memory(make_pair, tmp_path, options, monkeypatch):
    files = make_pair()

    def wrong(self, tile, patch):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(DeviceWorker, "_fuse", wrong)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        sharpen(files.pan, [files.ms], tmp_path / "out.tif", options)


@pytest.mark.parametrize("values", [[np.nan], [np.inf], [-np.inf], [np.inf, -np.inf]])
def test_values_that_are_not_finite_are_an_error_that_tells_where(values, make_pair, tmp_path, options, monkeypatch):
    files = make_pair(shape=(512, 512))

    fuse = StripNetwork.fuse

    def spoiled(self, *arguments):
        hrms, left = fuse(self, *arguments)
        hrms[0, 1, 5, : len(values)] = torch.tensor(values)
        return hrms, left

    monkeypatch.setattr(StripNetwork, "fuse", spoiled)
    with pytest.raises(SceneError) as caught:
        sharpen(files.pan, [files.ms], tmp_path / "out.tif", options)
    assert caught.value.path == files.pan
    assert caught.value.found.startswith("row 0, column ")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("extent", [Window(0, 0, 1024, 1024), Window(3, 5, 4096, 9000), Window(0, 0, 16384, 16384)])
@pytest.mark.parametrize("pixels", [1, 700**2, 2000**2, 6000**2])
def test_the_best_size_fits_and_wastes_least(extent, pixels):
    rows, cols = choose_tile_size(extent, 161, pixels)
    assert rows % 256 == cols % 256 == 0
    fits = (rows + 322) * (cols + 322) <= pixels
    assert fits or (rows, cols) == (256, 256)

    def read(size):
        return sum(tile.window.height * tile.window.width for tile in tiles(extent, size, 161, 1))

    squares = [side for side in range(256, 4097, 256) if (side + 322) ** 2 <= pixels]
    if fits and squares:
        assert read((rows, cols)) <= min(read(side) for side in squares)


@pytest.mark.parametrize(("side", "workers", "count"), [(1024, 1, 1), (1024, 2, 2), (1024, 4, 4), (2048, 2, 2)])
def test_no_lane_waits_while_another_works(side, workers, count):
    """A scene that one tile could hold is shared out."""
    extent = Window(0, 0, side, side)
    size = choose_tile_size(extent, 161, 6000**2, workers=workers)
    assert len(list(tiles(extent, size, 161, 8))) == count


@pytest.mark.parametrize("shape", [(4096, 4096), (5000, 9000), (8192, 8192), (16384, 16384)])
@pytest.mark.parametrize("workers", [2, 4])
def test_a_gpu_gets_tiles_enough_to_overlap(shape, workers):
    """Four a worker, of 1024 to 4096 pixels a side on average, but for a scene that four workers share."""
    extent, halo = Window(0, 0, *shape), 168
    rows, cols = choose_tile_size(extent, halo, most_pixels_to_overlap(extent, halo, workers), workers)
    count = len(list(tiles(extent, (rows, cols), halo, 8)))
    assert 700**2 < rows * cols <= 4400**2
    assert count >= 4 * workers or rows * cols <= 1100**2


def test_a_cpu_works_on_two_tiles_where_it_has_the_cores(monkeypatch):
    cpu = choose_devices("cpu", "auto")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert workers_on(cpu[0], cpu) == 2
    assert workers_on(cpu[0], cpu * 2) == 1  # two were asked for
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert workers_on(cpu[0], cpu) == 1
    assert workers_on(torch.device("cuda", 1), cpu) == 2


@pytest.fixture
def one_thread():
    """For PyTorch, whose sums are rounded otherwise by several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_tiles_that_are_worked_on_together_share_a_network(make_pair, tmp_path, options, monkeypatch, one_thread):
    """Both workers take tiles, and the pixels are those of one worker of as many threads."""
    files = make_pair((512, 512))
    used = {}
    plain = DeviceWorker._fuse

    def watched(self, tile, patch):
        used.setdefault(id(self), self._network)
        return plain(self, tile, patch)

    monkeypatch.setattr(DeviceWorker, "_fuse", watched)
    results = []
    for threads in (1, 2):
        used.clear()
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        sharpen(files.pan, [files.ms], tmp_path / f"{threads}.tif", options)
        assert len(used) == threads
        assert len({id(network) for network in used.values()}) == 1
        with rasterio.open(tmp_path / f"{threads}.tif") as file:
            results.append(file.read())
    assert np.array_equal(*results)


def test_memory_sets_the_tile(monkeypatch):
    cpu = choose_devices("cpu", "auto")
    monkeypatch.setattr("crossdiff_cli.inference.plan._BF16_BYTES", 0.8e9)  # as in other precisions
    plenty = max_window_pixels(cpu, 4, torch.float32)
    assert plenty * 400 < 2e9
    assert max_window_pixels(cpu, 8, torch.float32) < plenty
    monkeypatch.setattr("crossdiff_cli.inference.plan.fast_in_bf16", lambda _device: True)
    assert max_window_pixels(cpu, 4, torch.bfloat16) > 1.25 * plenty
    monkeypatch.setattr("crossdiff_cli.inference.plan.fast_in_bf16", lambda _device: False)
    assert max_window_pixels(cpu, 4, torch.bfloat16) == plenty
    pair = choose_devices("cpu,cpu", "auto")
    each = max_window_pixels(pair, 4, torch.float32)
    workers = [SimpleNamespace(device=device, dtype=torch.float32) for device in pair]
    assert window_bytes(workers, 4, each) == pytest.approx(window_bytes(workers, 4, plenty) / 2, rel=1e-3)
    monkeypatch.setattr("crossdiff_cli.inference.plan._free", lambda: 4e8)
    assert max_window_pixels(cpu, 4, torch.float32) < plenty / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bands", [4, 8])
def test_a_tile_takes_the_memory_it_was_chosen_by(dtype, bands, monkeypatch):
    """What PyTorch holds at most for the shipped network, on top of what it was given: no more, nor far less.

    A CPU that does not multiply bf16 itself may or may not need images of float32 for it: there room is left for them.
    """
    model, _ = load(bundled_weights())
    model.channels_last()
    spectrum = Spectrum(torch.linspace(450, 850, bands), torch.full((bands,), 60.0), SPECTRUM.pan_nm, 4.0)
    sensor_model = SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), (0.3,) * bands)
    margin = -(-model.halo((4.0, 4.0), sensor_model.nyquist_gains, 2) // STRIDE) * STRIDE
    size = 384 + 2 * margin
    pan, ms = torch.randn(1, 1, size, size), torch.randn(1, bands, size // 4, size // 4)
    core, network = Window(margin, margin, 384, 384), StripNetwork(model, spectrum, dtype)
    with torch.inference_mode(), torch.profiler.profile(profile_memory=True) as profile:
        network.fuse(pan, ms, sensor_model, core, 2)
    changes = sorted(
        (e.start_ns(), e.nbytes()) for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"
    )
    peak = max(accumulate(change for _, change in changes)) / size**2
    monkeypatch.setattr("crossdiff_cli.inference.plan._free", lambda: 1e12)
    for budget in ("_CPU_BYTES", "_BF16_BYTES"):
        monkeypatch.setattr(f"crossdiff_cli.inference.plan.{budget}", peak * size**2)
    devices = choose_devices("cpu", "auto")
    least = 0.6 if dtype == torch.float32 or fast_in_bf16(devices[0]) else 0.3
    assert least * size**2 < max_window_pixels(devices, bands, dtype) < size**2


@pytest.mark.parametrize("names", ["cpu,toaster", "cpu,", "cuda:99,cpu"])
def test_a_bad_device_in_a_list_is_named(names):
    with pytest.raises(DeviceError):
        choose_devices(names, "auto")


def test_halves_of_a_window():
    assert Window(2, 3, 7, 9).halves(0) == (Window(2, 3, 3, 9), Window(5, 3, 4, 9))
    assert Window(2, 3, 7, 9).halves(1) == (Window(2, 3, 7, 4), Window(2, 7, 7, 5))
    assert Tile(Window(0, 0, 4, 4), Window(-8, -8, 20, 20)).core.halves(0)[1].row == 2
