"""The algorithms of CrossDiff as a provider of the Processing toolbox, and the plugin that registers it."""

from pathlib import Path
from typing import Any

from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .crossdiff_adapt import CrossDiffAdapt
from .crossdiff_assess import CrossDiffAssess
from .crossdiff_sharpen import CrossDiffSharpen


class CrossDiffProvider(QgsProcessingProvider):
    """Sharpen, adapt and assess."""

    def id(self) -> str:
        """Prefix of the identifiers of the algorithms."""
        return "crossdiff"

    def name(self) -> str:
        """Name in the toolbox."""
        return "CrossDiff"

    def icon(self) -> Any:
        """Icon in the toolbox."""
        return QIcon(str(Path(__file__).with_name("icon.svg")))

    def loadAlgorithms(self) -> None:
        """Make the algorithms."""
        for algorithm in (CrossDiffSharpen, CrossDiffAdapt, CrossDiffAssess):
            self.addAlgorithm(algorithm())


class CrossDiffPlugin:
    """Registers the provider while the plugin is active, in the window and in `qgis_process`."""

    def __init__(self) -> None:
        self._provider: Any = None

    def initProcessing(self) -> None:
        """Register the provider; QGIS calls only this one where there is no window."""
        self._provider = CrossDiffProvider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        """Begin in the window."""
        self.initProcessing()

    def unload(self) -> None:
        """Take the provider back."""
        QgsApplication.processingRegistry().removeProvider(self._provider)
