"""The QGIS plugin: parameters and command lines against a stub, the zip, and a run in QGIS where there is one."""

import configparser
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import rasterio

import crossdiff_cli

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "examples" / "qgis" / "crossdiff"
SCRIPT = PLUGIN / "crossdiff_sharpen.py"
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

    def addOutput(self, output):
        self.parameters[output.name] = output

    def parameterAsInt(self, parameters, name, context):
        return parameters.get(name, self.parameters[name].options["defaultValue"])

    def parameterAsFileOutput(self, parameters, name, context):
        return parameters[name]

    def parameterAsOutputLayer(self, parameters, name, context):
        return parameters[name]

    def parameterAsRasterLayer(self, parameters, name, context):
        return parameters.get(name) and SimpleNamespace(source=lambda: parameters[name])

    def parameterAsLayerList(self, parameters, name, context):
        return [SimpleNamespace(source=lambda path=path: path) for path in parameters.get(name, ())]


class Feedback:
    def __init__(self, canceled=False):
        self.lines, self.canceled, self.progress = [], canceled, []

    def isCanceled(self):
        return self.canceled

    def pushInfo(self, line):
        self.lines.append(line)

    pushCommandInfo = pushInfo

    def setProgress(self, percent):
        self.progress.append(percent)


class Registry:
    def __init__(self):
        self.providers = []

    def addProvider(self, provider):
        provider.loadAlgorithms()
        self.providers.append(provider)

    def removeProvider(self, provider):
        self.providers.remove(provider)


class Provider:
    """QgsProcessingProvider."""

    def __init__(self):
        self.algorithms = []

    def addAlgorithm(self, algorithm):
        self.algorithms.append(algorithm)


@pytest.fixture
def plugin(monkeypatch):
    """The plugin as QGIS imports it, on a stub of qgis that has just what QGIS 3.22 has of it."""
    core, gui = ModuleType("qgis.core"), ModuleType("qgis.PyQt.QtGui")
    registry = Registry()
    core.QgsApplication = SimpleNamespace(processingRegistry=lambda: registry)
    core.QgsProcessing = SimpleNamespace(TypeRaster=3)
    core.QgsProcessingAlgorithm = Algorithm
    core.QgsProcessingException = type("QgsProcessingException", (Exception,), {})
    core.QgsProcessingParameterDefinition = SimpleNamespace(FlagAdvanced=2)
    core.QgsProcessingProvider = Provider
    core.QgsProcessingOutputNumber = type("OutputNumber", (Parameter,), {})
    for kind in ("FileDestination", "MultipleLayers", "Number", "RasterDestination", "RasterLayer", "String"):
        setattr(core, f"QgsProcessingParameter{kind}", type(kind, (Parameter,), {}))
    core.QgsProcessingParameterFile = type("File", (Parameter,), {"Folder": 1})
    gui.QIcon = lambda path: SimpleNamespace(path=path)
    for name, module in (("qgis", ModuleType("qgis")), ("qgis.core", core), ("qgis.PyQt", ModuleType("qgis.PyQt")),
                         ("qgis.PyQt.QtGui", gui)):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(PLUGIN.parent))
    for name in [name for name in sys.modules if name.split(".")[0] == "crossdiff"]:
        monkeypatch.delitem(sys.modules, name)
    made = importlib.import_module("crossdiff").classFactory(None)
    yield SimpleNamespace(plugin=made, registry=registry, error=core.QgsProcessingException)
    for name in [name for name in sys.modules if name.split(".")[0] == "crossdiff"]:
        del sys.modules[name]


def instance(plugin, name):
    plugin.plugin.initGui()
    (found,) = [a for a in plugin.registry.providers[-1].algorithms if a.name() == name]
    made = found.createInstance()
    made.initAlgorithm()
    made.error = plugin.error
    return made


@pytest.fixture
def algorithm(plugin):
    return instance(plugin, "crossdiffsharpen")


def kinds(algorithm):
    return {name: type(parameter).__name__ for name, parameter in algorithm.parameters.items()}


