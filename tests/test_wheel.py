"""The wheel holds every module and the weights, and sharpens without the checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import rasterio

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"


def test_the_wheel_holds_every_module_and_sharpens(tmp_path):
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("crossdiff_cli", "weights"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-c", BUILD], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        archive.extractall(unpacked)
    assert wheel.stat().st_size < 12e6
    assert {Path(name).name for name in held if "/licenses/" in name} == {"LICENSE", "README.md"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "crossdiff_cli").rglob("*.py")}
    assert modules <= held
    assert {"crossdiff_cli/py.typed", "crossdiff_cli/report/page.html"} <= held
    assert {f"crossdiff_weights/{name}.safetensors" for name in ("crossdiff", "crossdiff-all")} <= held
    where = "import crossdiff_cli, sys; print(crossdiff_cli.__file__)"
    environment = {"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(unpacked)}
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(unpacked / "crossdiff_cli" / "__init__.py")
    files = [str(ROOT / "examples" / name) for name in ("pan.tif", "ms.tif")]
    command = [sys.executable, "-m", "crossdiff_cli", "sharpen", *files, "-o", "out.tif", "--quiet"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    with rasterio.open(tmp_path / "out.tif") as result, rasterio.open(files[0]) as pan:
        assert result.shape == pan.shape
        assert result.descriptions == ("B", "G", "R", "NIR")
