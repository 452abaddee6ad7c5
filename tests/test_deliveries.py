"""Deliveries of each vendor: PAN, MS, sensor and band order are found from the folder and from its metadata files."""

import json

import numpy as np
import pytest
import rasterio
from conftest import write_raster
from delivery_files import (
    cbers,
    gaofen,
    geoeye,
    grid,
    imd,
    landsat,
    maxar,
    pixels,
    skysat,
    split,
)
from dimap_files import dimap_image, pleiades, volume
from rasterio.shutil import copy
from rasterio.transform import Affine

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.options import PairOptions


def bands_of(pair: ScenePair) -> str:
    return ",".join(band.name for band in pair.bands)


def whole(pair: ScenePair) -> tuple[np.ndarray, np.ndarray]:
    """PAN and MS as the pair reads them, without margins."""
    pan = pair.pan.read(Window(0, 0, *pair.pan.shape))[0]
    ms = np.concatenate([raster.read(Window(0, 0, *pair.ms_shape))[0] for raster in pair.ms])
    return pan, ms


def check(name, sensor, bands, pan, ms, transform=None, vendor=""):
    with open_pair(str(name)) as pair:
        assert (pair.sensor.key, bands_of(pair)) == (sensor, bands)
        found = whole(pair)
        assert np.array_equal(found[0], pan)
        assert np.array_equal(found[1], ms)
        if transform is not None:
            assert pair.pan.transform.almost_equals(transform)
        assert pair.inputs.delivery.startswith(vendor)
        return pair


# Maxar


@pytest.mark.parametrize(("groups", "bands"), [("B G R N", "B,G,R,NIR"), ("R G B N", "R,G,B,NIR")])
def test_a_maxar_order_is_put_together_and_the_imd_gives_the_band_order(tmp_path, groups, bands):
    maxar(tmp_path, groups)
    pair = check(tmp_path, "wv4", bands, *pixels(), grid(), "Maxar delivery of 2018-01-01 10:00:00")
    assert pair.sensor_source == "IMD"
    assert "-P2AS-" in pair.inputs.delivery
    assert "(2 tiles)" in pair.inputs.delivery


def test_any_metadata_file_of_a_maxar_order_stands_for_it(tmp_path):
    maxar(tmp_path, "B G R N")
    for suffix in ("TIL", "IMD"):
        for kind in ("PAN", "MUL"):
            (name,) = tmp_path.rglob(f"*_{kind}/*.{suffix}")
            check(name, "wv4", "B,G,R,NIR", *pixels())


def test_eight_bands_of_worldview(tmp_path):
    maxar(tmp_path, "C B G Y R RE N N2", satellite="WV03")
    check(tmp_path, "wv3", "CA,B,G,Y,R,RE,N1,N2", *pixels(8))


def test_folders_of_pan_and_ms_may_be_named_one_by_one(tmp_path):
    maxar(tmp_path, "R G B N")
    pan, ms = (next(tmp_path.rglob(f"*_{kind}")) for kind in ("PAN", "MUL"))
    tiff = next(pan.glob("*_R1C1-*.TIF"))
    with open_pair(str(pan), [str(ms)]) as pair:
        assert (pair.pan.shape, pair.ms_shape, bands_of(pair)) == ((64, 64), (16, 16), "R,G,B,NIR")
    with open_pair(str(tiff), [str(next(ms.glob("*.IMD")))]) as pair:
        assert (pair.pan.shape, pair.ms_shape, bands_of(pair)) == ((64, 40), (16, 16), "R,G,B,NIR")


def test_a_til_that_gdal_misplaces_is_placed_by_its_tiles(tmp_path):
    maxar(tmp_path, "B G R N")
    for document in tmp_path.rglob("*.IMD"):
        head, _, tail = document.read_text().partition("BEGIN_GROUP = MAP_PROJECTED_PRODUCT")
        document.write_text(head + tail.partition("END_GROUP = MAP_PROJECTED_PRODUCT")[2])
        with rasterio.open(document.with_suffix(".TIL")) as misplaced:
            assert not misplaced.transform.almost_equals(grid())
    check(tmp_path, "wv4", "B,G,R,NIR", *pixels(), grid())


