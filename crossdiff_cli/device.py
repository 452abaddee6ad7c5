"""Where and in which precision the network runs."""

import ctypes
import platform
from typing import Literal

import torch

from crossdiff_cli.errors import CrossDiffError

Precision = Literal["auto", "fp32", "bf16"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda[:i]`.

    Raises:
        CrossDiffError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CrossDiffError(f"--device {name!r} is none of auto, cpu, cuda, cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise CrossDiffError(f"--device {name!r} is none of auto, cpu, cuda, cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise CrossDiffError(
                f"--device {name}: this machine has {count} CUDA devices; --device cpu works everywhere"
            )
    return device


def network_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """The network's precision: `auto` is bf16 where the device is faster in it (CUDA, CPU with AMX), else float32."""
    if precision == "auto":
        fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
        precision = "bf16" if fast else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def keep_memory() -> None:
    """Let glibc reuse large blocks instead of returning them.

    Every activation would otherwise be mapped, page-faulted and unmapped anew: elementwise work three times slower.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
