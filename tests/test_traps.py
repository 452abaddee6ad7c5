"""The traps that users of GIS tools fall into, each with the tests that fail when its handling is taken away.

Vendors' folders have their tests in `test_deliveries*.py`.
"""

import ast
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import changed, landscape, sharpen_options, write_raster
from rasterio.transform import Affine
from test_writer import profile
from vendor_files import imd

from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.writer import Writer
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

GRID = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))

TRAPS = {
    "extents of PAN and MS differ by less than an MS pixel": (
        "test_sharpen.py::test_geometry_law_extents_off_by_part_of_a_pixel",
        "test_pair.py::test_extents_that_differ_by_a_part_of_an_ms_pixel",
    ),
    "one file per band, in any order": ("test_pair.py::test_band_files_in_any_order_stack_in_the_order_given",),
    "one file per band, each with holes of its own": (
        "test_traps.py::test_a_hole_in_one_band_file_is_a_hole_in_all_bands",
    ),
    "four bands of uint8 are taken for RGBA on reading": (
        "test_raster.py::test_near_infrared_taken_for_alpha_by_gdal_is_data",
        "test_detect.py::test_default_alpha_of_four_byte_bands_is_no_evidence",
    ),
    "four bands of uint8 are taken for RGBA on writing": (
        "test_writer.py::test_near_infrared_does_not_open_as_alpha",
        "test_writer.py::test_no_band_is_marked_as_alpha_for_readers_that_look_at_the_tiff_alone",
    ),
    "file orders R,G,B,N (DIMAP), N,R,G,B (GEOSAT-2) and B,G,R,N (Maxar)": (
        "test_detect.py::test_dimap_two_beside_its_image_and_opened_itself",
        "test_detect.py::test_dimap_one_of_geosat",
        "test_detect.py::test_file_names_of_the_vendors",
    ),
    "a valid pixel is rounded to the nodata value": ("test_writer.py::test_valid_pixels_never_become_nodata",),
    "nodata enters the normalisation": (
        "test_traps.py::test_statistics_are_those_of_the_valid_pixels",
        "test_sharpen.py::test_mask_law",
    ),
    "nodata enters the metrics": (
        "test_quality_assess.py::test_what_is_masked_is_never_read",
        "test_quality_reference.py::test_masked_pixels_are_never_read",
    ),
    "files beyond 4 GB": ("test_traps.py::test_a_result_that_may_pass_four_gigabytes_is_a_bigtiff",),
    "the MTL of Landsat Collection 2 leaves GDAL's IMAGERY domain empty": (
        "test_detect.py::test_landsat_band_files_with_mtl",
    ),
    "the copy to a COG drops dataset metadata": ("test_writer.py::test_file_says_what_it_is",),
    "the COG driver holds the whole image in memory": ("test_traps.py::test_a_cog_is_written_tile_by_tile_and_copied",),
    "seams at the borders of tiles": ("test_sharpen.py::test_tile_law",),
    "tiles at the edge are dropped": ("test_tiles.py::test_cores_cover_the_extent_exactly_once",),
    "memory grows with the scene": ("test_sharpen.py::test_memory_law",),
    "PAN and MS are not registered": ("test_survey.py::test_a_known_shift_is_found",),
    "colours and brightness shift": (
        "test_sharpen.py::test_radiometric_law",
        "test_sharpen.py::test_consistency_law",
    ),
    "reflectance between 0 and 1": ("test_traps.py::test_reflectances_keep_their_range",),
    "nodata is not always 0: -9999, NaN": (
        "test_sharpen.py::test_mask_law",
        "test_raster.py::test_nan_and_infinity_are_masked",
    ),
    "a black collar that nobody declared": (
        "test_pair.py::test_undeclared_black_collar_is_nodata_unless_told_otherwise",
    ),
    "the data type changes": ("test_sharpen.py::test_output_has_the_type_of_the_ms",),
    "CRS and geotransform are lost": ("test_sharpen.py::test_geometry_law_extents_off_by_part_of_a_pixel",),
    "PAN and MS in different CRS": ("test_pair.py::test_an_ms_in_another_crs_is_warped_to_its_place",),
    "masked pixels of overviews are averaged in": ("test_traps.py::test_overviews_leave_out_what_is_masked",),
    "some bands are left out": ("test_traps.py::test_every_band_is_sharpened",),
    "RPCs do not follow the crop": ("test_sharpen.py::test_rpc_and_acquisition_tags_are_carried",),
    "no georeference": ("test_pair.py::test_without_georeference_the_proportions_must_agree",),
    "values of an IMD keep their quotes, and its groups tell the order": (
        "test_detect.py::test_imd_gives_satellite_and_true_band_order",
    ),
    "IMAGERY has to be asked for by name": ("test_traps.py::test_the_satellite_of_an_imd_is_known_and_carried",),
    "an image that is already pansharpened": (
        "test_detect.py::test_pansharpened_products_are_refused",
        "test_detect.py::test_pansharpened_by_name_is_refused",
    ),
    "wavelengths and colours in the band tags": (
        "test_writer.py::test_file_says_what_it_is",
        "test_detect.py::test_wavelengths_outrank_the_table",
    ),
    "NBITS and PREDICTOR=2 exclude each other": ("test_traps.py::test_fewer_bits_than_a_byte_type_has",),
    "inputs of 11 bits in 16": ("test_traps.py::test_an_input_of_eleven_bits",),
}


