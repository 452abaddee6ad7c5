"""Tests of sensor detection on small rasters with vendor metadata as GDAL reads it."""

from dataclasses import replace
from pathlib import Path

import pytest
from rasterio.enums import ColorInterp
from vendor_files import band_list, detect, dimap2, hints, imd, order, tif

from crossdiff_cli.errors import SceneError, SensorError
from crossdiff_cli.io.documents import flatten_xml
from crossdiff_cli.io.identify import Hints, UserChoice, detect_sensor
from crossdiff_cli.sensors.table import SENSORS

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SCENE = "LC08_L1TP_044034_20200101_20200101_02_T1"


@pytest.fixture
def pan(tmp_path: Path) -> Path:
    return tif(tmp_path / "pan.tif")


# Maxar


def test_imd_gives_satellite_and_true_band_order(tmp_path, pan):
    for groups, expected in (("B G R N", "B,G,R,NIR"), ("R G B N", "R,G,B,NIR")):
        ms = tif(tmp_path / groups.replace(" ", "") / "18JAN01000000-M2AS-012345678901_01_P001.TIF", 4)
        ms.with_suffix(".IMD").write_text(imd("WV04", groups))
        found = detect(pan, ms)
        assert (found.sensor.key, order(found), found.source) == ("wv4", expected, "IMD")
        assert found.warning is None


def test_eight_band_imd_and_a_subset_of_its_bands(tmp_path, pan):
    ms = tif(tmp_path / "ms.TIF", 8)
    ms.with_suffix(".IMD").write_text(imd("WV02", "C B G Y R RE N N2"))
    assert order(detect(pan, ms)) == "CA,B,G,Y,R,RE,N1,N2"
    chosen = hints(ms).select((5, 3, 2))
    assert order(detect_sensor(hints(pan), [chosen], 3, 4.0)) == "B,G,R"[::-1]


def test_maxar_xml_without_imd(tmp_path, pan):
    ms = tif(tmp_path / "scene.TIF", 4)
    groups = "".join(f"<BAND_{g}><ABSCALFACTOR>1</ABSCALFACTOR></BAND_{g}>" for g in "NRGB")
    ms.with_suffix(".XML").write_text(
        f'<?xml version="1.0"?><isd><IMD><BANDID>MS1</BANDID>{groups}<IMAGE><SATID>WV03</SATID></IMAGE></IMD></isd>'
    )
    found = detect(pan, ms)
    assert (found.sensor.key, order(found), found.source) == ("wv3", "N1,R,G,B", "IMD")


def test_pan_alone_may_tell_the_sensor(tmp_path, pan):
    pan.with_suffix(".IMD").write_text(imd("QB02", "P", band_id="P"))
    found = detect(pan, tif(tmp_path / "ms.tif", 4))
    assert (found.sensor.key, order(found)) == ("qb", "B,G,R,NIR")


def test_files_of_two_satellites_are_reported(tmp_path, pan):
    pan.with_suffix(".IMD").write_text(imd("WV02", "P", band_id="P"))
    ms = tif(tmp_path / "ms.TIF", 4)
    ms.with_suffix(".IMD").write_text(imd("GE01", "B G R N"))
    found = detect(pan, ms)
    assert found.sensor.key == "ge1"
    assert "pan.tif is WorldView-2" in found.warning
    assert "ms.TIF is GeoEye-1" in found.warning


def test_wv4_by_name_only_warns_of_its_band_order(tmp_path, pan):
    found = detect(pan, tif(tmp_path / "WV04_20180101_M0.tif", 4))
    assert found.sensor.key == "wv4"
    assert "B,G,R,NIR" in found.warning
    assert "--bands" in found.warning


# DIMAP


def test_dimap_two_beside_its_image_and_opened_itself(tmp_path, pan):
    image = tif(tmp_path / "IMG_PHR1A_MS_201501010000000_ORT_1_R1C1.TIF", 4)
    dim = tmp_path / "DIM_PHR1A_MS_201501010000000_ORT_1.XML"
    for bands, expected in (("B2 B1 B0 B3", "R,G,B,NIR"), ("B0 B1 B2 B3", "B,G,R,NIR")):
        dim.write_text(dimap2("PHR", "1A", "MS", bands, image.name))
        for path in (image, dim):
            found = detect(pan, path)
            assert (found.sensor.key, order(found), found.source) == ("phr", expected, "DIMAP")
            assert found.warning is None