def test_maxar_tiles_without_til_lie_where_their_georeference_says(tmp_path):
    maxar(tmp_path, "B G R N")
    for path in tmp_path.rglob("*.TIL"):
        path.unlink()
    pair = check(tmp_path, "wv4", "B,G,R,NIR", *pixels(), grid())
    assert pair.pan.crs.to_epsg() == 32633


def test_maxar_xml_in_place_of_imd_and_til(tmp_path):
    pan, ms = pixels()
    for kind, data, ratio, groups in (("P", pan, 1, "P"), ("M", ms, 4, "NRGB")):
        rows = ""
        stem = f"18JAN01100000-{kind}2AS"
        for i, (a, b) in enumerate(split(data.shape[2]), start=1):
            name = f"{stem}_R1C{i}-012345678901_01_P001.TIF"
            write_raster(tmp_path / name, data[:, :, a:b], grid(ratio) @ Affine.translation(a, 0))
            rows += (
                f"<TILE><FILENAME>{name}</FILENAME><ULCOLOFFSET>{a}</ULCOLOFFSET><ULROWOFFSET>0</ULROWOFFSET></TILE>"
            )
        listed = "".join(f"<BAND_{g}><ABSCALFACTOR>1</ABSCALFACTOR></BAND_{g}>" for g in groups)
        (tmp_path / f"{stem}-012345678901_01_P001.XML").write_text(
            f"<isd><IMD><BANDID>{'P' if kind == 'P' else 'Multi'}</BANDID>"
            f"<PANSHARPENALGORITHM>None</PANSHARPENALGORITHM>{listed}<IMAGE><SATID>WV02</SATID><CATID>1030010012345600</CATID>"
            f"<FIRSTLINETIME>2018-01-01T10:00:00Z</FIRSTLINETIME></IMAGE></IMD><TIL><NUMTILES>2</NUMTILES>{rows}</TIL></isd>"
        )
    check(tmp_path, "wv2", "N1,R,G,B", pan, ms, grid())


def test_maxar_images_in_one_file_each(tmp_path):
    pan, ms = pixels()
    for data, ratio, groups, band in ((pan, 1, "P", "P"), (ms, 4, "N R G B", "Multi")):
        name = f"WV02_20180101100000_10300100_18JAN01100000-{band[0]}1BS-012345678901_01_P001"
        write_raster(tmp_path / f"{name}.ntf.tif", data, grid(ratio))
        (tmp_path / f"{name}.ntf.imd").write_text(imd("WV02", groups, data.shape[1:], grid(ratio), band_id=band))
    check(tmp_path, "wv2", "N1,R,G,B", pan, ms, grid())


def test_of_several_parts_one_is_named_by_its_metadata(tmp_path):
    for part in ("P001", "P002"):
        maxar(tmp_path, "B G R N", part=part)
    with open_pair(str(next(tmp_path.rglob("*_P002_MUL/*.IMD")))) as pair:
        assert all("P002" in path for path in (pair.pan.path, pair.ms[0].path))


# Airbus


@pytest.mark.parametrize(("ids", "bands"), [("B2 B1 B0 B3", "R,G,B,NIR"), ("B0 B1 B2 B3", "B,G,R,NIR")])
def test_a_pleiades_bundle_by_folder_volume_and_dim(tmp_path, ids, bands):
    pleiades(tmp_path, ids)
    for name in (tmp_path, tmp_path / "VOL_PHR.XML", *tmp_path.rglob("DIM_*.XML")):
        pair = check(name, "phr", bands, *pixels(), grid(), "DIMAP delivery of 2018-01-01 10:00:00")
        assert pair.sensor_source == "DIMAP"
        assert pair.nodata == 0


def test_dimap_band_index_outranks_the_order_of_its_rows(tmp_path):
    pleiades(tmp_path)
    (document,) = tmp_path.rglob("DIM_*_MS_*.XML")
    text = document.read_text()
    start, end = text.index("<Raster_Index_List>"), text.index("</Raster_Index_List>")
    rows = "".join(
        f"<Raster_Index><BAND_ID>{band}</BAND_ID><BAND_INDEX>{i}</BAND_INDEX></Raster_Index>"
        for band, i in (("B3", 4), ("B0", 2), ("B1", 1), ("B2", 3))
    )
    document.write_text(text[:start] + "<Raster_Index_List>" + rows + text[end:])
    check(tmp_path, "phr", "G,B,R,NIR", *pixels())