def test_the_plugin_registers_three_algorithms_and_takes_them_back(plugin):
    plugin.plugin.initGui()
    (provider,) = plugin.registry.providers
    assert (provider.id(), provider.name()) == ("crossdiff", "CrossDiff")
    assert Path(provider.icon().path).read_text().startswith("<svg")
    names = [a.name() for a in provider.algorithms]
    assert names == ["crossdiffsharpen", "crossdiffadapt", "crossdiffassess"]
    assert len({a.displayName() for a in provider.algorithms}) == 3
    assert {a.groupId() for a in provider.algorithms} == {"pansharpening"}
    plugin.plugin.unload()
    assert plugin.registry.providers == []


def test_the_file_of_a_script_holds_one_algorithm(plugin):
    """QGIS takes the first one that it finds in a script, by the alphabet."""
    script = sys.modules["crossdiff.crossdiff_sharpen"]
    classes = [thing for thing in vars(script).values() if isinstance(thing, type) and issubclass(thing, Algorithm)]
    assert [kind.__name__ for kind in classes if kind is not Algorithm] == ["CrossDiffSharpen"]
    assert "from ." not in SCRIPT.read_text()


def test_the_zip_is_what_qgis_installs(tmp_path):
    """As docs/gis.md makes it: one folder with metadata.txt in it, whose version is that of the package."""
    command = [sys.executable, "-m", "zipfile", "-c", str(tmp_path / "crossdiff.zip"), "crossdiff"]
    subprocess.run(command, check=True, cwd=PLUGIN.parent)
    with zipfile.ZipFile(tmp_path / "crossdiff.zip") as file:
        names = {Path(name).parts for name in file.namelist() if "__pycache__" not in name}
        metadata = configparser.ConfigParser()
        metadata.read_string(file.read("crossdiff/metadata.txt").decode())
    assert {parts[0] for parts in names} == {"crossdiff"}
    assert {parts[-1] for parts in names if len(parts) == 2} >= {
        "__init__.py", "metadata.txt", "provider.py", "crossdiff_sharpen.py", "crossdiff_adapt.py",
        "crossdiff_assess.py", "icon.svg", "LICENSE",
    }  # fmt: skip
    general = metadata["general"]
    assert all(general[key] for key in ("name", "description", "about", "author", "qgisMinimumVersion"))
    assert general["version"] == crossdiff_cli.__version__
    assert general["hasProcessingProvider"] == "yes"


