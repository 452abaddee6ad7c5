"""The STAC item of a result: pystac reads it, the core schemas hold, and what it says is true."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from click.testing import CliRunner
from conftest import changed, landscape, sharpen_options, write_raster
from pyproj import Transformer
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.rpc import RPC
from rasterio.transform import Affine

from crossdiff_cli import __version__
from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import OutputError, OutputExistsError
from crossdiff_cli.io import stac
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

GRID = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
COMMON_NAMES = {
    "pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071", "rededge075", "rededge078",
    "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12",
}  # fmt: skip
"""What eo:common_name may be (version 2.0.0 of the extension)."""


@pytest.fixture
def options(untrained_weights):
    return sharpen_options(
        pair=PairOptions(sensor="wv4", bands=("B", "G", "R", "NIR")), weights=untrained_weights, device="cpu",
        precision="fp32", tile=512, stac=True,
    )  # fmt: skip


def load(path):
    """Read an item and validate it against the schemas of the core that pystac ships; nothing is fetched."""
    item = pystac.Item.from_file(str(path))
    plain = json.loads(Path(path).read_text())
    JsonSchemaSTACValidator().validate_core(plain, pystac.STACObjectType.ITEM, plain["stac_version"])
    return item, plain


def make(folder, grid=GRID, crs="EPSG:32633", shape=(256, 256), **profile):
    pan, ms = landscape(shape, 4, 4)
    folder.mkdir(exist_ok=True)
    return (
        write_raster(folder / "pan.tif", pan.astype("uint16"), grid, crs, **profile),
        write_raster(folder / "ms.tif", ms.astype("uint16"), None if grid is None else grid @ Affine.scale(4), crs,
                     **profile),
    )  # fmt: skip


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_item_describes_the_file(tmp_path, options, driver):
    """Everything in the item is what rasterio reads from the file, and the links lead to files."""
    pan, ms = make(tmp_path / "in", nodata=0)
    with rasterio.open(ms, "r+") as file:
        file.scales, file.offsets = (0.01, 0.02, 0.03, 0.04), (1.0, 2.0, 3.0, 4.0)
        file.update_tags(ns="IMAGERY", SATELLITEID="WV04", ACQUISITIONDATETIME="2018-04-26 10:04:31", CLOUDCOVER="7")
    result = sharpen(pan, [ms], tmp_path / "sharp.tif", changed(options, driver=driver, out_bands=("NIR", "R", "G")))
    item, plain = load(tmp_path / "sharp.json")
    assert (item.id, item.datetime) == ("sharp", datetime(2018, 4, 26, 10, 4, 31, tzinfo=UTC))
    assert sorted(uri.split("/")[-3] for uri in item.stac_extensions) == ["eo", "processing", "projection", "raster"]
    asset = item.assets["data"]
    assert asset.media_type == (pystac.MediaType.COG if driver == "COG" else pystac.MediaType.GEOTIFF)
    with rasterio.open(asset.get_absolute_href()) as file:
        properties = item.properties
        assert properties["proj:code"] == "EPSG:32633" == file.crs.to_string()
        assert properties["proj:shape"] == list(file.shape)
        assert Affine(*properties["proj:transform"]) == file.transform
        assert properties["proj:bbox"] == list(file.bounds)
        assert properties["gsd"] == asset.extra_fields["raster:spatial_resolution"] == 0.5
        assert asset.extra_fields["data_type"] == file.dtypes[0]
        assert asset.extra_fields["nodata"] == file.nodata
        bands = plain["assets"]["data"]["bands"]
        assert tuple(band["name"] for band in bands) == file.descriptions
        assert [band["eo:common_name"] for band in bands] == ["nir", "red", "green"]
        assert tuple(band["raster:scale"] for band in bands) == file.scales == (0.04, 0.03, 0.02)
        assert tuple(band["raster:offset"] for band in bands) == file.offsets
        for index, band in enumerate(bands, start=1):
            tags = file.tags(index, ns="IMAGERY")
            assert band["eo:center_wavelength"] == float(tags["CENTRAL_WAVELENGTH_UM"])
            assert band["eo:full_width_half_max"] == float(tags["FWHM_UM"])
        assert properties["crossdiff:weights"] == file.tags()["CROSSDIFF_WEIGHTS"]
        assert len(properties["crossdiff:nyquist_gains"]) == len(properties["crossdiff:mtf_source"]) == 4
        assert properties["crossdiff:nyquist_gains"] == [
            float(gain) for gain in file.tags()["CROSSDIFF_NYQUIST_GAINS"].split(",")
        ]
        corners = [file.transform @ corner for corner in ((0, 0), (0, 256), (256, 256), (256, 0))]
    assert properties["eo:cloud_cover"] == 7
    assert properties["platform"] == "worldview-4"
    assert properties["processing:software"] == {"crossdiff": __version__}
    assert "ms.tif sharpened with pan.tif" in properties["processing:lineage"]
    assert properties["crossdiff:consistency"] == pytest.approx(result.consistency, abs=1e-6)
    sources = [link for link in item.links if link.rel == "derived_from"]
    assert [link.href for link in sources] == ["in/pan.tif", "in/ms.tif"]
    assert all((tmp_path / link.href).is_file() for link in sources)
    assert str(tmp_path) not in (tmp_path / "sharp.json").read_text()
    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
    expected = np.array([to_degrees.transform(*corner) for corner in corners])
    ring = np.array(item.geometry["coordinates"][0])
    assert np.array_equal(ring[0], ring[-1])
    assert np.allclose(ring[:-1], expected, atol=1e-6)
    assert item.bbox == pytest.approx([*expected.min(axis=0), *expected.max(axis=0)], abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "sharp.json", "sharp.tif"]


def test_every_common_name_is_one_of_the_extension():
    assert set(stac._COMMON_NAMES.values()) <= COMMON_NAMES


def test_the_footprint_of_a_wide_scene_follows_the_ground(tmp_path, options):
    """A side of 128 km that is straight in UTM is none in degrees: vertices between the corners lie on it."""
    pan, ms = make(tmp_path, Affine(500, 0, 600000, 0, -500, 7700000))
    sharpen(pan, [ms], tmp_path / "sharp.tif", options)
    item, _ = load(tmp_path / "sharp.json")
    ring = np.array(item.geometry["coordinates"][0])
    back = Transformer.from_crs(4326, 32633, always_xy=True)
    middle = (ring[1:] + ring[:-1]) / 2
    x, y = back.transform(middle[:, 0], middle[:, 1])
    on_side = np.minimum.reduce([abs(x - 600000), abs(x - 728000), abs(y - 7700000), abs(y - 7572000)])
    assert on_side.max() < 60
    assert len(ring) == 4 * 13 + 1


@pytest.mark.parametrize(("zone", "left"), [(32660, 670000), (32601, 280000)])
def test_the_180th_meridian_cuts_the_footprint(tmp_path, options, zone, left):
    """West of the bbox is greater than its east, as RFC 7946 has it."""
    pan, ms = make(tmp_path, Affine(100, 0, left, 0, -100, 6000000), f"EPSG:{zone}", (640, 640))
    sharpen(pan, [ms], tmp_path / "sharp.tif", options)
    item, _ = load(tmp_path / "sharp.json")
    assert item.geometry["type"] == "MultiPolygon"
    west, _south, east, _north = item.bbox
    assert 178 < west < 180
    assert -180 < east < -178


def test_degrees_and_unnamed_crs(tmp_path, options):
    pan, ms = make(tmp_path, Affine(1e-5, 0, 14.0, 0, -1e-5, 60.0), "EPSG:4326")
    sharpen(pan, [ms], tmp_path / "degrees.tif", options)
    item, _ = load(tmp_path / "degrees.json")
    assert item.properties["proj:code"] == "EPSG:4326"
    # A degree of latitude is 111.4 km at 60 degrees north, one of longitude 55.8 km.
    assert item.properties["gsd"] == pytest.approx((1.114 * 0.558) ** 0.5, rel=0.005)
    own = "+proj=tmerc +lat_0=40 +lon_0=14.1 +k=1 +x_0=0 +y_0=0 +ellps=bessel +units=m"
    pan, ms = make(tmp_path, GRID @ Affine.translation(-1e6, 1e7), own)
    sharpen(pan, [ms], tmp_path / "own.tif", options)
    item, _ = load(tmp_path / "own.json")
    assert item.properties["proj:code"] is None
    with rasterio.open(tmp_path / "own.tif") as file:
        assert rasterio.CRS.from_wkt(item.properties["proj:wkt2"]) == file.crs


def test_nothing_is_made_up(tmp_path, options):
    """No georeference, date, nodata or sensor: geometry null, an interval that holds the truth, and no such fields."""
    pan, ms = make(tmp_path, None)
    unknown = changed(options, pair=PairOptions(sensor="generic", bands=("B", "G", "R", "NIR")))
    sharpen(pan, [ms], tmp_path / "sharp.tif", unknown)
    item, plain = load(tmp_path / "sharp.json")
    assert item.geometry is None
    assert "bbox" not in plain
    assert item.datetime is None
    assert item.properties["start_datetime"] < "1973"
    assert item.properties["end_datetime"][:4] == str(datetime.now(UTC).year)
    assert not {"proj:code", "proj:transform", "gsd", "platform", "eo:cloud_cover"} & set(item.properties)
    assert "nodata" not in plain["assets"]["data"]
    assert item.properties["proj:shape"] == [256, 256]


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, {}), (0.0, {"nodata": 0}), (-0.5, {"nodata": -0.5}), (float("nan"), {"nodata": "nan"})],
)
def test_nodata_is_valid_json(value, said):
    assert stac._nodata(value) == said


def test_an_unrectified_scene_lies_where_its_rpcs_say(tmp_path, options):
    """Linear polynomials: line = 128 - 128 * (lat - 45) / 0.1, sample = 128 + 128 * (lon - 15) / 0.1."""
    pan, ms = make(tmp_path, None)
    zeros = [0.0] * 17
    with rasterio.open(pan, "r+") as file:
        file.rpcs = RPC(
            height_off=10, height_scale=500, lat_off=45, lat_scale=0.1, long_off=15, long_scale=0.1, line_off=127.5,
            line_scale=128, samp_off=127.5, samp_scale=128, line_num_coeff=[0.0, 0.0, -1.0, *zeros],
            line_den_coeff=[1.0, 0.0, 0.0, *zeros], samp_num_coeff=[0.0, 1.0, 0.0, *zeros],
            samp_den_coeff=[1.0, 0.0, 0.0, *zeros],
        )  # fmt: skip
    sharpen(pan, [ms], tmp_path / "sharp.tif", options)
    item, _ = load(tmp_path / "sharp.json")
    assert item.bbox == pytest.approx([14.9, 44.9, 15.1, 45.1], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("IMD", {"LANDSAT_METADATA_FILE.IMAGE_ATTRIBUTES.DATE_ACQUIRED": "2021-07-08",
                 "LANDSAT_METADATA_FILE.IMAGE_ATTRIBUTES.SCENE_CENTER_TIME": '"09:45:12.1234567Z"'}),
        ("IMD", {"IMAGE_1.firstLineTime": "2021-07-08T09:45:12.345678Z"}),
        ("IMAGERY", {"ACQUISITIONDATETIME": "2021-07-08 09:45:12"}),
        ("IMD", {"Dataset_Sources.Source_Identification.IMAGING_DATE": "2021-07-08",
                 "Dataset_Sources.Source_Identification.IMAGING_TIME": "09:45:12.3Z"}),
    ],
)  # fmt: skip
def test_the_time_of_each_vendor(tmp_path, options, name, tags):
    pan, ms = make(tmp_path)
    with rasterio.open(ms, "r+") as file:
        file.update_tags(ns=name, **tags)
    sharpen(pan, [ms], tmp_path / "sharp.tif", options)
    assert load(tmp_path / "sharp.json")[1]["properties"]["datetime"] == "2021-07-08T09:45:12Z"


def test_a_date_before_all_satellites_is_none(tmp_path, options):
    """GDAL gives 1970-01-01 for a time that it cannot read."""
    pan, ms = make(tmp_path)
    with rasterio.open(ms, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="1970-01-01 00:00:00")
    sharpen(pan, [ms], tmp_path / "sharp.tif", options)
    assert load(tmp_path / "sharp.json")[0].datetime is None


@pytest.mark.parametrize(
    ("path", "href"),
    [
        ("/data/in/pan.tif", "../in/pan.tif"),
        ("/vsicurl/https://host.example/pan.tif", "https://host.example/pan.tif"),
        ("https://host.example/pan.tif", "https://host.example/pan.tif"),
        ("/vsis3/bucket/pan.tif", "s3://bucket/pan.tif"),
        ("s3://bucket/pan.tif", "s3://bucket/pan.tif"),
        ("/vsizip/deliveries.zip/pan.tif", "/vsizip/deliveries.zip/pan.tif"),
    ],
)
def test_links_to_sources(path, href):
    assert stac._href(path, Path("/data/out")) == href


def test_instruments_and_platforms(tmp_path, options):
    pan, ms = make(tmp_path)
    expected = {"l7": ("landsat-7", ["etm+"]), "l9": ("landsat-9", ["oli-2"]), "phr": ("pleiades", None)}
    for sensor, facts in expected.items():
        chosen = changed(options, pair=PairOptions(sensor=sensor, bands=("B", "G", "R", "NIR")), overwrite=True)
        sharpen(pan, [ms], tmp_path / "sharp.tif", chosen)
        properties = load(tmp_path / "sharp.json")[1]["properties"]
        assert (properties["platform"], properties.get("instruments")) == facts


def test_an_old_item_is_kept_unless_told_otherwise(tmp_path, options):
    pan, ms = make(tmp_path)
    (tmp_path / "sharp.json").write_text("old")
    with pytest.raises(OutputExistsError) as caught:
        sharpen(pan, [ms], tmp_path / "sharp.tif", options)
    assert caught.value.path == str(tmp_path / "sharp.json")
    assert not (tmp_path / "sharp.tif").exists()
    assert (tmp_path / "sharp.json").read_text() == "old"
    with pytest.raises(OutputError, match="call the result .tif"):
        sharpen(pan, [ms], tmp_path / "other.json", options)
    sharpen(pan, [ms], tmp_path / "sharp.tif", changed(options, overwrite=True))
    load(tmp_path / "sharp.json")


def test_no_item_when_the_sharpening_fails(tmp_path, options):
    pan, ms = make(tmp_path)
    whole = Path(pan).read_bytes()
    Path(pan).write_bytes(whole[: len(whole) // 2])
    arguments = ["-q", "sharpen", pan, ms, "-o", str(tmp_path / "sharp.tif"), "--stac"]
    done = CliRunner().invoke(main, [*arguments, "--weights", str(options.network.weights)])
    assert done.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ms.tif", "pan.tif"]


def test_an_item_that_cannot_be_written_is_said(tmp_path, options, monkeypatch):
    """The result is complete by then and stays; half an item does not."""
    pan, ms = make(tmp_path)

    def full(self, *_, **__):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="the STAC item cannot be written, while .*No space left"):
        sharpen(pan, [ms], tmp_path / "sharp.tif", options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ms.tif", "pan.tif", "sharp.tif"]
