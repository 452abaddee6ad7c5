"""Paths that nothing can have, or that nobody may look at: one line each, on the command line and in manifests."""

import errno
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import sharpen_options

from crossdiff_cli.batch.manifest import Scene, read_manifest
from crossdiff_cli.batch.run import run_batch
from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import CrossDiffError, ManifestError, OutputError, PathError, SceneError
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.io.target import check_target
from crossdiff_cli.options import BatchOptions
from crossdiff_cli.system.atomic import hidden_beside, remove_leftovers
from crossdiff_cli.system.paths import exists, is_file, is_folder, is_stream

EXAMPLES = Path(__file__).parents[1] / "examples"
PAN, MS = str(EXAMPLES / "pan.tif"), str(EXAMPLES / "ms.tif")
LONG = "A" * 5000
IMPOSSIBLE = (LONG, "a/" * 3000, "a\0b", "\ud800", f"{PAN}/x", "nothing")


@pytest.fixture
def circle(tmp_path):
    link = tmp_path / "circle"
    link.symlink_to(link)
    return link


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_nothing_is_at_a_path_that_nothing_can_have(name):
    assert not any(ask(Path(name)) for ask in (exists, is_file, is_folder, is_stream))


def test_what_is_there_is_told_apart(tmp_path):
    assert (exists(tmp_path), is_file(tmp_path), is_folder(tmp_path), is_stream(tmp_path)) == (True, False, True, False)
    file = Path(PAN)
    assert (exists(file), is_file(file), is_folder(file), is_stream(file)) == (True, True, False, False)
    device = Path("/dev/null")
    assert (exists(device), is_file(device), is_folder(device), is_stream(device)) == (True, False, False, True)


def test_links_in_a_circle_are_an_error(circle):
    with pytest.raises(PathError, match="circle: the path cannot be accessed .*Too many levels"):
        exists(circle)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_may_not_be_looked_at_is_an_error(monkeypatch, code):
    def refuse(self, **_):
        raise OSError(code, "no")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(PathError) as caught:
        is_file(Path("x"))
    assert (caught.value.path, caught.value.found) == ("x", "no")


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_raster_at_such_a_path_is_refused_in_one_line(name):
    with pytest.raises(SceneError) as caught:
        Raster(name)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


def test_a_long_name_is_cut_but_no_path_that_can_be():
    path = "/".join(["folder"] * 60)
    assert str(CrossDiffError(f"cannot open {path}")) == f"cannot open {path}"
    text = str(CrossDiffError(f"cannot open {LONG}: too long"))
    assert text == f"cannot open {'A' * 200}...{'A' * 99}: too long"


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", PAN, LONG],
        ["info", LONG, MS],
        ["info", "CIRCLE"],
        ["info", "CIRCLE", MS],
        ["sharpen", PAN, MS, "-o", "CIRCLE"],
        ["sharpen", PAN, MS, "-o", f"FOLDER/{'A' * 240}.tif"],
        ["sharpen", PAN, MS, "-o", f"FOLDER/{LONG}/x.tif"],
        ["sharpen", PAN, MS, "-o", "FOLDER/x.tif", "--report", "CIRCLE"],
        ["sharpen", PAN, MS, "-o", "FOLDER/x.tif", "--sensor", f"{LONG}.toml"],
        ["assess", LONG, "--pan", PAN, "--ms", MS],
        ["degrade", PAN, MS, "-o", f"FOLDER/{LONG}"],
        ["degrade", PAN, MS, "-o", "CIRCLE"],
        ["batch", "--pair-dir", "CIRCLE", "-o", "FOLDER"],
        ["pretrain", f"FOLDER/{LONG}.json", "-o", "FOLDER/p"],
        ["pretrain", "CIRCLE", "-o", "FOLDER/p"],
        ["adapt", "--sensor", "wv4", PAN, MS, "-o", "CIRCLE", "--steps", "1"],
    ],
    ids=lambda arguments: " ".join(word[:12] for word in arguments if not word.startswith("/")),
)
def test_commands_say_so_in_one_line(tmp_path, circle, arguments):
    folder = tmp_path / "folder"
    folder.mkdir()
    given = [word.replace("CIRCLE", str(circle)).replace("FOLDER", str(folder)) for word in arguments]
    done = CliRunner().invoke(main, ["-q", *given])
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
    assert len(lines) == 1 and lines[0].startswith("Error: ")
    assert not list(folder.iterdir())


