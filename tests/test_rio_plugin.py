"""`rio crossdiff`: the command as a plugin of rasterio's own."""

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import rasterio
from click.testing import CliRunner
from rasterio.rio.main import main_group

from crossdiff_cli.cli.main import main

RIO = "import sys; from rasterio.rio.main import main_group; sys.argv[0] = 'rio'; main_group()"


def rio(*arguments):
    return subprocess.run(
        [sys.executable, "-c", RIO, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )


def test_the_entry_point_leads_to_the_command():
    found = entry_points(group="rasterio.rio_plugins", name="crossdiff")
    assert {point.load() for point in found} == {main}


def test_rio_lists_it_under_its_name():
    done = CliRunner().invoke(main_group, ["--help"])
    assert "\n  crossdiff  Pansharpening" in done.output
    assert "Usage: rio crossdiff sharpen [OPTIONS] PAN [MS]..." in rio("crossdiff", "sharpen", "--help").stdout


def test_rio_sharpens(make_pair, tmp_path, untrained_weights):
    files = make_pair()
    out = tmp_path / "out.tif"
    done = rio("crossdiff", "sharpen", files.pan, files.ms, "-o", out, "--weights", untrained_weights, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == str(out)
    with rasterio.open(out) as file:
        assert (file.count, file.shape) == (4, (256, 256))


@pytest.mark.parametrize(("arguments", "code"), [(["none.tif", "none.tif", "-o", "x.tif"], 1), (["none.tif"], 2)])
def test_rio_passes_the_exit_code_on(tmp_path, arguments, code):
    done = rio("-q", "crossdiff", "sharpen", *arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
