import pytest
from rasterio.transform import Affine

from crossdiff_cli.geometry.grid import map_grids, same_bounds
from crossdiff_cli.geometry.window import Window

PAN = Affine(0.5, 0, 1000, 0, -0.5, 2000)


@pytest.mark.parametrize("ratio", [2, 3, 4, 6, 3.9])
@pytest.mark.parametrize("offset", [(0, 0), (1.25, -2.5), (-7, 3)])
def test_ratio_and_offset_come_from_the_geotransforms(ratio, offset):
    ms = PAN @ Affine.translation(offset[1], offset[0]) @ Affine.scale(ratio)
    grid = map_grids(PAN, ms, (100, 100))
    assert grid is not None
    assert grid.ratio == pytest.approx((ratio, ratio))
    assert grid.offset == pytest.approx(offset, abs=1e-4)


def test_a_ratio_that_is_not_quite_whole_is_kept_where_it_adds_up():
    """4.00005 taken for 4 puts the far end of 10,000 pixels half a PAN pixel off; 4 + 1e-9 is 4."""
    grid = map_grids(PAN, PAN @ Affine.scale(4.00005), (10_000, 10))
    assert grid.ratio[0] == pytest.approx(4.00005, abs=1e-8)
    assert map_grids(PAN, PAN @ Affine.scale(4 + 1e-9), (10_000, 10_000)).ratio == (4, 4)


def test_rotated_or_mirrored_grids_do_not_relate():
    assert map_grids(PAN, PAN @ Affine.rotation(1) @ Affine.scale(4), (500, 500)) is None
    assert map_grids(PAN, PAN @ Affine.scale(4, -4), (500, 500)) is None


def test_equally_rotated_grids_relate():
    turned = PAN @ Affine.rotation(20)
    grid = map_grids(turned, turned @ Affine.translation(2, 3) @ Affine.scale(4), (500, 500))
    assert grid is not None
    assert grid.offset == pytest.approx((3, 2), abs=1e-4)


def test_footprint_holds_the_pan_pixels_whose_centres_lie_on_the_ms():
    grid = map_grids(PAN, PAN @ Affine.translation(1.25, -2.5) @ Affine.scale(4), (10, 10))
    assert grid is not None
    assert grid.footprint((100, 30), (10, 10)) == Window(0, 1, 37, 29)
    assert grid.footprint((100, 100), (10, 10)) == Window(0, 1, 37, 40)


def test_no_common_footprint():
    far = map_grids(PAN, PAN @ Affine.translation(500, 0) @ Affine.scale(4), (10, 10))
    assert far is not None
    assert far.footprint((100, 100), (10, 10)) is None


def test_local_offset_puts_the_ms_window_in_its_place():
    grid = map_grids(PAN, PAN @ Affine.translation(1.25, -2.5) @ Affine.scale(4), (100, 100))
    assert grid is not None
    window = Window(40, 64, 32, 24)
    ms = grid.ms_window(window, 2)
    offset = grid.local_offset(window, ms)
    assert offset == pytest.approx((-2.5 + 4 * ms.row - 40, 1.25 + 4 * ms.col - 64))
    assert offset[0] <= -8
    assert offset[1] + 4 * ms.width >= 24 + 8


def test_pair_without_georeference_covers_the_same_ground():
    grid = same_bounds((1020, 1024), (255, 256))
    assert grid.ratio == (4, 4)
    assert grid.footprint((1020, 1024), (255, 256)) == Window(0, 0, 1020, 1024)
