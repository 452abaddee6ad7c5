"""What `crossdiff sharpen` costs on this machine: wall time, CPU time and peak memory of whole processes.

    python benchmarks/speed.py --sizes 1024 4096 --bands 4 8 --methods sharpen gdal otb plain

Makes one scene per size and number of bands (noisy, as hard to compress as a real one), runs every method on it in a
process of its own, and keeps the figures in `speed.json`, those of other sizes and methods included; `speed.md` is made
from it, with the floor of what any program could reach and a cost model. `sharpen-reference` is the plain module
(`--backend reference`), `plain` reads the same files by windows and
writes bands as large as the result, `gdal` is `gdal_pansharpen.py`, `otb` is Orfeo ToolBox by rcs, lmvm and bayes. All
write tiled GeoTIFFs with DEFLATE. On a GPU: `--device cuda` or `--device cuda:0,cuda:1`.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine
from rasterio.windows import Window
from speed_table import page
from torch.utils.flop_counter import FlopCounterMode

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.inference.int8 import Int8Conv
from crossdiff_cli.model.device import PRECISIONS, inference_dtype
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import load
from crossdiff_cli.system.weight_files import bundled_weights

HERE = Path(__file__).parent
RATIO = 4
BLOCK = 1024
SENSORS = {4: ("vhr", "B,G,R,NIR"), 8: ("wv2", "CA,B,G,Y,R,RE,N1,N2")}
OTB = "otbcli_BundleToPerfectSensor"
METHODS = ("sharpen", "sharpen-reference", "plain", "gdal", "otb-rcs", "otb-lmvm", "otb-bayes")
CREATION = {"TILED": "YES", "COMPRESS": "DEFLATE", "PREDICTOR": "2", "ZLEVEL": "1", "BIGTIFF": "IF_SAFER",
            "NUM_THREADS": "ALL_CPUS", "BLOCKXSIZE": "256", "BLOCKYSIZE": "256"}  # fmt: skip
BUSY = 0.3
"""Cores that others keep busy before a run, over which its time cannot be relied on."""

Row = dict[str, Any]


def make_scene(folder: Path, size: int, bands: int) -> tuple[Path, Path]:
    """PAN (size x size) and MS of smooth ground with noise of 8 DN, uint16, tiled, DEFLATE; block by block."""
    paths = folder / f"pan{size}.tif", folder / f"ms{size}x{bands}.tif"
    rng = np.random.default_rng(0)
    grid = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
    for path, count, scale in ((paths[0], 1, 1), (paths[1], bands, RATIO)):
        side = size // scale
        profile = {"driver": "GTiff", "count": count, "height": side, "width": side, "dtype": "uint16",
                   "crs": "EPSG:32633", "transform": grid @ Affine.scale(scale), "photometric": "MINISBLACK",
                   "alpha": "NO"}  # fmt: skip
        with rasterio.open(path, "w", **profile, **CREATION) as file:
            for row in range(0, side, BLOCK):
                for col in range(0, side, BLOCK):
                    height, width = min(BLOCK, side - row), min(BLOCK, side - col)
                    y, x = (np.mgrid[row : row + height, col : col + width].astype("float32") + 0.5) * scale
                    ground = (
                        500 + 150 * np.sin(x / 31) * np.cos(y / 47) + 100 * np.sign(np.sin(x / 90) * np.sin(y / 70))
                    )
                    noise = rng.standard_normal((count, height, width), "float32") * 8
                    shades = np.linspace(0.6, 1.4, count, dtype="float32")[:, None, None]
                    file.write((ground * shades + noise).astype("uint16"), window=Window(col, row, width, height))
    os.sync()  # what is measured next finds the disk idle
    return paths


def commands(pan: Path, ms: Path, bands: int, device: str) -> dict[str, Callable[[Path], list[str]]]:
    """The command line of every method for a target file."""
    sensor, names = SENSORS[bands]
    gdal = [part for key, value in CREATION.items() for part in ("-co", f"{key}={value}")]
    otb = "".join(f"&gdal:co:{key}={value}" for key, value in CREATION.items())
    ours = [sys.executable, "-m", "crossdiff_cli", "-q", "sharpen", str(pan), str(ms), "--json", "--sensor", sensor,
            "--bands", names, "--device", device]  # fmt: skip
    found: dict[str, Callable[[Path], list[str]]] = {
        "sharpen": lambda out: [*ours, "-o", str(out)],
        "sharpen-reference": lambda out: [*ours, "-o", str(out), "--backend", "reference"],
        "plain": lambda out: [sys.executable, str(Path(__file__).resolve()), "--plain", str(pan), str(ms), str(out)],
        "gdal": lambda out: ["gdal_pansharpen.py", "-q", "-threads", "ALL_CPUS", *gdal, str(pan), str(ms), str(out)],
    }  # fmt: skip
    for method in ("rcs", "lmvm", "bayes"):
        found[f"otb-{method}"] = lambda out, method=method: [  # type: ignore[misc]
            OTB, "-inp", str(pan), "-inxs", str(ms), "-method", method, "-progress", "false",
            "-out", f"{out}?{otb}", "uint16"]  # fmt: skip
    return found


def measure(command: list[str], target: Path) -> Row:
    """Run a command: seconds, CPU seconds, peak memory, and when the target's folder got its first file."""
    foreign = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "GDAL_DATA", "PROJ_LIB"}
    hidden = set() if command[0] == sys.executable else foreign
    env = {name: value for name, value in os.environ.items() if name not in hidden} | {"OTB_LOGGER_LEVEL": "WARNING"}
    timed = [sys.executable, str(HERE / "timed.py"), str(target.parent), *command]
    done = subprocess.run(timed, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        lines = (done.stderr.strip() or "no message").splitlines()
        raise SystemExit(" / ".join(lines[-3:]))
    cost: Row = json.loads(done.stdout)
    return cost


def plain(pan: Path, ms: Path, out: Path) -> None:
    """Read PAN and MS by windows and write bands of the PAN's size: the work around any sharpening."""
    with rasterio.open(pan) as fine, rasterio.open(ms) as coarse:
        profile = {"driver": "GTiff", "count": coarse.count, "height": fine.height, "width": fine.width,
                   "dtype": "uint16", "crs": fine.crs, "transform": fine.transform, "photometric": "MINISBLACK",
                   "alpha": "NO", "interleave": "pixel"}  # fmt: skip
        with rasterio.open(out, "w", **profile, **CREATION) as file:
            for row in range(0, fine.height, BLOCK):
                for col in range(0, fine.width, BLOCK):
                    area = Window(col, row, min(BLOCK, fine.width - col), min(BLOCK, fine.height - row))
                    below = Window(col // RATIO, row // RATIO, area.width // RATIO, area.height // RATIO)
                    high = fine.read(1, window=area)
                    low = coarse.read(window=below, out_shape=(coarse.count, area.height, area.width))
                    # The PAN's lowest bits are what noise there is: the bands compress as a result would.
                    file.write(low + (high & 15), window=area)


def machine(device: str) -> Row:
    """What the floor rests on: FLOP per PAN pixel of the default weights, FLOP per second, bytes per second."""
    model, _ = load(bundled_weights())
    size = 256
    flop = {}
    for bands in SENSORS:
        spectrum = Spectrum(
            torch.linspace(450, 900, bands), torch.full((bands,), 60.0), torch.tensor([450.0, 800.0]), 4.0
        )
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.fuse(torch.zeros(1, 1, size, size), torch.zeros(1, bands, size // 4, size // 4),
                 SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), (0.3,) * bands), spectrum, iterations=1)  # fmt: skip
        flop[str(bands)] = round(counter.get_total_flops() / size**2)
    first = torch.device(device.split(",", maxsplit=1)[0] if device != "auto" else "cpu")
    kind = inference_dtype(first, "auto")
    name = torch.cuda.get_device_name(first) if first.type == "cuda" else _processor()
    return {"name": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
            "flop_per_pixel": flop, "precision": PRECISIONS[kind], "flop_per_s": _peak(first, kind),
            "disk_bytes_per_s": _disk()}  # fmt: skip


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def _peak(device: torch.device, kind: torch.dtype) -> float:
    """The best of ten products of two matrices in the precision that the network has; for int8, of convolutions."""
    if kind == torch.int8:
        width, size = 256, 128
        conv = Int8Conv(torch.rand(width, width, 3, 3), None, 1.0, 0)
        image = torch.ones(1, width, size, size, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
        product, flop = partial(conv, image, conv), 2 * 9 * width**2 * size**2
    else:
        size = 8192 if device.type == "cuda" else 1024
        a = torch.ones(size, size, dtype=kind, device=device)
        product, flop = partial(torch.matmul, a, a), 2 * size**3
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        product().flatten()[0].item()
        best = min(best, time.perf_counter() - started)
    return round(flop / best)


def _disk(count: int = 256) -> float:
    """Bytes per second of a plain file of `count` MiB that is written to the disk."""
    with tempfile.NamedTemporaryFile(dir=os.environ.get("TMPDIR")) as file:
        block = np.random.default_rng(0).bytes(2**20)
        started = time.perf_counter()
        for _ in range(count):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return round(count * 2**20 / (time.perf_counter() - started))


def run(sizes: list[int], bands: list[int], methods: list[str], device: str) -> list[Row]:
    """Every method on every scene."""
    rows = []
    for count in bands:
        for size in sizes:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                pan, ms = make_scene(folder, size, count)
                lines = commands(pan, ms, count, device)
                for method in methods:
                    target = folder / method / "out.tif"
                    target.parent.mkdir()
                    row = {"method": method, "size": size, "bands": count, "device": device}
                    row |= measure(lines[method](target), target)
                    row |= {"bytes_in": pan.stat().st_size + ms.stat().st_size, "bytes_out": target.stat().st_size}
                    shutil.rmtree(target.parent)
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    return rows


def installed(methods: list[str]) -> list[str]:
    """Those that can run here, `otb` spelt out; says which are left out."""
    wanted = [one for method in methods for one in (METHODS[4:] if method == "otb" else (method,))]
    tools = {method: "gdal_pansharpen.py" if method == "gdal" else OTB for method in METHODS[3:]}
    missing = [method for method in wanted if method in tools and shutil.which(tools[method]) is None]
    for method in missing:
        print(f"{method} is left out: {tools[method]} is not installed", file=sys.stderr)
    return [method for method in wanted if method not in missing]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 4096, 8192, 16384], help="sides of the PAN")
    parser.add_argument("--bands", type=int, nargs="+", default=[4, 8], choices=sorted(SENSORS))
    parser.add_argument("--methods", nargs="+", default=["sharpen", "plain", "gdal", "otb"], choices=[*METHODS, "otb"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "speed.json")
    parser.add_argument("--plain", type=Path, nargs=3, metavar=("PAN", "MS", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        plain(*options.plain)
        return
    before = json.loads(options.output.read_text()) if options.output.exists() else {"machine": {}, "rows": []}
    rows = run(options.sizes, options.bands, installed(options.methods), options.device)
    fresh = {_key(row) for row in rows}
    kept = [row for row in before["rows"] if _key(row) not in fresh]
    note = {"note": before["machine"].get("note", "")}  # of the rows that are kept, written by hand
    everything = {"machine": machine(options.device) | note, "rows": kept + rows}
    options.output.write_text(json.dumps(everything, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(page(everything["machine"], everything["rows"], BUSY))


def _key(row: Row) -> tuple[Any, ...]:
    return row["method"], row["size"], row["bands"], row["device"]


if __name__ == "__main__":
    main()
