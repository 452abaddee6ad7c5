"""CrossDiff for QGIS: pansharpening in the Processing toolbox."""

from typing import Any


def classFactory(iface: Any) -> Any:
    """Return the plugin; `iface` is the window of QGIS, which it does not need."""
    from .provider import CrossDiffPlugin

    return CrossDiffPlugin()