def test_what_no_command_expects_is_one_line_too(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle", "scene.tif")

    monkeypatch.setattr("crossdiff_cli.io.open_pair.resolve", refuse)
    done = CliRunner().invoke(main, ["-q", "info", PAN, MS])
    assert done.exit_code == 1
    assert done.stderr == "Error: scene.tif: Stale file handle\n"


def test_an_output_name_leaves_room_for_the_hidden_file_beside_it(tmp_path):
    longest = tmp_path / ("A" * 206 + ".tif")
    check_target(longest, overwrite=False)
    assert len(hidden_beside(longest, ".tif.aux.xml").name) <= 255
    with pytest.raises(OutputError) as caught:
        check_target(tmp_path / ("A" * 207 + ".tif"), overwrite=False)
    assert (caught.value.found, caught.value.expected) == ("211 bytes", "at most 210")


@pytest.mark.parametrize("folder", [LONG, "a\0b", "missing"])
def test_no_leftovers_where_no_folder_can_be(folder):
    remove_leftovers(Path(folder) / "x.tif")


def test_scenes_at_impossible_paths_fail_alone(tmp_path, circle):
    scenes = [
        {"pan": LONG, "ms": MS},
        {"pan": str(circle), "ms": MS},
        {"pan": "\ud800", "ms": MS},
        {"pan": PAN, "ms": f"{MS}\0"},
        {"delivery": LONG, "name": "e"},
        {"pan": PAN, "ms": MS, "output": f"{LONG}/a.tif"},
        {"pan": PAN, "ms": MS, "output": f"{LONG}.tif"},
    ]
    for number, scene in enumerate(scenes):
        scene.setdefault("name", f"scene{number}")
    manifest, out = tmp_path / "scenes.json", tmp_path
    manifest.write_text(json.dumps(scenes))
    hidden = Scene("hidden", PAN, (MS,), circle / "a.tif")
    scenes_found = [*read_manifest(manifest, out), hidden]
    outcomes = list(run_batch(scenes_found, sharpen_options(device="cpu"), BatchOptions()))
    assert {o.name for o in outcomes if o.status == "failed"} == {"hidden", *(scene["name"] for scene in scenes)}
    reasons = {outcome.name: outcome.reason for outcome in outcomes}
    assert not any("Error:" in reason or len(reason) > 1000 for reason in reasons.values()), reasons
    assert "File name too long" in reasons["scene5"]
    assert "at most 210" in reasons["scene6"]


def test_an_output_with_a_zero_byte_is_refused(tmp_path):
    manifest = tmp_path / "scenes.json"
    manifest.write_text(json.dumps([{"pan": PAN, "ms": MS, "output": "a\0b.tif"}]))
    with pytest.raises(ManifestError, match="does not lie below the result folder"):
        read_manifest(manifest, tmp_path)


@pytest.fixture
def images(make_pair):
    """PAN and MS, a link to either, and the bytes of both."""
    files = make_pair(shape=(256, 256))
    pan, ms = Path(files.pan), Path(files.ms)
    link = pan.with_name("link.tif")
    link.symlink_to(ms)
    stacked = pan.with_name("stacked.vrt")
    stacked.write_text(
        f'<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{ms.name}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    return pan, ms, link, stacked


@pytest.mark.parametrize("name", ["pan", "ms", "link", "source of a virtual file"])
def test_a_result_never_takes_the_place_of_an_image_that_is_read(images, small_weights, name):
    """Whatever --overwrite says, and by whatever name it goes."""
    pan, ms, link, stacked = images
    kept = {path: path.read_bytes() for path in (pan, ms)}
    given, target = {"pan": (ms, pan), "ms": (ms, ms.parent / ".." / ms.parent.name / ms.name), "link": (ms, link),
                     "source of a virtual file": (stacked, ms)}[name]  # fmt: skip
    arguments = ["sharpen", str(pan), str(given), "-o", str(target), "--overwrite", "--weights", str(small_weights)]
    done = CliRunner().invoke(main, ["-q", *arguments, *(["--sensor", "vhr", "--bands", "B"] * (given == stacked))])
    assert done.exit_code == 1, done.output
    assert done.stderr.splitlines()[-1] == f"Error: {target}: the output is also an input; choose another output path"
    assert {path: path.read_bytes() for path in kept} == kept
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("-", "cannot be written to the standard output"),
        ("out.jp2", "found JP2OpenJPEG); name it out.tif"),
        ("out.PNG", "found PNG); name it out.tif"),
        ("s3://bucket/out.tif", "the output is no local file"),
        ("/vsimem/out.tif", "the output is no local file"),
    ],
)
def test_a_result_is_a_local_file_by_the_name_of_a_geotiff(images, tmp_path, monkeypatch, name, text):
    pan, ms, *_ = images
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = CliRunner().invoke(main, ["-q", "sharpen", str(pan), str(ms), "-o", name])
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert text in line
    assert sorted(tmp_path.iterdir()) == before


def test_degrade_pages_and_weights_take_the_place_of_nothing_else(images, small_weights):
    pan, ms, link, _ = images
    link.unlink()
    pan, ms = pan.rename(pan.with_name("pan.tif")), ms.rename(ms.with_name("ms.tif"))
    kept = {path: path.read_bytes() for path in (pan, ms)}
    pair = [str(pan), str(ms)]
    for arguments, text in (
        (["degrade", *pair, "-o", str(pan.parent), "--overwrite"], "the output is also an input"),
        (["sharpen", *pair, "-o", str(pan.with_name("o.tif")), "--report", str(pan)], "expected .html or .htm"),
        (["assess", str(ms), "--pan", str(pan), "--ms", str(ms), "--html", str(pan)], "expected .html or .htm"),
        (["adapt", *pair, "-o", str(ms), "--sensor", "vhr", "--force"], "expected .safetensors"),
        (["adapt", *pair, "-o", str(ms), "--sensor", "vhr", "--no-select"], "expected .safetensors"),
    ):
        done = CliRunner().invoke(main, ["-q", *arguments])
        assert done.exit_code == 1, done.output
        assert text in done.stderr.splitlines()[-1]
        assert {path: path.read_bytes() for path in kept} == kept
        assert not pan.with_name("o.tif").exists()
