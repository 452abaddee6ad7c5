"""CrossDiff in the Processing toolbox of QGIS 3: starts the command `crossdiff sharpen`.

In the toolbox: Python button, Add Script to Toolbox, this file. It then stands under Scripts, Pansharpening, and can be
used in batches and models. CrossDiff itself is not installed into QGIS: where `crossdiff` is not on the PATH that QGIS
sees, give its full path in the advanced parameters, or in the environment variable CROSSDIFF_COMMAND.
"""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

# QGIS brings its own Python, GDAL and PROJ; another Python that found their folders would not start.
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA")


class CrossDiffSharpen(QgsProcessingAlgorithm):
    """Parameters in, one command, a raster out."""

    def name(self) -> str:
        """Identifier: `script:crossdiffsharpen`."""
        return "crossdiffsharpen"

    def displayName(self) -> str:
        """Name in the toolbox."""
        return "CrossDiff pansharpening"

    def group(self) -> str:
        """Group in the toolbox."""
        return "Pansharpening"

    def groupId(self) -> str:
        """Identifier of the group."""
        return "pansharpening"

    def shortHelpString(self) -> str:
        """Text beside the parameters."""
        return (
            "Fuses a panchromatic and a multispectral image into a sharp multispectral GeoTIFF on the grid of the "
            "panchromatic one. Give the multispectral image as one layer, or one layer per band in the order of "
            "the result.\n\nSensor: auto, or a key as `crossdiff sensors` lists them (wv3, ge1, phr, l8, ...). Bands: "
            "names in file order (B,G,R,NIR), only where the files do not say.\n\nFurther options are those of "
            "`crossdiff sharpen`, such as --of COG --stac --out-bands R,G,B."
        )

    def createInstance(self) -> "CrossDiffSharpen":
        """QGIS runs a new object each time."""
        return CrossDiffSharpen()

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        command = os.environ.get("CROSSDIFF_COMMAND", "crossdiff")
        self.addParameter(QgsProcessingParameterRasterLayer("PAN", "Panchromatic image"))
        self.addParameter(QgsProcessingParameterMultipleLayers("MS", "Multispectral image", QgsProcessing.TypeRaster))
        self.addParameter(QgsProcessingParameterString("SENSOR", "Sensor", defaultValue="auto"))
        self.addParameter(QgsProcessingParameterString("BANDS", "Bands in file order", optional=True))
        self._add_advanced(QgsProcessingParameterString("OPTIONS", "Further options", optional=True))
        self._add_advanced(QgsProcessingParameterString("COMMAND", "The crossdiff command", defaultValue=command))
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", "Sharpened image"))

    def _add_advanced(self, parameter: Any) -> None:
        parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
        self.addParameter(parameter)

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        """Run the command and hand its result back."""
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        arguments = self.command(parameters, context, output)
        feedback.pushCommandInfo(shlex.join(arguments))
        self._run(arguments, feedback)
        return {} if feedback.isCanceled() else {"OUTPUT": output}

    def command(self, parameters: Any, context: Any, output: str) -> list[str]:
        """The command line that the parameters mean."""

        def text(name: str) -> str:
            return self.parameterAsString(parameters, name, context).strip()

        pan = self.parameterAsRasterLayer(parameters, "PAN", context)
        ms = self.parameterAsLayerList(parameters, "MS", context)
        if pan is None or not ms:
            raise QgsProcessingException("Give a panchromatic and a multispectral image")
        program = text("COMMAND") or "crossdiff"
        arguments = [program] if Path(program).is_file() else shlex.split(program, posix=os.name != "nt")
        arguments += ["sharpen", pan.source(), *(layer.source() for layer in ms), "-o", output]
        arguments += ["--overwrite", "--json", "--sensor", text("SENSOR") or "auto"]
        if text("BANDS"):
            arguments += ["--bands", text("BANDS")]
        return arguments + shlex.split(text("OPTIONS"))

    def _run(self, arguments: list[str], feedback: Any) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        try:
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                encoding="utf-8", errors="replace", env=environment,
            )  # fmt: skip
        except OSError as error:
            raise QgsProcessingException(
                f"Cannot start {arguments[0]} ({error.strerror}): give the full path of crossdiff as its command"
            ) from error
        while True:
            try:
                told, warned = process.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                if feedback.isCanceled():
                    process.terminate()  # crossdiff then removes what it has begun to write
        for line in warned.splitlines():
            feedback.pushInfo(line)
        if process.returncode and not feedback.isCanceled():
            lines = warned.strip().splitlines()
            raise QgsProcessingException(lines[-1] if lines else f"crossdiff ended with code {process.returncode}")
        if told.strip():
            facts = json.loads(told)
            feedback.pushInfo(
                f"{facts['sensor']}, bands {','.join(facts['bands'])}, {facts['seconds']} s; degraded, the result "
                f"reproduces the multispectral image to within {100 * facts['consistency']:.2f} %"
            )