def test_pleiades_neo_full_spectrum_in_one_document(tmp_path, pan):
    groups = "".join(
        f'<Data_Files><Data_File><DATA_FILE_PATH href="{name}"/></Data_File>{band_list(bands)}</Data_Files>'
        for name, bands in (("IMG_RGB_R1C1.TIF", "R G B"), ("IMG_NED_R1C1.TIF", "NIR RE DB"))
    )
    document = flatten_xml(
        f"<Dimap_Document><Raster_Data><Data_Access>{groups}</Data_Access></Raster_Data><MISSION>PNEO</MISSION>"
        "<MISSION_INDEX>3</MISSION_INDEX></Dimap_Document>".encode()
    )

    def raster(name: str, count: int) -> Hints:
        bands = hints(tif(tmp_path / "parts" / name, count))
        return replace(bands, document=document)

    whole = detect_sensor(hints(pan), [raster("whole.TIF", 6)], 6, 4.0)
    assert (whole.sensor.key, order(whole)) == ("pneo", "R,G,B,NIR,RE,DB")
    parts = detect_sensor(hints(pan), [raster("IMG_NED_R1C1.TIF", 3), raster("IMG_RGB_R1C1.TIF", 3)], 6, 4.0)
    assert order(parts) == "NIR,RE,DB,R,G,B"


def test_dimap_one_of_geosat(tmp_path, pan):
    image = tif(tmp_path / "scene.tif", 4)
    rows = "".join(
        f"<Spectral_Band_Info><BAND_INDEX>{i}</BAND_INDEX><BAND_DESCRIPTION>{band}</BAND_DESCRIPTION></Spectral_Band_Info>"
        for i, band in ((4, "BLUE"), (1, "NIR"), (2, "RED"), (3, "GREEN"))
    )
    image.with_suffix(".dim").write_text(
        '<Dimap_Document><Metadata_Id><METADATA_FORMAT version="1.1">DIMAP</METADATA_FORMAT></Metadata_Id>'
        "<Raster_Dimensions><NCOLS>8</NCOLS><NROWS>8</NROWS><NBANDS>4</NBANDS></Raster_Dimensions>"
        f'<Data_Access><Data_File><DATA_FILE_PATH href="{image.name}"/></Data_File></Data_Access>'
        f"<Image_Interpretation>{rows}</Image_Interpretation><Dataset_Sources><Source_Information><Scene_Source>"
        "<MISSION>DEIMOS</MISSION><MISSION_INDEX>2</MISSION_INDEX></Scene_Source></Source_Information></Dataset_Sources>"
        "</Dimap_Document>"
    )
    for path in (image, image.with_suffix(".dim")):
        found = detect(pan, path)
        assert (found.sensor.key, order(found), found.source) == ("geosat2", "NIR,R,G,B", "DIMAP")


def test_gaofen_xml(tmp_path, pan):
    image = tif(tmp_path / "mss.tiff", 4)
    image.with_suffix(".xml").write_text("<ProductMetaData><SatelliteID>GF2</SatelliteID></ProductMetaData>")
    found = detect(pan, image)
    assert (found.sensor.key, order(found), found.source) == ("gf2", "B,G,R,NIR", "XML")


# Landsat


def test_landsat_band_files_with_mtl(tmp_path):
    for band in (8, 5, 2, 4):
        tif(tmp_path / f"{SCENE}_B{band}.TIF")
    (tmp_path / f"{SCENE}_MTL.txt").write_text(
        'GROUP = LANDSAT_METADATA_FILE\n  GROUP = IMAGE_ATTRIBUTES\n    SPACECRAFT_ID = "LANDSAT_9"\n'
        "  END_GROUP = IMAGE_ATTRIBUTES\nEND_GROUP = LANDSAT_METADATA_FILE\nEND\n"
    )
    files = [tmp_path / f"{SCENE}_B{band}.TIF" for band in (5, 2, 4)]
    found = detect(tmp_path / f"{SCENE}_B8.TIF", *files, ratio=2.0)
    assert (found.sensor.key, order(found), found.source, found.warning) == ("l9", "NIR,B,R", "MTL", None)


