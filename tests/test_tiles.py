import numpy as np
import pytest

from crossdiff_cli.geometry.window import Window, spread, tiles


def test_cores_cover_the_extent_exactly_once():
    extent = Window(3, 5, 700, 1001)
    count = np.zeros((710, 1010), int)
    for tile in tiles(extent, 256, halo=37, stride=8):
        count[tile.core.row : tile.core.stop[0], tile.core.col : tile.core.stop[1]] += 1
    assert count[3:703, 5:1006].min() == count.max() == 1
    assert count.sum() == 700 * 1001


def test_windows_hold_the_halo_and_lie_on_the_stride():
    for tile in tiles(Window(3, 5, 300, 301), 256, halo=37, stride=8):
        assert tile.window.row % 8 == tile.window.col % 8 == tile.window.height % 8 == tile.window.width % 8 == 0
        assert tile.window.row <= tile.core.row - 37
        assert tile.window.stop[1] >= tile.core.stop[1] + 37
        rows, cols = tile.core.within(tile.window)
        assert rows.start == tile.core.row - tile.window.row
        assert cols.stop - cols.start == tile.core.width


def test_spread_is_bounded_and_inside():
    extent = Window(10, 20, 5000, 9000)
    windows = spread(extent, 384, 36)
    assert 25 <= len(windows) <= 36
    assert all(w.intersection(extent) == w for w in windows)
    assert len({(w.row, w.col) for w in windows}) == len(windows)


def test_spread_of_a_small_extent_is_all_of_it():
    windows = spread(Window(0, 0, 500, 700), 384, 36)
    assert sum(w.height * w.width for w in windows) == 500 * 700


def test_intersection_and_empty_window():
    assert Window(0, 0, 4, 4).intersection(Window(4, 0, 2, 2)) is None
    assert Window(0, 0, 4, 4).intersection(Window(2, 3, 9, 9)) == Window(2, 3, 2, 1)
    with pytest.raises(ValueError, match="at least one pixel"):
        Window(0, 0, 0, 3)
