"""Throughput of pretraining on this machine: patches per second, and the share of time spent waiting for data.

    python benchmarks/training_speed.py index.json --device cpu --steps 60

Runs `crossdiff pretrain` for a few steps in a temporary folder and reads its journal; one row of Markdown per size.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SIZES = ((96, 4, 4), (128, 2, 4))
"""Side of a window, windows per scene, scenes per step."""


def measure(manifest: Path, device: str, steps: int, size: tuple[int, int, int]) -> dict[str, float]:
    """The last line of the journal of one run."""
    patch, batch, groups = size
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "crossdiff_cli", "-q", "pretrain", str(manifest), "-o", folder,
                   "--steps", str(steps), "--patch", str(patch), "--batch", str(batch), "--groups", str(groups),
                   "--checkpoint-every", str(steps), "--device", device]  # fmt: skip
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        line: dict[str, float] = json.loads((Path(folder) / "pretrain.jsonl").read_text().splitlines()[-1])
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.processor() or "CPU"
    print(
        "| device | window | windows x scenes | patches/s | Mpx/s | waiting for data |\n|---|---:|---:|---:|---:|---:|"
    )
    for size in SIZES:
        line = measure(options.manifest, options.device, options.steps, size)
        rate = line["patches_per_s"]
        print(f"| {name}, {torch.get_num_threads()} threads | {size[0]} px | {size[1]} x {size[2]} | {rate:.1f} "
              f"| {rate * size[0] ** 2 / 1e6:.3f} | {100 * line['waiting']:.1f} % |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
