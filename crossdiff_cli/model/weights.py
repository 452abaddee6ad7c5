"""Weights on disk: safetensors with architecture and provenance in the metadata, loaded strictly."""

import hashlib
import json
import math
import threading
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crossdiff_cli.errors import WeightsError
from crossdiff_cli.model.crossdiff import Architecture, CrossDiff
from crossdiff_cli.model.diffusion import PREDICTION_TYPES
from crossdiff_cli.system.atomic import replacing
from crossdiff_cli.system.weight_files import no_weights

FORMAT = "crossdiff-2"
_MAX_CHANNELS = 4096
_MAX_BLOCKS = 64
_MAX_LEVELS = 8
_MAX_TIMESTEPS = 10**5
_MAX_BYTES = 2**31
"""A hundred times the size of the shipped weights; what is larger is not read into memory."""


def save(model: CrossDiff, path: Path, provenance: dict[str, Any], dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the networks.

    Args:
        model: the networks.
        path: target file, replaced atomically.
        provenance: JSON-able facts on data, steps and scores.
        dtype: storage type.
    """
    state = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "architecture": json.dumps(model.architecture.as_dict()),
        "encoders": json.dumps(model.p2m is not None),
        "provenance": json.dumps(provenance),
    }
    with replacing(path) as temporary:
        save_file(state, temporary, metadata)


def load(path: Path, device: torch.device | str = "cpu") -> tuple[CrossDiff, dict[str, Any]]:
    """Build the networks a file describes and fill them; every tensor must be there, of the right shape and finite.

    Returns:
        The model in eval mode, float32, gradients off, and the provenance.

    Raises:
        WeightsError: the file is missing, damaged, not CrossDiff's, or does not match its own architecture.
    """
    _check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            "it is not a safetensors file or is damaged", path=path, found=str(error), cure="fetch it again"
        ) from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            "it holds weights of another program or version",
            path=path,
            found=f"format {metadata.get('format')!r}",
            expected=repr(FORMAT),
        )
    try:
        architecture = Architecture.from_dict(json.loads(metadata["architecture"]))
        encoders = bool(json.loads(metadata["encoders"]))
        provenance = json.loads(metadata["provenance"])
        if not isinstance(provenance, dict):
            raise TypeError("the provenance is no JSON object")
        _check_architecture(architecture)
        _check_filled(architecture, sum(value.numel() for value in state.values()), encoders=encoders)
        with torch.random.fork_rng(devices=[]):
            model = CrossDiff(architecture, encoders=encoders)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise WeightsError(
            "it describes no network that this version can build", path=path, found=str(error)
        ) from error
    _fill(model, state, path)
    model.eval().requires_grad_(False)
    return model.to(device).channels_last(), provenance


def digest(path: Path) -> str:
    """First 16 hexadecimal digits of the file's SHA-256, as written to results."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


class WeightStore:
    """Networks that are loaded, for whoever sharpens many scenes: a file is read once for each device."""

    def __init__(self, keep: int = 4) -> None:
        """`keep`: how many networks stay in memory; the one that was not asked for longest goes."""
        self._keep = keep
        self._lock = threading.Lock()
        self._loaded: dict[tuple[object, ...], tuple[CrossDiff, str]] = {}

    def get(self, path: Path, device: torch.device) -> tuple[CrossDiff, str]:
        """The networks of a file, to be shared and not changed, and the file's digest; a changed file is read again.

        Raises:
            WeightsError: as `load`.
        """
        try:
            facts = path.stat()
        except OSError as error:
            raise no_weights(path) from error
        key = (path.resolve(), facts.st_mtime_ns, facts.st_size, str(device))
        with self._lock:
            found = self._loaded.pop(key, None) or (load(path, device)[0], digest(path))
            self._loaded[key] = found
            while len(self._loaded) > self._keep:
                del self._loaded[next(iter(self._loaded))]
        return found


def _check_file(path: Path) -> None:
    try:
        facts = path.stat()
    except FileNotFoundError as error:
        raise no_weights(path) from error
    except OSError as error:
        raise WeightsError("the weight file cannot be opened", path=path, found=str(error)) from error
    if not path.is_file():
        raise WeightsError("it is a folder, pipe or device", path=path, cure="name a .safetensors file")
    if facts.st_size > _MAX_BYTES:
        raise WeightsError(
            "it is larger than weights of CrossDiff are",
            path=path,
            found=f"{facts.st_size / 2**20:.0f} MiB",
            expected=f"at most {_MAX_BYTES // 2**20} MiB",
        )


def _fill(model: CrossDiff, state: dict[str, Tensor], path: Path) -> None:
    wanted = model.state_dict()
    if state.keys() != wanted.keys():
        odd = sorted(state.keys() ^ wanted.keys())
        raise WeightsError(
            "it does not match its architecture: tensors are missing or foreign",
            path=path,
            found=f"{len(odd)}, the first {odd[0]}",
        )
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            raise WeightsError(
                f"the tensor {name} has a shape that its architecture does not have",
                path=path,
                found=tuple(value.shape),
                expected=tuple(wanted[name].shape),
            )
        if not value.is_floating_point() or not torch.isfinite(value.float()).all():
            raise WeightsError(
                f"the tensor {name} holds numbers that are not finite", path=path, cure="fetch the file again"
            )
    model.load_state_dict({name: value.float() for name, value in state.items()})


def _check_architecture(a: Architecture) -> None:
    """Refuse sizes and settings that no network has, before anything is built.

    Raises:
        ValueError: one is out of range or of another type.
    """
    limits = (
        *((n, 1, _MAX_CHANNELS) for n in (*a.widths, *a.head_widths, a.decoder_width)),
        *((n, 1, _MAX_BLOCKS) for n in a.blocks),
        (a.timesteps, 1, _MAX_TIMESTEPS),
        *((n, 0, _MAX_TIMESTEPS) for n in (a.p2m_timestep, a.m2p_timestep)),
        (len(a.stage_nm), 0, _MAX_CHANNELS),
    )
    odd = [n for n, low, high in limits if not isinstance(n, int) or not low <= n <= high]
    if odd or len(a.widths) > _MAX_LEVELS:
        raise ValueError(f"sizes out of range: {str(odd or a.widths)[:80]}")
    if not isinstance(a.m2p_features, bool):
        raise ValueError(f"m2p_features is {str(a.m2p_features)[:40]}, not true or false")
    if not isinstance(a.kappa, float | int) or not 0 < a.kappa < math.inf:
        raise ValueError(f"kappa {str(a.kappa)[:40]} is out of range")
    if a.prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type {str(a.prediction_type)[:40]} is unknown")


def _check_filled(a: Architecture, numbers: int, *, encoders: bool) -> None:
    """Refuse a network far larger than its file before memory is taken: every block leads all channels to all.

    Raises:
        ValueError: the file holds too few numbers.
    """
    blocks = sum(n * width**2 for n, width in zip(a.blocks, a.widths, strict=True)) if encoders else 0
    least = blocks + sum(width**2 for width in a.head_widths)
    if least > numbers:
        raise ValueError(f"it needs more than {least} numbers, the file holds {numbers}")
