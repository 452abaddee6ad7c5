"""What a result says of itself, read back with rasterio, GDAL's own gdalinfo and rio-cogeo."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from conftest import changed, landscape, sharpen_options, write_raster
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rio_cogeo.cogeo import cog_validate

import crossdiff_cli
from crossdiff_cli.errors import OutputError, SensorError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.writer import OutputProfile, Writer
from crossdiff_cli.options import PairOptions
from crossdiff_cli.sensors.table import find_sensor
from crossdiff_cli.tasks.sharpen import sharpen

GRID = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
WORLDVIEW = ("CA", "B", "G", "Y", "R", "RE", "N1", "N2")
COLOURS = ("coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir")
RPCS = RPC(
    height_off=10, height_scale=500, lat_off=45, lat_scale=0.1, long_off=15, long_scale=0.1, line_off=128,
    line_scale=128, samp_off=127, samp_scale=128, line_num_coeff=[0.1] * 20, line_den_coeff=[1.0] + [0.0] * 19,
    samp_num_coeff=[0.2] * 20, samp_den_coeff=[1.0] + [0.0] * 19,
)  # fmt: skip


@pytest.fixture
def options(untrained_weights):
    return sharpen_options(weights=untrained_weights, device="cpu", precision="fp32", tile=512)


def write(path, shape=(280, 1100), dtype="uint16", **changes):
    """A file of eight bands as `sharpen` writes it, with everything a profile can say."""
    values = {
        "shape": shape, "dtype": dtype, "crs": "EPSG:32633", "transform": GRID, "nodata": 0.0,
        "bands": find_sensor("wv2").select(WORLDVIEW), "scales": [0.01 * (i + 1) for i in range(8)],
        "offsets": [float(i) for i in range(8)], "rpcs": RPCS, "tags": {"CROSSDIFF_VERSION": "x"},
        "imagery": {"SATELLITEID": "WV02"}, "driver": "COG",
    }  # fmt: skip
    data = np.random.default_rng(0).integers(1, 250, (8, *shape)).astype(dtype)
    data[:, :100, :100] = 0
    with Writer(path, OutputProfile(**(values | changes))) as writer:
        writer.write(data, Window(0, 0, *shape))
    return data


def validate(path):
    return cog_validate(str(path), strict=True)


@pytest.mark.parametrize("shape", [(280, 1100), (600, 90), (70, 90)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_cog_is_valid_at_every_size_and_type(tmp_path, shape, dtype):
    data = write(tmp_path / "out.tif", shape, dtype)
    valid, errors, warnings = validate(tmp_path / "out.tif")
    assert valid, errors
    assert (errors, warnings) == ([], [])
    with rasterio.open(tmp_path / "out.tif") as file:
        assert np.array_equal(file.read(), data)
        smallest = [-(-n // file.overviews(1)[-1]) for n in shape] if file.overviews(1) else list(shape)
        assert max(smallest) <= 512


@pytest.mark.parametrize("compression", ["LZW", "ZSTD", "NONE"])
def test_a_cog_of_another_compression_is_valid(tmp_path, compression):
    write(tmp_path / "out.tif", creation={"COMPRESS": compression, "BLOCKSIZE": "256"})
    assert validate(tmp_path / "out.tif") == (True, [], [])
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.block_shapes[0] == (256, 256)
        assert file.profile.get("compress", "none").upper() == compression


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_everything_survives_in_rasterio(tmp_path, driver):
    write(tmp_path / "out.tif", driver=driver)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.transform == GRID
        assert file.crs.to_epsg() == 32633
        assert file.nodatavals == (0.0,) * 8
        assert file.descriptions == WORLDVIEW
        assert tuple(color.name for color in file.colorinterp) == COLOURS
        assert file.scales == tuple(0.01 * (i + 1) for i in range(8))
        assert file.offsets == tuple(float(i) for i in range(8))
        assert file.rpcs.samp_num_coeff == [0.2] * 20
        assert file.rpcs.line_off == 128
        assert file.tags()["CROSSDIFF_VERSION"] == "x"
        assert (file.dataset_mask() == 0).sum() == 100 * 100
        wavelengths = [file.tags(i, ns="IMAGERY") for i in file.indexes]
        assert [float(tags["CENTRAL_WAVELENGTH_UM"]) for tags in wavelengths] == [
            0.427, 0.48, 0.545, 0.605, 0.66, 0.725, 0.833, 0.95
        ]  # fmt: skip
        assert [float(tags["FWHM_UM"]) for tags in wavelengths] == [
            0.055, 0.06, 0.07, 0.04, 0.06, 0.04, 0.125, 0.18
        ]  # fmt: skip
        plain = file.tags(5)
        assert (plain["wavelength"], plain["fwhm"], plain["wavelength_units"]) == ("660", "60", "Nanometers")


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_everything_survives_in_gdal(tmp_path, driver):
    """The same by GDAL's own program, which may be of another version than rasterio's GDAL."""
    gdalinfo = shutil.which("gdalinfo")
    if gdalinfo is None:
        pytest.skip("gdalinfo is not installed")
    write(tmp_path / "out.tif", driver=driver)
    told = subprocess.run(
        [gdalinfo, "-json", "-mdd", "all", str(tmp_path / "out.tif")], capture_output=True, text=True, check=True
    )
    facts = json.loads(told.stdout)
    assert facts["size"] == [1100, 280]
    assert facts["geoTransform"] == [500000, 0.5, 0, 5000000, 0, -0.5]
    assert facts["metadata"]["IMAGE_STRUCTURE"].get("LAYOUT") == ("COG" if driver == "COG" else None)
    assert facts["metadata"][""]["CROSSDIFF_VERSION"] == "x"
    assert facts["metadata"]["RPC"]["LINE_OFF"] == "128"
    for band, name, colour in zip(facts["bands"], WORLDVIEW, COLOURS, strict=True):
        assert band["description"] == name
        assert band["noDataValue"] == 0
        assert len(band["overviews"]) == 3
        assert band["block"] == ([512, 512] if driver == "COG" else [256, 256])
        # GDAL before 3.10 knows the colours red, green and blue alone.
        assert band["colorInterpretation"].lower().replace(" ", "") in (colour, "undefined", "gray")
    red = facts["bands"][4]
    assert (red["scale"], red["offset"]) == (0.05, 4)
    assert red["metadata"]["IMAGERY"] == {"CENTRAL_WAVELENGTH_UM": "0.66", "FWHM_UM": "0.06"}
    assert red["metadata"][""]["wavelength"] == "660"


def test_thermal_and_cirrus_bands_have_a_colour(tmp_path):
    bands = find_sensor("l8").select(["CIRRUS", "TIR1", "TIR2"])
    with Writer(
        tmp_path / "out.tif",
        OutputProfile((64, 64), "uint16", "EPSG:32633", GRID, None, bands, [1.0] * 3, [0.0] * 3),
    ) as writer:
        writer.write(np.ones((3, 64, 64), "uint16"), Window(0, 0, 64, 64))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert [color.name for color in file.colorinterp] == ["swir", "tir", "tir"]


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_satellite_and_time_survive(tmp_path, options, driver):
    """A COG drops the dataset's IMAGERY domain: what it said stands among the plain tags."""
    pan, ms = landscape((256, 256), 4, 4)
    pan_file = write_raster(tmp_path / "pan.tif", pan.astype("uint16"), GRID)
    ms_file = write_raster(tmp_path / "ms.tif", ms.astype("uint16"), GRID @ Affine.scale(4))
    with rasterio.open(ms_file, "r+") as file:
        file.update_tags(ns="IMAGERY", SATELLITEID="WV04", ACQUISITIONDATETIME="2018-04-26 10:04:31", CLOUDCOVER="3")
    sharpen(pan_file, [ms_file], tmp_path / "out.tif", changed(options, driver=driver))
    with rasterio.open(tmp_path / "out.tif") as file:
        tags = file.tags()
    assert tags["SATELLITEID"] == "WV04"
    assert tags["ACQUISITIONDATETIME"] == "2018-04-26 10:04:31"
    assert tags["CLOUDCOVER"] == "3"
    assert tags["CROSSDIFF_SENSOR"] == "wv4"


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_a_grid_of_pixel_centres_stays_in_its_place(tmp_path, options, driver):
    """AREA_OR_POINT=Point moves nothing by half a pixel on the way through."""
    pan, ms = landscape((256, 256), 4, 4)
    files = []
    for name, data, grid in (("pan", pan, GRID), ("ms", ms, GRID @ Affine.scale(4))):
        files.append(write_raster(tmp_path / f"{name}.tif", data.astype("uint16"), grid))
        with rasterio.open(files[-1], "r+") as file:
            file.update_tags(AREA_OR_POINT="Point")
    with rasterio.open(files[0]) as file:
        expected = file.transform
    sharpen(files[0], files[1:], tmp_path / "out.tif", changed(options, driver=driver, pair=PairOptions(sensor="vhr")))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.tags()["AREA_OR_POINT"] == "Point"
        assert file.transform.almost_equals(expected, 1e-9)