def test_landsat_band_files_by_name(tmp_path):
    stem = "LE07_L1TP_044034_20020101_20170101_01_T1"
    files = [tif(tmp_path / f"{stem}_{band}.TIF") for band in ("B3", "B6_VCID_1", "B7")]
    found = detect(tif(tmp_path / f"{stem}_B8.TIF"), *files, ratio=2.0)
    assert (found.sensor.key, order(found), found.source) == ("l7", "R,TIR,SWIR2", "file name")


def test_landsat_stack_warns_that_the_order_is_assumed(tmp_path, pan):
    found = detect(pan, tif(tmp_path / f"{SCENE}_stack.tif", 7), ratio=2.0)
    assert order(found) == "CA,B,G,R,NIR,SWIR1,SWIR2"
    assert "taken as CA,B,G,R,NIR,SWIR1,SWIR2" in found.warning


# File names


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [
        ("WV02_20120101_10300100_M0.tif", "wv2", "B,G,R,N1"),
        ("QB02_20050101-M.tif", "qb", "B,G,R,NIR"),
        ("LG01_x.tif", "lg", "B,G,R,NIR"),
        ("IMG_PHR1B_MS_201501010000000_SEN_1-001_R1C1.tif", "phr", "R,G,B,NIR"),
        ("IMG_001_PNEO3_MS_x.tif", "pneo", "R,G,B,NIR"),
        ("IMG_SPOT6_MS_201501010000000_SEN_1.tif", "spot6", "R,G,B,NIR"),
        ("IMG_SPOT7_MS_001_A.tif", "spot7", "R,G,B,NIR"),
        ("20200814_162132_ssc4d3_0021_analytic.tif", "skysat", "B,G,R,NIR"),
        ("DE2_MS4_L1C_000000_20200101T000000_x.tif", "geosat2", "NIR,R,G,B"),
        ("VIS1_MS4_20200101_x.tif", "vision1", "B,G,R,NIR"),
        ("GF1_PMS2_E116.6_N40.0_20160101_L1A0001-MSS2.tiff", "gf1", "B,G,R,NIR"),
        ("GF2_PMS1_E116.6_N40.0_20160101_L1A0001-MSS1.tiff", "gf2", "B,G,R,NIR"),
        ("SV1-01_20200101_L2A0000000001_0000000000001_01-MUX.tiff", "sv1", "B,G,R,NIR"),
    ],
)
def test_file_names_of_the_vendors(tmp_path, pan, name, key, expected):
    found = detect(pan, tif(tmp_path / name, 4))
    assert (found.sensor.key, order(found), found.source, found.warning) == (key, expected, "file name", None)


@pytest.mark.parametrize(
    ("names", "key", "expected"),
    [
        ([f"po_12345_{b}_0000000.tif" for b in ("nir", "red", "grn", "blu")], "ik", "NIR,R,G,B"),
        ([f"CBERS_4A_WPM_20200801_209_115_L4_BAND{b}.tif" for b in (3, 2, 1, 4)], "cbers4a", "R,G,B,NIR"),
        ([f"K3A_20150718045523_01761_00201286_L1G_{b}.tif" for b in "NRGB"], "kompsat3a", "NIR,R,G,B"),
    ],
)
def test_one_file_per_band(tmp_path, pan, names, key, expected):
    found = detect(pan, *(tif(tmp_path / name) for name in names))
    assert (found.sensor.key, order(found), found.warning) == (key, expected, None)


def test_nameless_band_files_warn(tmp_path, pan):
    files = [tif(tmp_path / f"WV02_part{i}.tif") for i in (11, 12, 13, 14)]
    found = detect(pan, *files)
    assert order(found) == "B,G,R,N1"
    assert "taken as B,G,R,N1" in found.warning


# Band labels


def test_descriptions_outrank_the_table(tmp_path, pan):
    found = detect(pan, tif(tmp_path / "WV02_x.tif", 4, descriptions=("NIR", "Band 3 - Red", "green", "B02 (Blue)")))
    assert order(found) == "N1,R,G,B"
    partial = detect(pan, tif(tmp_path / "WV02_y.tif", 4, descriptions=("NIR", "Red", "Green")))
    assert order(partial) == "B,G,R,N1"


