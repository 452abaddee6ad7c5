"""`crossdiff adapt` in the Processing toolbox: fits the fusion head to scenes of a sensor."""

import re
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from .crossdiff_sharpen import Described, add_advanced, further, program, run, text

STEP = re.compile(r"\bstep (\d+)\b")


class CrossDiffAdapt(Described, QgsProcessingAlgorithm):
    """A pair or a folder of pairs in; the head is kept under the name of the sensor."""

    NAME, TITLE = "crossdiffadapt", "Adapt CrossDiff to a sensor"
    HELP = (
        "Fits the fusion head to your scenes of a sensor, without a reference, in minutes. Give one pair, or a "
        "folder of pairs (a_pan.tif, a_ms.tif) or deliveries. Where the fitted head is better on windows that were "
        "held out, it is kept, and used whenever that sensor is named in CrossDiff pansharpening.\n\nSensor: a key "
        "as `crossdiff sensors` lists them, or a TOML file that defines one.\n\nFurther options are those of "
        "`crossdiff adapt`, such as --bands B,G,R,NIR --force."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        self.addParameter(QgsProcessingParameterString("SENSOR", "Sensor"))
        self.addParameter(QgsProcessingParameterRasterLayer("PAN", "Panchromatic image", optional=True))
        self.addParameter(QgsProcessingParameterRasterLayer("MS", "Multispectral image", optional=True))
        folder = QgsProcessingParameterFile.Folder
        self.addParameter(QgsProcessingParameterFile("FOLDER", "Folder of pairs", behavior=folder, optional=True))
        self.addParameter(QgsProcessingParameterNumber("STEPS", "Optimiser steps", defaultValue=400, minValue=1))
        add_advanced(self)

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        """Run the command; its log tells what was gained."""
        steps = self.parameterAsInt(parameters, "STEPS", context)

        def percent(line: str) -> float | None:
            found = STEP.search(line)
            return min(100.0, 100 * int(found[1]) / steps) if found else None

        run(self.command(parameters, context), feedback, percent)
        return {} if feedback.isCanceled() else {"SENSOR": text(self, parameters, "SENSOR", context)}

    def command(self, parameters: Any, context: Any) -> list[str]:
        """The command line that the parameters mean."""
        images = [self.parameterAsRasterLayer(parameters, name, context) for name in ("PAN", "MS")]
        folder, sensor = (text(self, parameters, name, context) for name in ("FOLDER", "SENSOR"))
        if not sensor or (images[0] is None) != (images[1] is None) or not (images[0] or folder):
            raise QgsProcessingException("Give a sensor, and a pair of images or a folder of pairs")
        scenes = [image.source() for image in images if image is not None] + ([folder] if folder else [])
        steps = str(self.parameterAsInt(parameters, "STEPS", context))
        arguments = [*program(self, parameters, context), "adapt", *scenes, "--sensor", sensor, "--steps", steps]
        return arguments + further(self, parameters, context)