def test_scale_and_offset_stay_with_another_type(tmp_path, make_pair, options):
    """DN of another type are the same DN."""
    files = make_pair()
    with rasterio.open(files.ms, "r+") as file:
        file.scales, file.offsets = (0.1, 0.2, 0.3, 0.4), (1.0, 2.0, 3.0, 4.0)
    chosen = changed(options, dtype="float32", out_bands=("NIR", "B"))
    sharpen(files.pan, [files.ms], tmp_path / "out.tif", chosen)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.scales == (0.4, 0.1)
        assert file.offsets == (4.0, 1.0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_out_bands_are_those_of_the_whole_result(tmp_path, make_pair, small_weights, options, read_all, dtype, driver):
    """Chosen bands are pixel for pixel those of the full set, in the order asked for, and open in their colours."""
    files = make_pair(dtype=dtype)
    options = changed(options, weights=small_weights, driver=driver)
    sharpen(files.pan, [files.ms], tmp_path / "all.tif", options)
    result = sharpen(files.pan, [files.ms], tmp_path / "rgb.tif", changed(options, out_bands=("red", "G", "b")))
    assert result.bands == ("R", "G", "B")
    assert np.array_equal(read_all(tmp_path / "rgb.tif"), read_all(tmp_path / "all.tif")[[2, 1, 0]])
    with rasterio.open(tmp_path / "rgb.tif") as file:
        assert file.descriptions == ("R", "G", "B")
        assert file.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert file.tags()["CROSSDIFF_BANDS"] == "R,G,B"
        assert float(file.tags(1, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"]) == 0.66
        assert file.dataset_mask().all()
    narrow = changed(options, pair=PairOptions(bidx=(3, 2, 1), bands=("R", "G", "B")))
    sharpen(files.pan, [files.ms], tmp_path / "narrow.tif", narrow)
    assert not np.array_equal(read_all(tmp_path / "narrow.tif"), read_all(tmp_path / "rgb.tif"))


@pytest.mark.parametrize(
    ("names", "text"), [(("R", "Y"), "no band 'Y' .*expected B,G,R,NIR"), (("R", "red"), "band R twice")]
)
def test_out_bands_that_are_not_there(tmp_path, make_pair, options, names, text):
    files = make_pair()
    with pytest.raises(SensorError, match=text):
        sharpen(files.pan, [files.ms], tmp_path / "out.tif", changed(options, out_bands=names))
    assert not (tmp_path / "out.tif").exists()


def test_kin_of_a_band_is_meant(tmp_path, make_pair, options):
    """WorldView-2 calls its near infrared N1."""
    files = make_pair()
    chosen = changed(options, pair=PairOptions(sensor="wv2"), out_bands=("nir", "blue"))
    assert sharpen(files.pan, [files.ms], tmp_path / "out.tif", chosen).bands == ("N1", "B")


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_units_and_tags_of_the_ms_are_kept_as_gdal_keeps_them(make_pair, tmp_path, small_weights, driver):
    """A copy of the MS by GDAL is the measure; statistics and what is written anew are left out."""
    files = make_pair()
    own = {"COPYRIGHT": "of the vendor", "PRODUCT": "ortho", "TIFFTAG_ARTIST": "station 7"}
    untrue = {"CROSSDIFF_WEIGHTS": "old", "TIFFTAG_SOFTWARE": "of the vendor", "TIFFTAG_XRESOLUTION": "2"}
    with rasterio.open(files.ms, "r+") as file:
        file.units = ("W/m2/sr/um", "W/m2/sr/um", "", "DN")
        file.update_tags(**own, **untrue)
        for index in file.indexes:
            file.update_tags(index, ABSCALFACTOR=f"0.0{index}", STATISTICS_MEAN="7", STATISTICS_MAXIMUM="9")
    with rasterio.open(files.pan, "r+") as file:
        file.update_tags(ACQUISITIONDATETIME="2020-01-02 03:04:05", PRODUCT="of the PAN")
    out, copy = tmp_path / "out.tif", tmp_path / "copy.tif"
    pair = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))
    options = sharpen_options(pair, small_weights, "cpu", driver=driver, out_bands=("NIR", "B"))
    sharpen(files.pan, [files.ms], out, options)
    rasterio.shutil.copy(files.ms, copy, driver=driver)
    with rasterio.open(out) as made, rasterio.open(copy) as wanted:
        tags = made.tags()
        assert {name: tags.get(name) for name in own} == {name: wanted.tags()[name] for name in own} == own
        assert tags["ACQUISITIONDATETIME"] == "2020-01-02 03:04:05"
        assert tags["CROSSDIFF_WEIGHTS"] != "old"
        assert "TIFFTAG_XRESOLUTION" not in tags
        assert tags["TIFFTAG_SOFTWARE"] == f"CrossDiff {crossdiff_cli.__version__}"
        for index, source in ((1, 4), (2, 1)):
            assert (made.units[index - 1] or "") == (wanted.units[source - 1] or "")
            assert made.tags(index)["ABSCALFACTOR"] == wanted.tags(source)["ABSCALFACTOR"]
            assert not any(name.startswith("STATISTICS_") for name in made.tags(index))


def test_of_band_files_the_tags_are_kept_in_which_all_agree(make_pair, tmp_path, small_weights):
    files = make_pair()
    parts = []
    with rasterio.open(files.ms) as file:
        for index in (1, 2, 3):
            path = tmp_path / f"b{index}.tif"
            with rasterio.open(path, "w", **(file.profile | {"count": 1})) as part:
                part.write(file.read(index), 1)
                part.update_tags(SCENE="7", BAND_FILE=str(index))
                part.update_tags(1, SOLAR=str(index))
            parts.append(str(path))
    out = tmp_path / "out.tif"
    options = sharpen_options(PairOptions(sensor="vhr", bands=("B", "G", "R")), small_weights, "cpu")
    sharpen(files.pan, parts, out, options)
    with rasterio.open(out) as made:
        assert made.tags()["SCENE"] == "7"
        assert "BAND_FILE" not in made.tags()
        assert [made.tags(index)["SOLAR"] for index in (1, 2, 3)] == ["1", "2", "3"]


@pytest.mark.parametrize("creation", [{"TILING_SCHEME": "GoogleMapsCompatible"}, {"target_srs": "EPSG:4326"}])
def test_options_that_change_the_grid_of_a_cog_are_refused_before_the_work(make_pair, tmp_path, creation):
    files = make_pair()
    pair = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))
    options = sharpen_options(pair, device="cpu", driver="COG", creation=creation)
    with pytest.raises(OutputError) as caught:
        sharpen(files.pan, [files.ms], tmp_path / "out.tif", options)
    assert caught.value.found == "=".join(*creation.items())
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_a_sparse_file_leaves_out_what_holds_nothing(make_pair, tmp_path, small_weights, read_all, driver):
    def edit(pan, ms):
        pan[:, :, 512:] = 0
        ms[:, :, 128:] = 0

    files = make_pair(shape=(512, 1536), edit=edit, nodata=0)
    pair = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))
    results = {}
    for sparse in ("TRUE", "FALSE"):
        out = tmp_path / f"{sparse}.tif"
        options = sharpen_options(pair, small_weights, "cpu", driver=driver, creation={"SPARSE_OK": sparse})
        sharpen(files.pan, [files.ms], out, options)
        results[sparse] = read_all(out)
        with rasterio.open(out) as file:
            tile = file.width // file.block_shapes[0][1] - 1
            assert (file.get_tag_item(f"BLOCK_OFFSET_{tile}_0", "TIFF", bidx=1) is None) == (sparse == "TRUE")
    assert results["TRUE"].any()
    assert np.array_equal(results["TRUE"], results["FALSE"])