@pytest.fixture
def options(untrained_weights):
    return sharpen_options(pair=FOUR, weights=untrained_weights, device="cpu", precision="fp32", tile=256)


def test_every_trap_has_a_test_that_exists():
    tests: dict[str, set[str]] = {}
    for path in Path(__file__).parent.glob("test_*.py"):
        tree = ast.parse(path.read_text())
        tests[path.name] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for trap, names in TRAPS.items():
        for name in names:
            file, _, function = name.partition("::")
            assert function in tests[file], f"{trap}: no {name}"


def test_a_hole_in_one_band_file_is_a_hole_in_all_bands(make_pair, tmp_path, options, read_all):
    files = make_pair()
    bands = read_all(files.ms)
    names = []
    for i, (row, value) in enumerate(((5, 0), (20, 0), (35, 0), (50, 0))):
        bands[i, row : row + 3, 10:20] = value
        names.append(write_raster(tmp_path / f"b{i}.tif", bands[i : i + 1], GRID @ Affine.scale(4), nodata=0))
    sharpen(files.pan, names, tmp_path / "out.tif", options)
    hole = np.zeros((256, 256), bool)
    for row in (5, 20, 35, 50):
        hole[4 * row : 4 * row + 12, 40:80] = True
    assert np.array_equal((read_all(tmp_path / "out.tif") == 0).all(axis=0), hole)
    assert np.array_equal((read_all(tmp_path / "out.tif") == 0).any(axis=0), hole)


def test_statistics_are_those_of_the_valid_pixels(tmp_path):
    pan, ms = landscape((256, 256), 4, 4)
    valid = np.ones((64, 64), bool)
    valid[10:40, 5:50] = False
    ms[:, ~valid] = 0
    files = (
        write_raster(tmp_path / "pan.tif", pan.astype("float32"), GRID),
        write_raster(tmp_path / "ms.tif", ms.astype("float32"), GRID @ Affine.scale(4), nodata=0),
    )
    with open_pair(files[0], [files[1]], FOUR) as pair:
        statistics = survey(pair.sample_windows(), pair.grid, pair.bands).normalisation
    assert np.allclose(statistics.ms_mean, ms[:, valid].mean(axis=1), rtol=1e-5)
    assert np.allclose(statistics.ms_std, ms[:, valid].std(axis=1), rtol=1e-5)


def test_the_satellite_of_an_imd_is_known_and_carried(make_pair, tmp_path, options):
    files = make_pair()
    Path(files.ms).with_suffix(".IMD").write_text(imd("WV04", "B G R N"))
    with rasterio.open(files.ms) as file:
        assert "IMAGERY" not in file.tag_namespaces()
    sharpen(files.pan, [files.ms], tmp_path / "out.tif", options)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.tags(ns="IMAGERY")["SATELLITEID"] == "WV04"


@pytest.mark.parametrize(("side", "magic"), [(1000, 42), (30_000, 43)])
def test_a_result_that_may_pass_four_gigabytes_is_a_bigtiff(tmp_path, side, magic):
    """By its header, before anything is written: what is compressed may turn out larger than hoped."""
    big = profile(shape=(side, side), dtype="uint16")
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "out.tif", big) as writer:
        writer.write(np.ones((4, 256, 256), "uint16"), Window(0, 0, 256, 256))
        (temporary,) = tmp_path.iterdir()
        with temporary.open("rb") as file:
            assert int.from_bytes(file.read(4)[2:], "little") == magic
        raise KeyboardInterrupt


