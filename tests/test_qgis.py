"""The Processing script: its parameters and command line against a stub, and a run in QGIS where there is one."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import rasterio

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "qgis" / "crossdiff_sharpen.py"
COMMAND = f"{sys.executable} -m crossdiff_cli"


class Parameter:
    """Any QgsProcessingParameter...: what it was made with."""

    def __init__(self, name, description="", *extra, **options):
        self.name, self.description, self.extra, self.options, self.flag = name, description, extra, options, 0

    def flags(self):
        return self.flag

    def setFlags(self, flag):
        self.flag = flag


class Algorithm:
    """QgsProcessingAlgorithm, with parameters as plain values."""

    def __init__(self):
        self.parameters = {}

    def addParameter(self, parameter):
        self.parameters[parameter.name] = parameter

    def parameterAsString(self, parameters, name, context):
        return parameters.get(name) or ""

    def parameterAsOutputLayer(self, parameters, name, context):
        return parameters[name]

    def parameterAsRasterLayer(self, parameters, name, context):
        return parameters.get(name) and SimpleNamespace(source=lambda: parameters[name])

    def parameterAsLayerList(self, parameters, name, context):
        return [SimpleNamespace(source=lambda path=path: path) for path in parameters.get(name, ())]


class Feedback:
    def __init__(self, canceled=False):
        self.lines, self.canceled = [], canceled

    def isCanceled(self):
        return self.canceled

    def pushInfo(self, line):
        self.lines.append(line)

    pushCommandInfo = pushInfo


@pytest.fixture
def algorithm(monkeypatch):
    """The script's algorithm on a stub of qgis.core that has just what QGIS 3.22 has of it."""
    core = ModuleType("qgis.core")
    core.QgsProcessing = SimpleNamespace(TypeRaster=3)
    core.QgsProcessingAlgorithm = Algorithm
    core.QgsProcessingException = type("QgsProcessingException", (Exception,), {})
    core.QgsProcessingParameterDefinition = SimpleNamespace(FlagAdvanced=2)
    for kind in ("MultipleLayers", "RasterDestination", "RasterLayer", "String"):
        setattr(core, f"QgsProcessingParameter{kind}", type(kind, (Parameter,), {}))
    monkeypatch.setitem(sys.modules, "qgis", ModuleType("qgis"))
    monkeypatch.setitem(sys.modules, "qgis.core", core)
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("crossdiff_sharpen", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.CrossDiffSharpen().createInstance()
    made.initAlgorithm()
    made.error = core.QgsProcessingException
    return made


def test_parameters(algorithm):
    kinds = {name: type(parameter).__name__ for name, parameter in algorithm.parameters.items()}
    assert kinds == {
        "PAN": "RasterLayer", "MS": "MultipleLayers", "SENSOR": "String", "BANDS": "String", "OPTIONS": "String",
        "COMMAND": "String", "OUTPUT": "RasterDestination",
    }  # fmt: skip
    assert [name for name, parameter in algorithm.parameters.items() if parameter.flag & 2] == ["OPTIONS", "COMMAND"]
    assert algorithm.parameters["SENSOR"].options["defaultValue"] == "auto"
    assert algorithm.parameters["COMMAND"].options["defaultValue"] == "crossdiff"
    assert (algorithm.name(), algorithm.groupId()) == ("crossdiffsharpen", "pansharpening")
    assert "crossdiff sensors" in algorithm.shortHelpString()


def test_command_line(algorithm):
    given = {"PAN": "a b/pan.tif", "MS": ["b.tif", "g.tif"], "SENSOR": "", "BANDS": "B,G", "OPTIONS": "--of COG --stac"}
    assert algorithm.command(given, None, "out.tif") == [
        "crossdiff", "sharpen", "a b/pan.tif", "b.tif", "g.tif", "-o", "out.tif", "--overwrite", "--json", "--sensor",
        "auto", "--bands", "B,G", "--of", "COG", "--stac",
    ]  # fmt: skip
    assert algorithm.command({**given, "COMMAND": COMMAND}, None, "out.tif")[:3] == COMMAND.split()
    with pytest.raises(algorithm.error, match="Give a panchromatic"):
        algorithm.command({"PAN": "pan.tif"}, None, "out.tif")


def test_it_runs_the_command(algorithm, make_pair, tmp_path, untrained_weights, monkeypatch):
    files = make_pair()
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # as the launchers of QGIS do
    out = str(tmp_path / "out.tif")
    feedback = Feedback()
    given = {
        "PAN": files.pan, "MS": [files.ms], "SENSOR": "qb", "OUTPUT": out, "COMMAND": COMMAND,
        "OPTIONS": f"--weights {untrained_weights} --device cpu",
    }  # fmt: skip
    assert algorithm.processAlgorithm(given, None, feedback) == {"OUTPUT": out}
    assert "qb, bands B,G,R,NIR" in feedback.lines[-1]
    with rasterio.open(out) as file:
        assert file.count == 4


def test_failures_are_told(algorithm, tmp_path):
    given = {"PAN": "none.tif", "MS": ["none.tif"], "OUTPUT": str(tmp_path / "out.tif"), "COMMAND": COMMAND}
    with pytest.raises(algorithm.error, match=r"none\.tif"):
        algorithm.processAlgorithm(given, None, Feedback())
    with pytest.raises(algorithm.error, match="give the full path"):
        algorithm.processAlgorithm({**given, "COMMAND": "no-such-program"}, None, Feedback())


def test_cancelling_ends_the_command(algorithm, tmp_path):
    """A command that would run for long ends at once, and is not taken for a failure."""
    given = {"PAN": "a.tif", "MS": ["b.tif"], "OUTPUT": str(tmp_path / "out.tif")}
    algorithm.command = lambda *_: ["sleep", "60"]
    assert algorithm.processAlgorithm(given, None, Feedback(canceled=True)) == {}


RUN = """
import json, sys
from qgis.core import QgsApplication, QgsProcessingContext, QgsProcessingFeedback, QgsProject, QgsRasterLayer
script, pan, ms, output, options, command = sys.argv[1:]
application = QgsApplication([], False)
application.initQgis()
sys.path.append(QgsApplication.pkgDataPath() + "/python/plugins")
from processing.script.ScriptUtils import loadAlgorithm  # what the toolbox calls
algorithm = loadAlgorithm("crossdiff_sharpen", script).create()
context, feedback = QgsProcessingContext(), QgsProcessingFeedback()
context.setProject(QgsProject.instance())
given = {"PAN": pan, "MS": [ms], "SENSOR": "qb", "OUTPUT": output, "OPTIONS": options, "COMMAND": command}
allowed, why = algorithm.checkParameterValues(given, context)
assert allowed, why
results, done = algorithm.run(given, context, feedback)
layer = QgsRasterLayer(results["OUTPUT"], "sharp")
print(json.dumps({
    "done": done, "valid": layer.isValid(), "size": [layer.width(), layer.height()], "crs": layer.crs().authid(),
    "bands": [layer.bandName(i + 1) for i in range(layer.bandCount())], "log": feedback.textLog(),
}))
"""


def qgis_python():
    """A Python that can import QGIS: this one, or that of the distribution, for which Debian packages it."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    environment.pop("PYTHONPATH", None)
    for python in (sys.executable, shutil.which("python3", path="/usr/bin")):
        if (
            python
            and not subprocess.run(
                [python, "-c", "import qgis.core"], capture_output=True, check=False, env=environment
            ).returncode
        ):
            return python, environment
    pytest.skip("no Python with QGIS")


def test_it_runs_in_qgis(make_pair, tmp_path, untrained_weights):
    python, environment = qgis_python()
    files = make_pair()
    out = tmp_path / "out.tif"
    options = f"--weights {untrained_weights} --device cpu"
    done = subprocess.run(
        [python, "-c", RUN, str(SCRIPT), files.pan, files.ms, str(out), options, COMMAND],
        capture_output=True, text=True, check=False, timeout=120, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["done"], facts["log"]
    assert facts["valid"]
    assert facts["size"] == [256, 256]
    assert facts["crs"] == "EPSG:32633"
    assert [name.split(": ")[1].split(" ")[0] for name in facts["bands"]] == ["B", "G", "R", "NIR"]
