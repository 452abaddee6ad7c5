"""Deliveries that cannot be sharpened, one clear line each; and metadata that is hostile or damaged."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import write_raster
from delivery_files import cbers, gaofen, geoeye, grid, landsat, maxar, maxar_image, pixels, skysat
from dimap_files import dimap_image, pleiades

from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries.find import find_products
from crossdiff_cli.io.deliveries.product import child
from crossdiff_cli.io.documents import flatten_groups, flatten_json, flatten_lines, read_facts
from crossdiff_cli.io.open_pair import open_pair


def refused(name, *parts, ms=()):
    with pytest.raises(SceneError) as caught:
        open_pair(str(name), [str(path) for path in ms])
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text
    return text


def remove(folder, pattern):
    for path in folder.rglob(pattern):
        path.unlink()


# One of the two is missing


def test_only_pan_or_only_ms(tmp_path):
    maxar(tmp_path)
    pan, ms = (next(tmp_path.rglob(f"*_{kind}")) for kind in ("PAN", "MUL"))
    refused(pan, pan.name, "-P2AS-", "holds a PAN", "no multispectral image")
    refused(ms, ms.name, "-M2AS-", "holds a multispectral image", "no PAN")
    remove(tmp_path, "*M2AS*")
    refused(next(pan.glob("*.TIL")), "no multispectral image")


def test_landsat_level_two_has_no_pan(tmp_path):
    landsat(tmp_path, "LANDSAT_8", level="L2SP")
    refused(tmp_path, "no PAN", "Level-1")


def test_landsat_five_has_no_pan(tmp_path):
    landsat(tmp_path, "LANDSAT_8")
    (document,) = tmp_path.glob("*_MTL.txt")
    document.write_text(document.read_text().replace("LANDSAT_8", "LANDSAT_5"))
    refused(tmp_path, "LANDSAT_5", "no panchromatic band")


def test_a_folder_of_anything_else(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing")
    refused(tmp_path, str(tmp_path), "no PAN and MS")
    (tmp_path / "page.xml").write_text("<html/>")
    refused(tmp_path / "page.xml", "page.xml", "not the metadata of a known delivery")
    refused(tmp_path, "holds no known delivery", "name the PAN file", ms=["ms.tif"])
    refused(tmp_path / "gone.tif", "gone.tif", "neither a folder nor a metadata file")


def test_a_folder_of_many_pairs_is_refused_with_their_names(tmp_path, monkeypatch):
    for name in ("", "_a", "_b", "_c", "_d", "_e"):
        for kind in ("pan", "ms"):
            (tmp_path / f"{kind}{name}.tif").touch()
    monkeypatch.chdir(tmp_path)
    refused(Path(), "holds 6 pairs", f"({tmp_path.name}, a, b, c, ...)", "name the PAN and the MS files")


# Missing files


def test_missing_tiles_are_named(tmp_path):
    maxar(tmp_path)
    remove(tmp_path, "*M2AS_R1C2*")
    refused(tmp_path, "1 of the 2 image files", "M2AS_R1C2", "missing")


def test_missing_dimap_tiles_and_components(tmp_path):
    pleiades(tmp_path)
    remove(tmp_path, "IMG_*_MS_*_R1C1.TIF")
    refused(tmp_path, "1 of the 2 image files", "_R1C1.TIF", "missing")
    remove(tmp_path, "DIM_*_MS_*.XML")
    refused(tmp_path, "VOL_PHR.XML lists IMG_PHR1A_MS_002/DIM_", "missing")


def test_missing_files_of_separate_bands(tmp_path):
    geoeye(tmp_path / "po")
    remove(tmp_path, "*_red_*")
    refused(tmp_path / "po", "po_123456_red_0000000.tif", "missing")
    cbers(tmp_path / "cbers")
    remove(tmp_path, "*_BAND2.tif")
    refused(tmp_path / "cbers", "_BAND2.tif", "missing")
    landsat(tmp_path / "landsat")
    remove(tmp_path, "*_B8.TIF")
    refused(tmp_path / "landsat", "_B8.TIF", "missing")


def test_tiles_that_nothing_places(tmp_path):
    pan, ms = pixels()
    maxar_image(tmp_path, pan, 1, "P", letter="P", band_id="P", georeferenced=False)
    maxar_image(tmp_path, ms, 4, "B G R N", letter="M", band_id="Multi", georeferenced=False)
    remove(tmp_path, "*.TIL")
    refused(tmp_path, "nothing places the tiles", ".TIL file is missing")


# Already pansharpened


@pytest.mark.parametrize(
    "facts", [{"algorithm": "UNB"}, {"band_id": "Pan-Sharpened"}], ids=["panSharpenAlgorithm", "bandId"]
)
def test_maxar_pansharpened(tmp_path, facts):
    maxar(tmp_path, ms_facts=facts)
    refused(tmp_path, "already pansharpened", "original")
    refused(next(tmp_path.rglob("*_MUL/*.IMD")), "already pansharpened")


@pytest.mark.parametrize("mode", ["PMS", "PMS-N", "PANSHARPENED"])
def test_airbus_pansharpened(tmp_path, mode):
    pleiades(tmp_path, mode=mode)
    refused(tmp_path, "already pansharpened")
    (document,) = tmp_path.rglob("IMG_*_002/DIM_*.XML")
    refused(next(tmp_path.rglob("IMG_*_001/DIM_*.XML")), "already pansharpened", ms=[document])


def test_a_pansharpened_image_beside_pan_and_ms_is_passed_over(tmp_path):
    pleiades(tmp_path)
    dimap_image(tmp_path, ("PHR", "1A"), "PMS", [["B2", "B1", "B0", "B3"]], pixels()[1], 4, 3)
    with open_pair(str(tmp_path)) as pair:
        assert "_MS_" in pair.ms[0].path


def test_ikonos_and_skysat_pansharpened(tmp_path):
    geoeye(tmp_path / "po", algorithm="Pan-Sharpened")
    refused(tmp_path / "po", "already pansharpened")
    skysat(tmp_path / "sky", variants=("panchromatic", "pansharpened"))
    refused(tmp_path / "sky", "already pansharpened")


def test_pan_and_ms_of_one_pixel_size(tmp_path):
    skysat(tmp_path, ratio=1)
    refused(tmp_path, "the same pixel size", "nothing to sharpen", "resampled")


# More than one


def test_two_acquisitions_are_refused_in_a_folder_and_warned_of_by_name(tmp_path, caplog):
    pleiades(tmp_path, ms_time="2018-03-04T10:00:00.5Z")
    refused(tmp_path, "2018-01-01", "2018-03-04", "two acquisitions")
    ms, pan = sorted(tmp_path.rglob("DIM_*.XML"))
    with caplog.at_level(logging.WARNING), open_pair(str(pan), [str(ms)]) as pair:
        assert any("two acquisitions" in note for note in pair.notes)


def test_maxar_catalogue_numbers_tell_two_passes_apart(tmp_path):
    maxar(tmp_path, ms_facts={"catalogue": "1040010099999900"})
    refused(tmp_path, "two acquisitions")


def test_several_pairs_are_listed(tmp_path):
    for part in ("P001", "P002"):
        maxar(tmp_path, part=part)
    refused(tmp_path, "several pairs", "P001.IMD", "P002.IMD", "name the metadata file")


def test_several_images_of_a_kind_in_a_named_folder(tmp_path):
    for part in ("P001", "P002"):
        maxar(tmp_path, part=part)
    refused(tmp_path, "several PAN images", ms=[tmp_path])


def test_swapped_deliveries(tmp_path):
    maxar(tmp_path)
    pan, ms = (next(tmp_path.rglob(f"*_{kind}")) for kind in ("PAN", "MUL"))
    refused(ms, "no PAN image", "swapped", ms=[pan])


# Hostile and damaged metadata


@pytest.mark.parametrize(
    "name",
    ["../../secret.tif", "/etc/passwd", "/vsicurl/http://x/y.tif", "http://x/y.tif", "C:\\x.tif", "..\\x", "", "a\nb"],
)
def test_names_that_lead_out_of_the_delivery(tmp_path, name):
    with pytest.raises(SceneError, match="outside the delivery"):
        child(tmp_path, name)


def test_tiles_outside_the_delivery_are_not_opened(tmp_path):
    secret = write_raster(tmp_path / "secret.tif", pixels()[1], grid(4))
    maxar(tmp_path / "maxar")
    (til,) = tmp_path.rglob("*_MUL/*.TIL")
    til.write_text(til.read_text().replace("18JAN01100000-M2AS_R1C1-012345678901_01_P001.TIF", secret))
    refused(tmp_path / "maxar", "outside the delivery")
    pleiades(tmp_path / "phr")
    (document,) = tmp_path.rglob("DIM_*_MS_*.XML")
    document.write_text(document.read_text().replace('href="IMG_', 'href="../../IMG_'))
    refused(tmp_path / "phr", "outside the delivery")
    landsat(tmp_path / "landsat")
    (mtl,) = tmp_path.rglob("*_MTL.txt")
    mtl.write_text(mtl.read_text().replace('FILE_NAME_BAND_2 = "', 'FILE_NAME_BAND_2 = "/vsicurl/http://'))
    refused(tmp_path / "landsat", "outside the delivery")


@pytest.mark.parametrize("make", [maxar, pleiades, landsat, geoeye, gaofen, cbers, skysat], ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    "content",
    [
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><Dimap_Document>&e;</Dimap_Document>',
        b"BEGIN_GROUP = A\n" * 100,
        b"{" + b'"a":{' * 5000,
        b"",
        b"\x00\xff\xfe" * 100,
        b" " * (9 << 20),
    ],
    ids=["entity", "deep groups", "deep JSON", "empty", "binary", "oversized"],
)
def test_damaged_documents_never_end_in_a_traceback(tmp_path, make, content):
    make(tmp_path)
    for path in sorted(tmp_path.rglob("*")):
        if path.suffix.lower() in (".imd", ".til", ".xml", ".txt", ".json"):
            path.write_bytes(content)
    for product in find_products(tmp_path):
        assert "root:" not in str(product)
    try:
        open_pair(str(tmp_path)).close()
    except SceneError as error:
        assert "\n" not in str(error)
        assert str(tmp_path) in str(error)


def test_readers_are_bounded(tmp_path):
    for text in ("BEGIN_GROUP = A\n" * 30, "".join(f"k{i} = 1;\n" for i in range(21_000))):
        with pytest.raises(ValueError, match="too deep or too large"):
            flatten_groups(text)
    with pytest.raises(ValueError, match="too large"):
        flatten_lines("".join(f"k{i}: 1\n" for i in range(21_000)))
    for value in ([[[1]]] * 21_000, json.loads("[" * 40 + "]" * 40)):
        with pytest.raises(ValueError, match="too deep or too large"):
            flatten_json(json.dumps({"a": value}))
    (tmp_path / "x.json").write_text("{" + '"a":{' * 100_000)
    with pytest.raises(SceneError, match=r"x\.json"):
        read_facts(tmp_path / "x.json")


# The commands


def test_a_pan_alone_is_a_usage_error(tmp_path):
    pan = write_raster(tmp_path / "pan.tif", pixels()[0], grid())
    for command in (["sharpen", pan, "-o", str(tmp_path / "out.tif")], ["info", pan]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2
        assert "MS" in result.output
        assert "pan.tif is neither a folder nor a metadata file" in result.output


def test_a_refused_delivery_is_one_line_and_exit_code_one(tmp_path):
    maxar(tmp_path / "order", ms_facts={"algorithm": "UNB"})
    run = subprocess.run(
        [sys.executable, "-m", "crossdiff_cli", "sharpen", str(tmp_path / "order"), "-o", str(tmp_path / "out.tif")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "already pansharpened" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out.tif").exists()
