"""The README as a stranger uses it: every block copied into one shell, up to a sharpened scene, a sensor and a batch.

The installation and the test run, which `.ci/run` does, are left out. `crossdiff` is answered by this process, which
has its libraries loaded, and with cheap settings: options that are added to those of the README.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
import torch
from click.testing import CliRunner
from rasterio.windows import Window
from test_docs import ROOT, blocks, calls

from crossdiff_cli.cli.main import main
from crossdiff_cli.model.weights import digest, load
from crossdiff_cli.system.weight_files import bundled_weights

pytest.importorskip("distributed")
README = ROOT / "README.md"
MS_PX = 112
PORT = "8786"
BUDGET = ["--steps", "2", "--patch", "32", "--batch", "1", "--groups", "2"]
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.create_connection(("127.0.0.1", {port})) as line:
    line.sendall(json.dumps([os.getcwd(), os.environ["CROSSDIFF_HOME"], sys.argv[1:]]).encode())
    line.shutdown(socket.SHUT_WR)
    code, out, err = json.load(line.makefile())
print(out, end="")
print(err, end="", file=sys.stderr)
sys.exit(code)
"""


def cheap(words: list[str], home: str, weights: Path) -> list[str]:
    """A command with the options that make it quick; an adapted head is left to be found by its sensor's name."""
    sensor = words[words.index("--sensor") + 1] if "--sensor" in words else "none"
    adapted = words[0] == "sharpen" and (Path(home) / "heads" / f"{sensor}.safetensors").exists()
    small = [] if "--weights" in words or adapted else ["--weights", str(weights)]
    steps = ["--adapt-steps", "10"] if "--adapt-steps" in words else []
    added = {"sharpen": [*small, *steps], "batch": small, "adapt": [*small, *BUDGET], "pretrain": BUDGET}
    return [*words, *added.get(words[0], [])]


def answer(line: socket.socket, weights: Path) -> tuple[list[str], int, str]:
    """Run the command that a client sends, in its folder; its words, exit code and output."""
    folder, home, words = json.load(line.makefile())
    os.chdir(folder)
    done = CliRunner().invoke(main, cheap(words, home, weights), env={"CROSSDIFF_HOME": home})
    line.sendall(json.dumps([done.exit_code, done.stdout, done.stderr]).encode())
    return words, done.exit_code, done.output