def test_six_bands_of_pleiades_neo_in_two_groups_of_files(tmp_path):
    pan, ms = pixels(6)
    satellite = ("PNEO", "3")
    documents = [
        dimap_image(tmp_path, satellite, "PAN", [["P"]], pan, 1, 1),
        dimap_image(tmp_path, satellite, "MS-FS", [["R", "G", "B"], ["NIR", "RE", "DB"]], ms, 4, 2),
    ]
    volume(tmp_path, documents, "VOL_PNEO.XML")
    check(tmp_path, "pneo", "R,G,B,NIR,RE,DB", pan, ms, grid())


def test_spot_seven(tmp_path):
    pan, ms = pixels()
    dimap_image(tmp_path, ("SPOT", "7"), "P", [["PAN"]], pan, 1, 1)
    dimap_image(tmp_path, ("SPOT", "7"), "MS", [["B2", "B1", "B0", "B3"]], ms, 4, 2)
    check(tmp_path, "spot7", "R,G,B,NIR", pan, ms, grid())


def test_dimap_one_of_geosat(tmp_path):
    pan, ms = pixels()
    for name, data, bands in (("PAN", pan, ["PAN"]), ("MS4", ms, ["NIR", "RED", "GREEN", "BLUE"])):
        stem = f"DE2_{name}_L1C_000000_20180101T100000_20180101T100010_DE2_1_0000"
        write_raster(tmp_path / f"{stem}.tif", data, grid(1 if name == "PAN" else 4))
        rows = "".join(
            f"<Spectral_Band_Info><BAND_INDEX>{i}</BAND_INDEX><BAND_DESCRIPTION>{band}</BAND_DESCRIPTION></Spectral_Band_Info>"
            for i, band in enumerate(bands, start=1)
        )
        (tmp_path / f"{stem}.dim").write_text(
            '<Dimap_Document><Metadata_Id><METADATA_FORMAT version="1.1">DIMAP</METADATA_FORMAT></Metadata_Id>'
            f"<Raster_Dimensions><NCOLS>{data.shape[2]}</NCOLS><NROWS>{data.shape[1]}</NROWS><NBANDS>{len(data)}</NBANDS>"
            f'</Raster_Dimensions><Data_Access><Data_File><DATA_FILE_PATH href="{stem}.tif"/></Data_File></Data_Access>'
            f"<Image_Interpretation>{rows}</Image_Interpretation><Dataset_Sources><Source_Information><Scene_Source>"
            "<IMAGING_DATE>2018-01-01</IMAGING_DATE><IMAGING_TIME>10:00:05</IMAGING_TIME><MISSION>DEIMOS</MISSION>"
            "<MISSION_INDEX>2</MISSION_INDEX></Scene_Source></Source_Information></Dataset_Sources></Dimap_Document>"
        )
    check(tmp_path, "geosat2", "NIR,R,G,B", pan, ms, None)


# Landsat


@pytest.mark.parametrize("form", ["txt", "json", "xml"])
@pytest.mark.parametrize(
    ("satellite", "sensor", "bands", "numbers"),
    [
        ("LANDSAT_7", "l7", "B,G,R,NIR,SWIR1,SWIR2", (1, 2, 3, 4, 5, 7)),
        ("LANDSAT_8", "l8", "CA,B,G,R,NIR,SWIR1,SWIR2", (1, 2, 3, 4, 5, 6, 7)),
        ("LANDSAT_9", "l9", "CA,B,G,R,NIR,SWIR1,SWIR2", (1, 2, 3, 4, 5, 6, 7)),
    ],
)
def test_landsat_reflective_bands_and_pan(tmp_path, form, satellite, sensor, bands, numbers):
    landsat(tmp_path, satellite, form)
    (document,) = tmp_path.glob(f"*_MTL.{form}")
    for name in (tmp_path, document):
        with open_pair(str(name)) as pair:
            assert (pair.sensor.key, bands_of(pair), pair.nodata) == (sensor, bands, 0)
            assert [int(raster.path.split("_B")[-1].split(".")[0]) for raster in pair.ms] == list(numbers)
            assert pair.pan.path.endswith("_B8.TIF")
            assert pair.grid.offset == (0.5, 0.5)
            assert pair.inputs.delivery.startswith("Landsat delivery of 2020-01-01 18:45:32")
    with open_pair(str(document), [str(document)]) as pair:
        assert bands_of(pair) == bands


