"""Where and in which precision the network runs."""

import ctypes
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from crossdiff_cli.errors import DeviceError
from crossdiff_cli.options import Precision

PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int8: "int8"}

_DEVICES = "auto, cpu, cuda or cuda:N"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 32 * 2**20
"""The largest that glibc takes for a threshold."""


def choose_devices(names: str, precision: Precision, worker: int = 0) -> list[torch.device]:
    """Return the devices that `auto`, `cpu`, `cuda[:i]`, or several with commas between name.

    A device that is named twice works on two tiles at once; `cuda` and `cuda:0` are one device. `worker` as in
    `choose_device`.

    Raises:
        DeviceError: no such device on this machine, or one that cannot sharpen in `precision`.
    """
    devices = [choose_device(name.strip(), worker) for name in names.split(",")]
    for device in devices:
        inference_dtype(device, precision)
    return devices


def choose_device(name: str, worker: int = 0) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda[:i]` names; a CUDA device always has its index.

    Args:
        name: of the device.
        worker: number of this process among those of this machine that work at the same time: `auto` and `cuda` mean
            GPU number `worker` modulo the number of GPUs (those that CUDA_VISIBLE_DEVICES shows).

    Raises:
        DeviceError: no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError("--device names no device", found=repr(name), expected=_DEVICES) from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError("--device names no device", found=repr(name), expected=_DEVICES)
    if device.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    index = worker % max(count, 1) if device.index is None else device.index
    if index >= count:
        raise DeviceError(
            f"--device {name} is not on this machine", found=f"{count} CUDA devices",
            cure="--device cpu works everywhere",
        )  # fmt: skip
    return torch.device("cuda", index)


@contextmanager
def exact_float32(devices: Iterable[torch.device]) -> Iterator[None]:
    """Convolve float32 images in float32 while the context lasts, not in TF32, which CUDA takes by default."""
    if not any(device.type == "cuda" for device in devices):
        yield
        return
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def network_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """The network's precision in training: `auto` is bf16 where the device is faster in it, else float32."""
    if precision == "auto":
        precision = "bf16" if fast_in_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def inference_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """The network's precision in sharpening: `auto` is what the device is fastest in of bf16, int8 and float32.

    Raises:
        DeviceError: int8 was asked of a device that is not faster in it, or bf16 of a GPU that does not have it.
    """
    if precision == "bf16" and device.type == "cuda" and not fast_in_bf16(device):
        raise DeviceError(
            f"--precision bf16 is not what {device} computes in",
            found=f"compute capability {'.'.join(map(str, torch.cuda.get_device_capability(device)))}",
            expected="8.0 or more", cure="--precision auto takes what is fastest",
        )  # fmt: skip
    if precision == "auto" and not fast_in_bf16(device) and _fast_in_int8(device):
        return torch.int8
    if precision == "int8":
        if not _fast_in_int8(device):
            raise DeviceError(
                "--precision int8 needs a CPU with VNNI", found=device, cure="--precision auto takes what is fastest"
            )
        return torch.int8
    return network_dtype(device, precision)


def fast_in_bf16(device: torch.device) -> bool:
    """Return whether it is a GPU of compute capability 8.0 or more, or a CPU with AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return _cpu_has("_is_amx_tile_supported")


def _fast_in_int8(device: torch.device) -> bool:
    """CPUs with VNNI, the AVX2 kind included; without it products of bytes overflow."""
    if device.type != "cpu" or not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return False
    if _cpu_has("_is_vnni_supported"):
        return True
    with suppress(OSError):
        return " avx_vnni " in Path("/proc/cpuinfo").read_text()
    return False


def _cpu_has(question: str) -> bool:
    """Ask PyTorch for an instruction set; it does not promise to keep these functions."""
    return bool(getattr(torch.cpu, question, bool)())


def trim_heap() -> None:
    """Return to the system what glibc keeps in holes that nothing fits: they grow from tile to tile, slowly."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def tune_allocator() -> None:
    """Let glibc reuse blocks of up to 32 MiB instead of returning them.

    Every activation would otherwise be mapped, page-faulted and unmapped anew: elementwise work three times slower.
    Larger ones are few, and among the others they would leave holes that nothing fits. One arena serves all threads: in
    arenas of their own readers and writers would hoard what the others could use, the more the longer they run.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_ARENA_MAX, 1)