@pytest.mark.parametrize(
    ("sensor", "texts", "bands"),
    [
        ("WV02", ("C", "B", "G", "Y", "R", "RE", "N1", "N2"), "CA,B,G,Y,R,RE,N1,N2"),
        ("WV03", ("N2", "NIR1", "RE", "R", "Y", "G", "B", "C"), "N2,N1,RE,R,Y,G,B,CA"),
        ("WV03", ("NIR", "R", "G", "B"), "N1,R,G,B"),
        ("GE01", ("NIR1", "R", "G", "B"), "NIR,R,G,B"),
        ("GE01", ("N", "R", "G", "B"), "NIR,R,G,B"),
    ],
)
def test_letters_of_maxar_bands(tmp_path, pan, sensor, texts, bands):
    assert order(detect(pan, tif(tmp_path / f"{sensor}_x.tif", len(texts), descriptions=texts))) == bands


def test_descriptions_of_landsat_codes(tmp_path, pan):
    ms = tif(tmp_path / "LC08_044034_20200101.tif", 3, descriptions=("B4", "B3", "B2"))
    assert order(detect(pan, ms, ratio=2.0)) == "R,G,B"


def test_wavelengths_outrank_the_table(tmp_path, pan):
    waves = ((0.833, 0.125), (0.66, 0.06), (0.545, 0.07), (0.48, 0.06))
    found = detect(pan, tif(tmp_path / "WV02_x.tif", 4, wavelengths=waves))
    assert order(found) == "N1,R,G,B"
    assert found.bands[0] == SENSORS["wv2"].select(["N1"])[0]


def test_wavelengths_of_an_unknown_sensor_are_kept(tmp_path, pan):
    waves = ((0.487, 0.033), (0.491, 0.033), (0.76, 0.02), (0.667, 0.031), (0.55, 0.04))
    found = detect(pan, tif(tmp_path / "x.tif", 5, wavelengths=waves), ratio=3.0)
    assert found.sensor.key == "generic"
    assert [band.center_nm for band in found.bands] == pytest.approx([487, 491, 760, 667, 550])
    assert [band.width_nm for band in found.bands] == pytest.approx([33, 33, 20, 31, 40])
    assert order(found) == "B,491nm,760nm,R,G"


def test_colour_interpretation_of_three_bands(tmp_path, pan):
    blue_first = (ColorInterp.blue, ColorInterp.green, ColorInterp.red)
    assert order(detect(pan, tif(tmp_path / "a.tif", 3, colors=blue_first))) == "B,G,R"
    assert order(detect(pan, tif(tmp_path / "b.tif", 3, "uint8"))) == "R,G,B"


def test_default_alpha_of_four_byte_bands_is_no_evidence(tmp_path, pan):
    ms = tif(tmp_path / "WV02_x.tif", 4, "uint8")
    assert hints(ms).colors == ("red", "green", "blue", "alpha")
    assert order(detect(pan, ms)) == "B,G,R,N1"


def test_an_alpha_band_left_out_does_not_count(tmp_path, pan):
    colors = (ColorInterp.undefined,) * 4 + (ColorInterp.alpha,)
    ms = hints(tif(tmp_path / "GF2_PMS1_x.tif", 5, colors=colors)).select((1, 2, 3, 4))
    assert order(detect_sensor(hints(pan), [ms], 4, 4.0)) == "B,G,R,NIR"


# Guesses


@pytest.mark.parametrize(
    ("count", "dtype", "ratio", "taken"),
    [
        (4, "uint16", 4.0, "vhr: B,G,R,NIR"),
        (3, "uint16", 4.0, "vhr: R,G,B"),
        (8, "uint16", 4.0, "vhr: CA,B,G,Y,R,RE,N1,N2"),
        (6, "uint16", 4.0, "pneo: R,G,B,NIR,RE,DB"),
        (7, "uint16", 2.0, "l8: CA,B,G,R,NIR,SWIR1,SWIR2"),
        (6, "uint8", 2.0, "l7: B,G,R,NIR,SWIR1,SWIR2"),
        (4, "float32", 3.0, "vhr: B,G,R,NIR"),
    ],
)
def test_a_guess_says_what_it_assumed(tmp_path, count, dtype, ratio, taken):
    found = detect(tif(tmp_path / "p.tif", 1, dtype), tif(tmp_path / "scene.tif", count, dtype), ratio=ratio)
    assert f"{found.sensor.key}: {order(found)}" == taken
    assert found.source == "band count and ratio"
    key, bands = taken.split(": ")
    for part in ("scene.tif", f"{count} bands", f"'{key}'", f"taken as {bands}", "--sensor", "--bands"):
        assert part in found.warning


