"""CrossDiff in the Processing toolbox of QGIS 3: starts the command `crossdiff sharpen`.

This file is a part of the plugin and a Processing script by itself: in the toolbox, Python button, Add Script to
Toolbox. CrossDiff itself is not installed into QGIS: where `crossdiff` is not on the PATH that QGIS sees, give its full
path in the advanced parameters, or in the environment variable CROSSDIFF_COMMAND.
"""

import json
import os
import queue
import re
import shlex
import subprocess
import threading
from collections.abc import Callable
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
PERCENT = re.compile(r"\((\d+) %\)")


class Described:
    """What QGIS asks of every algorithm, from three constants.

    It is no algorithm itself: of a script QGIS takes the first one.
    """

    NAME, TITLE, HELP = "", "", ""

    def name(self) -> str:
        """Identifier, after `script:`, or `crossdiff:` in the plugin."""
        return self.NAME

    def displayName(self) -> str:
        """Name in the toolbox."""
        return self.TITLE

    def group(self) -> str:
        """Group in the toolbox."""
        return "Pansharpening"

    def groupId(self) -> str:
        """Identifier of the group."""
        return "pansharpening"

    def shortHelpString(self) -> str:
        """Text beside the parameters."""
        return self.HELP

    def createInstance(self) -> Any:
        """QGIS runs a new object each time."""
        return type(self)()


class CrossDiffSharpen(Described, QgsProcessingAlgorithm):
    """Parameters in, one command, a raster out."""

    NAME, TITLE = "crossdiffsharpen", "CrossDiff pansharpening"
    HELP = (
        "Fuses a panchromatic and a multispectral image into a sharp multispectral GeoTIFF on the grid of the "
        "panchromatic one. Give the multispectral image as one layer, or one layer per band in the order of "
        "the result.\n\nSensor: auto, or a key as `crossdiff sensors` lists them (wv3, ge1, phr, l8, ...). Bands: "
        "names in file order (B,G,R,NIR), only where the files do not say.\n\nFurther options are those of "
        "`crossdiff sharpen`, such as --of COG --stac --out-bands R,G,B."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        self.addParameter(QgsProcessingParameterRasterLayer("PAN", "Panchromatic image"))
        self.addParameter(QgsProcessingParameterMultipleLayers("MS", "Multispectral image", QgsProcessing.TypeRaster))
        self.addParameter(QgsProcessingParameterString("SENSOR", "Sensor", defaultValue="auto"))
        self.addParameter(QgsProcessingParameterString("BANDS", "Bands in file order", optional=True))
        add_advanced(self)
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", "Sharpened image"))

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        """Run the command and hand its result back."""
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        told = run(self.command(parameters, context, output), feedback)
        if feedback.isCanceled():
            return {}
        facts = json.loads(told)
        feedback.pushInfo(
            f"{facts['sensor']}, bands {','.join(facts['bands'])}, {facts['seconds']} s; degraded, the result "
            f"reproduces the multispectral image to within {100 * facts['consistency']:.2f} %"
        )
        return {"OUTPUT": output}

    def command(self, parameters: Any, context: Any, output: str) -> list[str]:
        """The command line that the parameters mean."""
        pan = self.parameterAsRasterLayer(parameters, "PAN", context)
        ms = self.parameterAsLayerList(parameters, "MS", context)
        if pan is None or not ms:
            raise QgsProcessingException("Give a panchromatic and a multispectral image")
        arguments = [*program(self, parameters, context), "sharpen", pan.source(), *(layer.source() for layer in ms)]
        arguments += ["-o", output, "--overwrite", "--json"]
        return arguments + identification(self, parameters, context) + further(self, parameters, context)


def add_advanced(algorithm: Any) -> None:
    """Declare what every algorithm has: further options, and how the command is called."""
    command = os.environ.get("CROSSDIFF_COMMAND", "crossdiff")
    for parameter in (
        QgsProcessingParameterString("OPTIONS", "Further options", optional=True),
        QgsProcessingParameterString("COMMAND", "The crossdiff command", defaultValue=command),
    ):
        parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
        algorithm.addParameter(parameter)


def text(algorithm: Any, parameters: Any, name: str, context: Any) -> str:
    """The value of a text parameter."""
    return str(algorithm.parameterAsString(parameters, name, context)).strip()


def program(algorithm: Any, parameters: Any, context: Any) -> list[str]:
    """The words that call crossdiff."""
    command = text(algorithm, parameters, "COMMAND", context) or "crossdiff"
    return [command] if Path(command).is_file() else shlex.split(command, posix=os.name != "nt")


def identification(algorithm: Any, parameters: Any, context: Any) -> list[str]:
    """The options that name sensor and bands."""
    bands = text(algorithm, parameters, "BANDS", context)
    sensor = text(algorithm, parameters, "SENSOR", context) or "auto"
    return ["--sensor", sensor, *(["--bands", bands] if bands else [])]


def further(algorithm: Any, parameters: Any, context: Any) -> list[str]:
    """The options that stand in the advanced parameters."""
    return shlex.split(text(algorithm, parameters, "OPTIONS", context))


def percent_of_line(line: str) -> float | None:
    """The progress that a line of the log tells."""
    found = PERCENT.search(line)
    return float(found[1]) if found else None


def run(arguments: list[str], feedback: Any, percent: Callable[[str], float | None] = percent_of_line) -> str:
    """Run a command to its end, or until QGIS cancels it, and return what it printed.

    Raises:
        QgsProcessingException: it cannot be started, or fails.
    """
    feedback.pushCommandInfo(shlex.join(arguments))
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    try:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", errors="replace", env={**environment, "CROSSDIFF_PROGRESS_SECONDS": "1"},
        )  # fmt: skip
    except OSError as error:
        raise QgsProcessingException(
            f"Cannot start {arguments[0]} ({error.strerror}): give the full path of crossdiff as its command"
        ) from error
    with process:
        printed, last = _listen(process, feedback, percent)
    if process.returncode and not feedback.isCanceled():
        raise QgsProcessingException(last or f"crossdiff ended with code {process.returncode}")
    return printed


def _listen(process: Any, feedback: Any, percent: Callable[[str], float | None]) -> tuple[str, str]:
    """Hand the log over line by line while the command runs; what it printed, and the last line of its log."""
    printed: list[str] = []
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read_log() -> None:
        for line in process.stderr:
            lines.put(line.rstrip())
        lines.put(None)

    threads = [
        threading.Thread(target=read_log),
        threading.Thread(target=lambda: printed.append(process.stdout.read())),
    ]
    for thread in threads:
        thread.start()
    last = ""
    line: str | None = ""
    while line is not None:
        if feedback.isCanceled():
            process.terminate()  # crossdiff then removes what it has begun to write
        try:
            line = lines.get(timeout=0.2)
        except queue.Empty:
            continue
        if line:
            last = line
            feedback.pushInfo(line)
            if (done := percent(line)) is not None:
                feedback.setProgress(done)
    for thread in threads:
        thread.join()
    return printed[0], last
