"""The benchmark of fitting: what it trains on and what it judges lie apart; its simulated sensor is as it says."""

import sys
from pathlib import Path

import numpy as np
import rasterio

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import adapting
from quality_methods import Case

from crossdiff_cli.sensors.definitions import named_sensor
from crossdiff_cli.sensors.table import find_sensor


def test_the_halves_lie_side_by_side_and_share_no_pixel(make_pair, tmp_path, read_all):
    files = make_pair(shape=(128, 264))
    case = Case("s", "vhr", ("B", "G", "R", "NIR"), "full", files.pan, files.ms, None)
    left = adapting.half(case, tmp_path / "left", right=False)
    right = adapting.half(case, tmp_path / "right", right=True)
    for name in ("pan", "ms"):
        parts = [read_all(getattr(part, name)) for part in (left, right)]
        assert np.array_equal(np.concatenate(parts, axis=2), read_all(getattr(case, name)))
    with rasterio.open(left.pan) as a, rasterio.open(right.pan) as b, rasterio.open(right.ms) as c:
        assert a.bounds.right == b.bounds.left == c.bounds.left


def test_the_made_up_sensor_is_none_of_the_table_and_close_to_the_true_one(make_pair, tmp_path):
    files = make_pair(shape=(128, 128))
    case = Case("s", "vhr", ("B", "G", "R", "NIR"), "full", files.pan, files.ms, None)
    sensor = named_sensor(adapting.made_up(case, tmp_path))
    true = find_sensor("vhr")
    assert sensor.key == "simulated"
    assert [b.name for b in sensor.bands] == ["B", "G", "R", "NIR"]
    assert sensor.bands[0].center_nm == true.select(["B"])[0].center_nm + 15
    assert sensor.pan_nm == true.pan_nm


def test_the_table_has_every_figure_before_and_after():
    row = {
        "trial": "t",
        "scene": "s",
        "scale": "full",
        "seconds": 3.2,
        "before": {"hqnr": 0.9},
        "after": {"hqnr": 0.91},
    }
    assert adapting.table([row]).splitlines()[-1] == "| t | s | full | 3 | hqnr 0.9000 → 0.9100 |"