def test_parameters(algorithm):
    assert kinds(algorithm) == {
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
    assert feedback.lines[0].endswith("--device cpu")
    with rasterio.open(out) as file:
        assert file.count == 4


def test_failures_are_told(algorithm, tmp_path):
    given = {"PAN": "none.tif", "MS": ["none.tif"], "OUTPUT": str(tmp_path / "out.tif"), "COMMAND": COMMAND}
    with pytest.raises(algorithm.error, match=r"none\.tif"):
        algorithm.processAlgorithm(given, None, Feedback())
    with pytest.raises(algorithm.error, match="give the full path"):
        algorithm.processAlgorithm({**given, "COMMAND": "no-such-program"}, None, Feedback())


def test_lines_and_progress_come_while_the_command_runs(algorithm):
    feedback = Feedback()
    code = "import sys; print('10 of 20 Mpx (50 %)', file=sys.stderr, flush=True); sys.stdin.read(); print('{}')"
    told = sys.modules["crossdiff.crossdiff_sharpen"].run([sys.executable, "-c", code], feedback)
    assert told.strip() == "{}"
    assert feedback.progress == [50.0]
    assert feedback.lines[-1] == "10 of 20 Mpx (50 %)"


def test_the_log_of_a_run_tells_its_progress(algorithm, make_pair, tmp_path, untrained_weights):
    files = make_pair((512, 512))
    feedback = Feedback()
    run = sys.modules["crossdiff.crossdiff_sharpen"].run
    environment = sys.modules["crossdiff.crossdiff_sharpen"].os.environ
    words = ["sharpen", files.pan, files.ms, "-o", str(tmp_path / "o.tif"), "--weights", str(untrained_weights)]
    words += ["--tile", "256", "--json"]
    code = f"""
import os
os.environ["CROSSDIFF_PROGRESS_SECONDS"] = "0"
from crossdiff_cli.cli.main import main
main({words!r})
"""
    run([sys.executable, "-c", code], feedback)
    assert "CROSSDIFF_PROGRESS_SECONDS" not in environment
    assert feedback.progress[-1] == 100
    assert feedback.progress == sorted(feedback.progress)


@pytest.mark.parametrize("after", [0.0, 1.0])
def test_cancelling_ends_the_command(algorithm, tmp_path, after):
    """A command that would run for long ends at once, and is not taken for a failure."""
    given = {"PAN": "a.tif", "MS": ["b.tif"], "OUTPUT": str(tmp_path / "out.tif")}
    algorithm.command = lambda *_: ["sleep", "60"]
    feedback = Feedback(canceled=not after)
    threading.Timer(after, lambda: setattr(feedback, "canceled", True)).start()
    started = time.monotonic()
    assert algorithm.processAlgorithm(given, None, feedback) == {}
    assert time.monotonic() - started < 30


def test_adapt(plugin, make_pair, tmp_path, untrained_weights, monkeypatch):
    algorithm = instance(plugin, "crossdiffadapt")
    assert kinds(algorithm) == {
        "SENSOR": "String", "PAN": "RasterLayer", "MS": "RasterLayer", "FOLDER": "File", "STEPS": "Number",
        "OPTIONS": "String", "COMMAND": "String",
    }  # fmt: skip
    given = {"SENSOR": "wv4", "PAN": "p.tif", "MS": "m.tif", "FOLDER": "more", "OPTIONS": "--force"}
    assert algorithm.command(given, None) == [
        "crossdiff", "adapt", "p.tif", "m.tif", "more", "--sensor", "wv4", "--steps", "400", "--force",
    ]  # fmt: skip
    for odd in ({"SENSOR": "wv4"}, {"SENSOR": "wv4", "PAN": "p.tif"}, {"FOLDER": "more"}):
        with pytest.raises(algorithm.error, match="Give a sensor"):
            algorithm.command(odd, None)
    monkeypatch.setenv("CROSSDIFF_HOME", str(tmp_path / "home"))
    files = make_pair((512, 512))
    feedback = Feedback()
    options = f"--weights {untrained_weights} --batch 1 --groups 1 --patch 32 --checkpoint-every 2 --no-select"
    run = {"SENSOR": "qb", "PAN": files.pan, "MS": files.ms, "STEPS": 4, "OPTIONS": options, "COMMAND": COMMAND}
    assert algorithm.processAlgorithm(run, None, feedback) == {"SENSOR": "qb"}
    assert feedback.progress[-1] == 100
    assert list((tmp_path / "home").rglob("*.safetensors"))


def test_assess(plugin, make_pair, tmp_path, untrained_weights):
    files = make_pair()
    fused = tmp_path / "fused.tif"
    words = ["sharpen", files.pan, files.ms, "-o", str(fused), "--weights", str(untrained_weights), "--device", "cpu"]
    subprocess.run([*COMMAND.split(), *words], check=True, capture_output=True)
    algorithm = instance(plugin, "crossdiffassess")
    assert list(algorithm.parameters)[-6:] == ["HQNR", "D_RHO", "R_ERGAS", "ERGAS", "SAM", "Q2N"]
    page = tmp_path / "page.html"
    given = {"FUSED": str(fused), "PAN": files.pan, "MS": [files.ms], "OUTPUT": str(page), "COMMAND": COMMAND}
    result = algorithm.processAlgorithm(given, None, Feedback())
    assert set(result) == {"OUTPUT", "HQNR", "D_RHO", "R_ERGAS"}
    assert 0 < result["HQNR"] <= 1
    assert page.read_text().startswith("<!doctype html>")
    scored = algorithm.processAlgorithm({**given, "REFERENCE": str(fused)}, None, Feedback())
    assert scored["ERGAS"] == 0
    with pytest.raises(algorithm.error, match="Give the sharpened image"):
        algorithm.command({"PAN": files.pan}, None, str(page))


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