def test_a_cog_is_written_tile_by_tile_and_copied(tmp_path):
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "out.tif", profile(driver="COG")) as writer:
        writer.write(np.ones((4, 256, 256), "uint8"), Window(0, 0, 256, 256))
        (temporary,) = tmp_path.iterdir()
        with rasterio.open(temporary) as file:
            assert file.driver == "GTiff"
            assert "LAYOUT" not in file.tags(ns="IMAGE_STRUCTURE")
        raise KeyboardInterrupt


def test_reflectances_keep_their_range(tmp_path, options, read_all):
    pan, ms = landscape((256, 256), 4, 4)
    files = (
        write_raster(tmp_path / "pan.tif", (pan / 3000).astype("float32"), GRID),
        write_raster(tmp_path / "ms.tif", (ms / 3000).astype("float32"), GRID @ Affine.scale(4)),
    )
    sharpen(files[0], [files[1]], tmp_path / "out.tif", options)
    out, low = read_all(tmp_path / "out.tif"), ms / 3000
    assert out.dtype == np.float32
    assert np.allclose(out.mean(axis=(1, 2)), low.mean(axis=(1, 2)), rtol=0.02)
    assert 0.8 * low.std() < out.std() < 2 * low.std()


def test_overviews_leave_out_what_is_masked(make_pair, tmp_path, options):
    def hole(pan, ms):
        pan[:], ms[:] = 500, 500
        ms[:, 30:41, 50:71] = 20000

    files = make_pair(shape=(600, 600), edit=hole, nodata=20000)
    sharpen(files.pan, [files.ms], tmp_path / "out.tif", options)
    with rasterio.open(tmp_path / "out.tif", overview_level=0) as file:
        data, mask = file.read(), file.dataset_mask() > 0
    assert file.shape == (300, 300)
    assert not mask.all()
    assert (data[:, mask] == 500).all()


@pytest.mark.parametrize("bands", [1, 3, 8])
def test_every_band_is_sharpened(make_pair, tmp_path, options, read_all, bands):
    files = make_pair(bands=bands, dtype="float32")
    names = ("CA", "B", "G", "Y", "R", "RE", "N1", "N2")[:bands]
    sharpen(files.pan, [files.ms], tmp_path / "out.tif", changed(options, pair=PairOptions("vhr", names)))
    detail = np.diff(read_all(files.pan)[0], axis=0)
    out = read_all(tmp_path / "out.tif")
    assert len(out) == bands
    for band in out:
        assert np.corrcoef(np.diff(band, axis=0).ravel(), detail.ravel())[0, 1] > 0.8


def test_fewer_bits_than_a_byte_type_has(make_pair, tmp_path, options, read_all):
    """GDAL refuses the predictor that is the default here where the user asks for eleven bits."""
    files = make_pair()
    for name, creation in (("plain", {}), ("bits", {"nbits": "11"})):
        sharpen(files.pan, [files.ms], tmp_path / f"{name}.tif", changed(options, creation=creation))
    with rasterio.open(tmp_path / "bits.tif") as file:
        assert file.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "11"
    assert np.array_equal(read_all(tmp_path / "bits.tif"), np.minimum(read_all(tmp_path / "plain.tif"), 2047))


def test_an_input_of_eleven_bits(make_pair, tmp_path, options, read_all):
    plain, packed = make_pair(), make_pair(name="packed", nbits=11)
    for name, files in (("plain", plain), ("packed", packed)):
        sharpen(files.pan, [files.ms], tmp_path / f"{name}.tif", options)
    assert np.array_equal(read_all(tmp_path / "plain.tif"), read_all(tmp_path / "packed.tif"))


@pytest.mark.parametrize(("dtype", "said"), [("uint8", True), ("float32", False), (None, False)])
def test_values_that_the_type_asked_for_does_not_hold_are_said(make_pair, tmp_path, options, caplog, dtype, said):
    files = make_pair()
    sharpen(files.pan, [files.ms], tmp_path / "out.tif", changed(options, dtype=dtype))
    with rasterio.open(files.ms) as ms, rasterio.open(tmp_path / "out.tif") as file:
        assert ms.read().max() > 255
        share = (file.read() == 255).mean()
    assert ("--dtype uint16, the type of the MS, keeps them all" in caplog.text) is said
    if said:
        found = float(caplog.text.split(" % of the values do not fit uint8")[0].split()[-1]) / 100
        assert found == pytest.approx(share, abs=0.02)
