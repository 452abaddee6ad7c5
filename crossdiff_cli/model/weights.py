"""Weights on disk: safetensors with architecture and provenance in the metadata, loaded strictly."""

import hashlib
import json
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crossdiff_cli.errors import WeightsError
from crossdiff_cli.model.crossdiff import Architecture, CrossDiff

FORMAT = "crossdiff-2"
DEFAULT_NAME = "crossdiff.safetensors"
_MAX_CHANNELS = 4096


def default_weights() -> Path:
    """Path of the shipped weights.

    Raises:
        WeightsError: the installation has none.
    """
    with as_file(files("crossdiff_weights") / DEFAULT_NAME) as path:
        if not path.is_file():
            raise WeightsError(f"this installation has no {DEFAULT_NAME}; name a weight file with --weights")
        return path


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
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(state, temporary, metadata)
    temporary.replace(path)


def load(path: Path, device: torch.device | str = "cpu") -> tuple[CrossDiff, dict[str, Any]]:
    """Build the networks a file describes and fill them; every tensor must be there, of the right shape and finite.

    Returns:
        The model in eval mode, float32, gradients off, and the provenance.

    Raises:
        WeightsError: the file is missing, damaged, not CrossDiff's, or does not match its own architecture.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError as error:
        raise WeightsError(f"no weight file {path}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a safetensors file or is damaged ({error}); fetch it again") from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} holds weights of another program or version (format {metadata.get('format')!r}, not {FORMAT!r})"
        )
    try:
        architecture = Architecture.from_dict(json.loads(metadata["architecture"]))
        encoders = bool(json.loads(metadata["encoders"]))
        provenance = json.loads(metadata["provenance"])
        _check_size(architecture)
        model = CrossDiff(architecture, encoders=encoders)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} describes no network that this version can build ({error})") from error
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
        self._loaded: dict[tuple[object, ...], tuple[CrossDiff, str]] = {}

    def get(self, path: Path, device: torch.device) -> tuple[CrossDiff, str]:
        """The networks of a file, to be shared and not changed, and the file's digest; a changed file is read again.

        Raises:
            WeightsError: as `load`.
        """
        try:
            facts = path.stat()
        except OSError as error:
            raise WeightsError(f"no weight file {path}") from error
        key = (path.resolve(), facts.st_mtime_ns, facts.st_size, str(device))
        found = self._loaded.pop(key, None) or (load(path, device)[0], digest(path))
        self._loaded[key] = found
        while len(self._loaded) > self._keep:
            del self._loaded[next(iter(self._loaded))]
        return found


def _fill(model: CrossDiff, state: dict[str, Tensor], path: Path) -> None:
    wanted = model.state_dict()
    if state.keys() != wanted.keys():
        odd = sorted(state.keys() ^ wanted.keys())
        raise WeightsError(
            f"{path} does not match its architecture: {len(odd)} tensors missing or foreign, first {odd[0]}"
        )
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            raise WeightsError(
                f"{path}: {name} is {tuple(value.shape)}, the architecture needs {tuple(wanted[name].shape)}"
            )
        if not torch.isfinite(value.float()).all():
            raise WeightsError(f"{path}: {name} holds numbers that are not finite; fetch the file again")
    model.load_state_dict({name: value.float() for name, value in state.items()})


def _check_size(architecture: Architecture) -> None:
    numbers = [*architecture.widths, *architecture.blocks, *architecture.head_widths, architecture.decoder_width]
    if (
        not all(isinstance(n, int) and 0 < n <= _MAX_CHANNELS for n in numbers)
        or not 0 < architecture.timesteps <= 10**5
    ):
        raise ValueError(f"sizes out of range: {numbers}")
