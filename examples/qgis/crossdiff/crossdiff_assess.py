"""`crossdiff assess` in the Processing toolbox: figures and a page about a sharpened image."""

import json
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingOutputNumber,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from .crossdiff_sharpen import Described, add_advanced, further, identification, program, run

FIGURES = {"HQNR": "hqnr", "D_RHO": "d_rho", "R_ERGAS": "r_ergas", "ERGAS": "ergas", "SAM": "sam", "Q2N": "q2n"}


class CrossDiffAssess(Described, QgsProcessingAlgorithm):
    """A result with its PAN and MS in, figures and an HTML page out."""

    NAME, TITLE = "crossdiffassess", "Assess a sharpened image"
    HELP = (
        "Scores a sharpened image, made by any program, against the images it was made from, and against a "
        "reference where there is one. The page shows pictures, error maps and six classical methods on the same "
        "scene.\n\nHQNR: 1 is best, compare results that are about equally sharp only. D_RHO: distance from the "
        "detail of the panchromatic image. R_ERGAS: 0 is best, fidelity to the colours of the multispectral image. "
        "ERGAS, SAM and Q2N need the reference."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare parameters and figures."""
        self.addParameter(QgsProcessingParameterRasterLayer("FUSED", "Sharpened image"))
        self.addParameter(QgsProcessingParameterRasterLayer("PAN", "Panchromatic image"))
        self.addParameter(QgsProcessingParameterMultipleLayers("MS", "Multispectral image", QgsProcessing.TypeRaster))
        self.addParameter(QgsProcessingParameterRasterLayer("REFERENCE", "True result, where known", optional=True))
        self.addParameter(QgsProcessingParameterString("SENSOR", "Sensor", defaultValue="auto"))
        self.addParameter(QgsProcessingParameterString("BANDS", "Bands in file order", optional=True))
        add_advanced(self)
        self.addParameter(QgsProcessingParameterFileDestination("OUTPUT", "Report", "HTML files (*.html)"))
        for name in FIGURES:
            self.addOutput(QgsProcessingOutputNumber(name, name))

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        """Run the command and hand its figures back."""
        page = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        told = run(self.command(parameters, context, page), feedback)
        if feedback.isCanceled():
            return {}
        facts = json.loads(told)
        figures = {name: facts[key] for name, key in FIGURES.items() if facts.get(key) is not None}
        feedback.pushInfo(", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
        return {"OUTPUT": page, **figures}

    def command(self, parameters: Any, context: Any, page: str) -> list[str]:
        """The command line that the parameters mean."""
        fused, pan, reference = (
            self.parameterAsRasterLayer(parameters, name, context) for name in ("FUSED", "PAN", "REFERENCE")
        )
        ms = self.parameterAsLayerList(parameters, "MS", context)
        if fused is None or pan is None or not ms:
            raise QgsProcessingException("Give the sharpened image and the two that it was made from")
        arguments = [*program(self, parameters, context), "assess", fused.source(), "--pan", pan.source()]
        arguments += [word for layer in ms for word in ("--ms", layer.source())]
        arguments += ["--reference", reference.source()] if reference is not None else []
        arguments += ["--html", page, "--json"]
        return arguments + identification(self, parameters, context) + further(self, parameters, context)
