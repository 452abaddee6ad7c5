"""Tests of the evidence read from one raster, and of the XML reader against hostile and damaged files."""

import pytest
import rasterio
from rasterio.shutil import copy
from vendor_files import detect, hints, order, tif

from crossdiff_cli.io.documents import flatten_xml
from crossdiff_cli.io.hints import Hints

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def pan(tmp_path):
    return tif(tmp_path / "pan.tif")


def test_evidence_of_a_labelled_file(tmp_path):
    found = hints(tif(tmp_path / "x.tif", 2, "uint8", descriptions=("Red",), wavelengths=((0.66, 0.06),)))
    assert found.name == "x.tif"
    assert found.descriptions == ("Red", None)
    assert found.wavelengths == (pytest.approx((660.0, 60.0)), None)
    assert (found.dtype, found.indexes, found.spectral) == ("uint8", (1, 2), (1, 2))
    assert found.select([2]).indexes == (2,)


def test_malformed_wavelength_tags_are_no_evidence(tmp_path):
    path = tif(tmp_path / "x.tif", 3)
    with rasterio.open(path, "r+") as dataset:
        for index, center, width in ((1, "blue", "0.1"), (2, "-1", "0.1"), (3, "0.5", "narrow")):
            dataset.update_tags(index, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=center, FWHM_UM=width)
    assert hints(path).wavelengths == (None, None, (500.0, None))


@pytest.mark.parametrize(
    ("tags", "known"),
    [
        ({"wavelength": "665", "wavelength_units": "Nanometers", "fwhm": "30"}, (665, 30)),
        ({"wavelength": "0.665", "wavelength_units": "Micrometers"}, (665, None)),
        ({"WAVELENGTH": "0.665", "FWHM": "0.03"}, (665, 30)),
        ({"wavelength": "665"}, (665, None)),
        ({"Central_Wavelength": "665 nm", "fwhm": "wide"}, (665, None)),
        ({"wavelength": "red"}, None),
        ({"wavelength": "-665"}, None),
        ({"wavelength": "inf"}, None),
        ({"wavelength": ""}, None),
    ],
)
def test_wavelengths_in_plain_band_tags(tmp_path, tags, known):
    path = tif(tmp_path / "x.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(1, **tags)
    assert hints(path).wavelengths == (None if known is None else pytest.approx(known),)


def test_imagery_tags_outrank_plain_ones(tmp_path):
    path = tif(tmp_path / "x.tif", wavelengths=((0.66, 0.06),))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(1, wavelength="480", fwhm="10")
    assert hints(path).wavelengths == (pytest.approx((660.0, 60.0)),)


@pytest.mark.parametrize(
    ("header", "bands"),
    [
        ("wavelength units = Nanometers\nwavelength = {835, 660, 550, 480}\nfwhm = {130, 60, 70, 60}", "NIR,R,G,B"),
        ("wavelength units = Micrometers\nwavelength = {0.48, 0.55, 0.66, 0.835}", "B,G,R,NIR"),
        ("wavelength = {0.66, 0.55, 0.48, 0.835}", "R,G,B,NIR"),
        ("band names = {NIR, Red, Green, Blue}", "NIR,R,G,B"),
    ],
)
def test_an_envi_header_tells_the_bands(tmp_path, pan, header, bands):
    path = tmp_path / "ms.img"
    copy(tif(tmp_path / "x.tif", 4), path, driver="ENVI")
    text = path.with_suffix(".hdr").read_text()
    kept = [line for line in text.splitlines() if not line.startswith(("band names", "Band "))]
    path.with_suffix(".hdr").write_text("\n".join([*kept, header, ""]))
    path.with_suffix(".img.aux.xml").unlink(missing_ok=True)
    assert order(detect(pan, path)) == bands


def test_facts_are_found_by_leaf_in_any_case():
    found = Hints("x", imd={"IMAGE_1.satId": "WV02"}, document={"a.SATID": "GE01", "a.Mission": "PHR"})
    assert found.fact("SatID") == "WV02"
    assert found.fact("mission") == "PHR"
    assert found.fact("Id") is None


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x><SatelliteID>GF2</SatelliteID>&b;</x>',
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x><SatelliteID>GF2</SatelliteID>&e;</x>',
        "<x><SatelliteID>GF2</SatelliteID>",
        "<x>" * 5000,
        "",
        "\x00\x01 not XML",
    ],
)
def test_hostile_or_damaged_xml_is_passed_over(tmp_path, pan, text):
    with pytest.raises(ValueError):
        flatten_xml(text.encode())
    image = tif(tmp_path / "SV1-01_20200101_L2A0000000001_0000000000001_01-MUX.tiff", 4)
    image.with_suffix(".xml").write_text(text)
    found = detect(pan, image)
    assert (found.sensor.key, found.source) == ("sv1", "file name")


def test_doctype_is_refused_in_any_encoding():
    hostile = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'
    with pytest.raises(ValueError, match="DOCTYPE"):
        flatten_xml(hostile.encode("utf-16"))


def test_oversized_xml_is_not_read(tmp_path, pan):
    image = tif(tmp_path / "ms.tif", 4)
    image.with_suffix(".xml").write_text("<x><SatelliteID>GF2</SatelliteID>" + " " * (9 << 20) + "</x>")
    assert hints(image).document == {}


def test_flatten_xml_numbers_siblings_and_drops_prefixes():
    flat = flatten_xml(b'<n:a xmlns:n="u"><n:b k="1">x</n:b><b>y</b><c><b>z</b></c></n:a>')
    assert {"a.b": "x", "a.b.k": "1", "a.b_2": "y", "a.c.b": "z"}.items() <= flat.items()