def test_no_guess_without_ground(tmp_path, pan):
    with pytest.raises(SensorError, match=r"odd\.tif: nothing tells what its 5 bands are.*ratio 4.*--sensor.*--bands"):
        detect(pan, tif(tmp_path / "odd.tif", 5))
    with pytest.raises(SensorError, match="WorldView-2 is delivered with .*found 5, expected 8, 4 or 3"):
        detect(pan, tif(tmp_path / "WV02_odd.tif", 5))


def test_odd_ratio_is_reported(tmp_path, pan):
    found = detect(pan, tif(tmp_path / "WV02_x.tif", 4), ratio=2.0)
    assert "ratio of 4, these files have 2" in found.warning


def test_false_colour_without_its_document_is_refused(tmp_path, pan):
    with pytest.raises(SensorError, match="false-colour"):
        detect(pan, tif(tmp_path / "IMG_PHR1A_MS-X_201501010000000_R1C1.TIF", 3))


# The user's choice


def test_choice_of_sensor_and_bands(tmp_path, pan):
    ms = tif(tmp_path / "WV02_x.tif", 4)
    assert (found := detect(pan, ms, choice=UserChoice(sensor=SENSORS["phr"]))).source == "option"
    assert (found.sensor.key, order(found), found.warning) == ("phr", "R,G,B,NIR", None)
    assert order(detect(pan, ms, choice=UserChoice(bands=("nir", "blue", "R", "G")))) == "N1,B,R,G"
    labelled = tif(tmp_path / "x.tif", 4, descriptions=("N", "R", "G", "B"))
    assert order(detect(pan, labelled, choice=UserChoice(sensor=SENSORS["gf2"]))) == "NIR,R,G,B"
    with pytest.raises(SensorError) as caught:
        detect(pan, ms, choice=UserChoice(bands=("B", "G", "R")))
    assert (caught.value.found, caught.value.expected) == ("3 (B,G,R)", 4)


# Wrong products


def test_pansharpened_products_are_refused(tmp_path, pan):
    ms = tif(tmp_path / "a.TIF", 4)
    ms.with_suffix(".IMD").write_text(imd("WV03", "B G R N", band_id="BGRN", algorithm="UNB"))
    with pytest.raises(SceneError, match=r"a\.TIF: it is already pansharpened: panSharpenAlgorithm is UNB; .*original"):
        detect(pan, ms)
    image = tif(tmp_path / "IMG_foo_R1C1.TIF", 4)
    (tmp_path / "DIM_foo.XML").write_text(dimap2("PHR", "1A", "PMS", "B2 B1 B0 B3", image.name))
    with pytest.raises(SceneError, match="its metadata calls it PMS"):
        detect(pan, image)


@pytest.mark.parametrize(
    "name",
    [
        "18JAN01000000-S2AS-012345678901_01_P001.TIF",
        "IMG_PHR1A_PMS_001.tif",
        "IMG_001_PNEO3_PMS-FS_x.tif",
        "DE2_PSH_L1C_x.tif",
        "SV1-01_20200101_L2A0000000001_0000000000001_01-PSH.tiff",
    ],
)
def test_pansharpened_by_name_is_refused(tmp_path, pan, name):
    with pytest.raises(SceneError, match="its file name says"):
        detect(pan, tif(tmp_path / name, 4), choice=UserChoice(sensor=SENSORS["vhr"]))


def test_swapped_files_are_told(tmp_path):
    first, second = tif(tmp_path / "a.TIF", 4), tif(tmp_path / "b.TIF")
    first.with_suffix(".IMD").write_text(imd("WV02", "B G R N"))
    second.with_suffix(".IMD").write_text(imd("WV02", "P", band_id="P"))
    with pytest.raises(SceneError, match=r"a\.TIF: it is the multispectral file.*swap"):
        detect(first, second)