def test_landsat_bands_that_were_not_downloaded_are_left_out_and_named(tmp_path):
    landsat(tmp_path, "LANDSAT_8")
    for band in (1, 6, 7, 10):
        next(tmp_path.glob(f"*_B{band}.TIF")).unlink()
    with open_pair(str(tmp_path)) as pair:
        assert bands_of(pair) == "B,G,R,NIR"
        assert any("_B1.TIF" in note and "_B10.TIF" not in note for note in pair.notes)


# Others


@pytest.mark.parametrize(
    ("sensor", "key", "files", "bands"),
    [
        ("IKONOS-2", "ik", "blu grn red nir", "B,G,R,NIR"),
        ("GeoEye-1", "ge1", "blu grn red nir", "B,G,R,NIR"),
        ("IKONOS-2", "ik", "blu red nir", "B,R,NIR"),
    ],
)
def test_ikonos_and_geoeye_band_files(tmp_path, sensor, key, files, bands):
    geoeye(tmp_path, sensor, files)
    pan, ms = pixels(len(files.split()))
    for name in (tmp_path, tmp_path / "po_123456_metadata.txt"):
        check(name, key, bands, pan, ms, grid(), "GeoEye delivery of 2008-01-01 10:00:00")


def test_ikonos_bands_in_one_file(tmp_path):
    pan, ms = pixels()
    write_raster(tmp_path / "po_123456_pan_0000000.tif", pan, grid())
    write_raster(tmp_path / "po_123456_bgrn_0000000.tif", ms, grid(4))
    check(tmp_path, "ik", "B,G,R,NIR", pan, ms, grid())


@pytest.mark.parametrize(("numbers", "bands"), [("1,2,3,4", "B,G,R,NIR"), ("4,3,2,1", "NIR,R,G,B")])
def test_gaofen(tmp_path, numbers, bands):
    gaofen(tmp_path, numbers)
    pan, ms = pixels()
    for name in (tmp_path, *tmp_path.glob("*.xml")):
        check(name, "gf2", bands, pan, ms, None, "GaoFen delivery of 2018-01-01 03:10:20")


def test_cbers(tmp_path):
    cbers(tmp_path)
    pan, ms = pixels()
    for name in (tmp_path, *tmp_path.glob("*.xml")):
        check(name, "cbers4a", "B,G,R,NIR", pan, ms, grid(), "CBERS delivery of 2020-08-01")
    with open_pair(str(tmp_path), options=PairOptions(bands=("R", "G", "B", "NIR"))) as pair:
        assert bands_of(pair) == "R,G,B,NIR"


def test_skysat_takes_pan_and_ms_of_one_calibration(tmp_path):
    skysat(tmp_path)
    for name in (tmp_path, *tmp_path.glob("*_metadata.json")):
        pair = check(name, "skysat", "B,G,R,NIR", *pixels(), grid(), "Planet delivery of 2018-01-01 10:00:00")
        assert pair.ms[0].path.endswith("_analytic_dn.tif")


def test_skysat_bands_of_a_stac_item(tmp_path):
    skysat(tmp_path)
    (document,) = tmp_path.glob("*_metadata.json")
    names = [{"common_name": name} for name in ("nir", "red", "green", "blue")]
    document.write_text(json.dumps({"properties": {}, "assets": {"ortho_analytic": {"eo:bands": names}}}))
    check(tmp_path, "skysat", "NIR,R,G,B", *pixels(), grid())


def test_a_folder_without_a_vendors_layout_is_read_by_names(make_pair, tmp_path):
    make_pair(shape=(64, 64), name="scene_")
    with open_pair(str(tmp_path)) as pair:
        assert pair.pan.path.endswith("scene_pan.tif")
        assert "by their names" in pair.inputs.delivery


def test_a_folder_that_gdal_opens_itself_is_an_image(make_pair, tmp_path):
    files = make_pair(shape=(64, 64))
    folder = tmp_path / "pan.zarr"
    with rasterio.open(files.pan) as source:
        copy(source, folder, driver="Zarr")
    with open_pair(str(folder), [files.ms]) as pair:
        assert pair.pan.shape == (64, 64)
