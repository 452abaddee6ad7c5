"""CrossDiff: pansharpening by cross-predictive diffusion encoders and an adapted fusion head."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossdiff_cli.api import assess, degrade, describe, fuse, load_model, sharpen
    from crossdiff_cli.errors import CrossDiffError
    from crossdiff_cli.options import (
        DegradeOptions,
        EstimateOptions,
        NetworkOptions,
        OutputOptions,
        PairOptions,
        RuntimeOptions,
        SharpenOptions,
    )

__version__ = "0.1.0"
__all__ = [
    "CrossDiffError",
    "DegradeOptions",
    "EstimateOptions",
    "NetworkOptions",
    "OutputOptions",
    "PairOptions",
    "RuntimeOptions",
    "SharpenOptions",
    "assess",
    "degrade",
    "describe",
    "fuse",
    "load_model",
    "sharpen",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the command line starts without torch and rasterio (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "errors" if name == "CrossDiffError" else "options" if name.endswith("Options") else "api"
    return getattr(import_module(f"{__name__}.{module}"), name)