def repository(folder: Path, weights: Path) -> Path:
    """A folder as the repository, with a corner of the example scene and small weights."""
    (folder / "examples").mkdir(parents=True)
    (folder / "weights").mkdir()
    shutil.copy(weights, folder / "weights" / "crossdiff.safetensors")
    for name, size in (("pan", 4 * MS_PX), ("ms", MS_PX)):
        shutil.copy(ROOT / "examples" / f"{name}.IMD", folder / "examples")
        with rasterio.open(ROOT / "examples" / f"{name}.tif") as whole:
            profile = whole.profile | {"width": size, "height": size}
            with rasterio.open(folder / "examples" / f"{name}.tif", "w", **profile) as part:
                part.write(whole.read(window=Window(0, 0, size, size)))
                part.descriptions = whole.descriptions
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def visit(tmp_path_factory, small_weights):
    """The working folder afterwards, the script, and of each call of `crossdiff` its words, exit code and output."""
    folder, made = tmp_path_factory.mktemp("visit"), []
    root, log = repository(folder / "root", small_weights), folder / "log.txt"
    script = "\n".join(block for name, block in blocks(README) if not name).replace(PORT, str(free_port()))
    client = folder / "bin" / "crossdiff"
    client.parent.mkdir()
    path = os.pathsep.join([str(client.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    before = Path.cwd()
    with socket.create_server(("127.0.0.1", 0)) as server, log.open("w") as output:
        client.write_text(CLIENT.format(python=sys.executable, port=server.getsockname()[1]))
        client.chmod(0o755)
        server.settimeout(0.1)
        shell = subprocess.Popen(
            ["bash", "-euxo", "pipefail", "-c", script], cwd=root, stdout=output, stderr=output,
            env={**os.environ, "PATH": path}, start_new_session=True,
        )  # fmt: skip
        try:
            while shell.poll() is None:
                try:
                    line, _ = server.accept()
                except TimeoutError:
                    continue
                with line:
                    made.append(answer(line, small_weights))
        finally:
            os.chdir(before)
            try:
                os.killpg(shell.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            shell.wait()
    assert shell.returncode == 0, log.read_text()[-3000:]
    return root / "runs" / "try", script, made


def said(made, command: str) -> str:
    """What the first call that begins so printed."""
    return next(output for words, _, output in made if " ".join(words).startswith(command))


def read(path: Path):
    with rasterio.open(path) as file:
        return file.read(), file.descriptions, file.tags()


def test_every_command_of_the_page_is_run(visit):
    """`rio crossdiff` is the one that the shell runs without this process; those of CI are the two at the top."""
    _, script, made = visit
    assert (
        [name for name, _ in blocks(README) if name] == [name for name, _ in blocks(README)][:2] == ["sharpen", "test"]
    )
    assert [words for words, _, _ in made] == list(calls(script.replace("rio crossdiff", "rio")))
    assert {words[0] for words, _, _ in made} >= {"sharpen", "adapt", "batch", "assess", "degrade", "pretrain", "info"}
    assert {code for _, code, _ in made} == {0}


def test_a_sharpened_scene(visit):
    folder, _, made = visit
    with rasterio.open(folder / "pan.tif") as pan, rasterio.open(folder / "sharp.tif") as sharp:
        assert (sharp.transform, sharp.shape) == (pan.transform, pan.shape)
    assert read(folder / "sharp.tif")[1] == read(folder / "said.tif")[1] == ("B", "G", "R", "NIR")
    assert read(folder / "rgb.tif")[1] == ("R", "G", "B")
    assert (read(folder / "delivery.tif")[0] == read(folder / "sharp.tif")[0]).all()
    assert "consistency with the MS: " in said(made, "sharpen pan.tif ms.tif -o sharp.tif")


def test_a_head_for_the_scene(visit):
    folder, _, made = visit
    assert read(folder / "fitted.tif")[2]["CROSSDIFF_ADAPTED"] == "10 steps"
    assert "windows not trained on" in said(made, "sharpen pan.tif ms.tif -o fitted.tif")


@pytest.mark.parametrize(("sensor", "result"), [("wv4", "adapted.tif"), ("mysat", "mysat.tif")])
def test_an_adapted_sensor(visit, sensor, result):
    folder, _, made = visit
    head = folder / "home" / "heads" / f"{sensor}.safetensors"
    tags = read(folder / result)[2]
    assert (tags["CROSSDIFF_SENSOR"], tags["CROSSDIFF_WEIGHTS"]) == (sensor, digest(head))
    printed = said(made, f"adapt --sensor {sensor}")
    assert "HQNR" in printed and "windows not trained on" in printed
    assert printed.strip().endswith(str(head))


@pytest.mark.parametrize("target", ["sharp", "cluster"])
def test_a_batch(visit, target):
    folder, _, _ = visit
    assert sorted(path.name for path in (folder / target).iterdir()) == ["order.tif", "town.tif"]
    assert (read(folder / target / "order.tif")[0] == read(folder / "sharp.tif")[0]).all()
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [(line["name"], line["status"]) for line in lines] == [("town", "ok"), ("order", "ok")]


def test_judged_results(visit):
    folder, _, made = visit
    for page in ("judged.html", "sharp.html"):
        assert "MTF-GLP" in (folder / page).read_text(encoding="utf-8")
    assert (read(folder / "wald" / "reference.tif")[0] == read(folder / "ms.tif")[0]).all()
    assert "\nERGAS " in said(made, "assess wald/sharp.tif")


def test_pretrained_encoders(visit):
    """P2M alone has learned; the head was fitted to it."""
    folder, _, _ = visit
    files = bundled_weights("open"), folder / "mine" / "encoders.safetensors"
    before, after = (load(path)[0].state_dict() for path in files)
    learned = {name.split(".")[0] for name in before if not torch.allclose(before[name], after[name], atol=1e-2)}
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name].bfloat16(), after[name].bfloat16())}
    assert learned <= moved == {"p2m"}
    assert read(folder / "mine" / "sharp.tif")[2]["CROSSDIFF_WEIGHTS"] == digest(folder / "mine" / "head.safetensors")


def test_gis_outputs(visit):
    folder, _, _ = visit
    assert json.loads((folder / "cog.json").read_text())["type"] == "Feature"
    whole = read(folder / "sharp.tif")[0]
    assert read(folder / "names.tif")[1] == ("R", "G", "B")
    assert (read(folder / "names.tif")[0] == whole[[2, 1, 0]]).all()
    with rasterio.open(folder / "sharp.tif") as file, rasterio.open(folder / "part.tif") as part:
        row, col = file.index(*part.transform @ (0.5, 0.5))
        same = whole[:, row : row + part.height, col : col + part.width]
        assert abs(part.read().astype(int) - same).max() <= 1
        assert part.shape < file.shape
    with rasterio.open(folder / "cog.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
