"""Tests of the sensor table: names, band selection, file orders and gains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossdiff_cli.errors import SensorError
from crossdiff_cli.sensors.table import NOMINAL, SENSORS, canonical_band, find_sensor, nominal_band

PROMISED = (
    "qb ik ge1 wv2 wv3 wv4 lg phr pneo spot6 spot7 gf1 gf2 skysat kompsat3a sv1 triplesat geosat2 vision1 cbers4a "
    "l7 l8 l9 vhr generic"
)


def names(bands):
    return ",".join(band.name for band in bands)


def test_table_covers_every_promised_sensor():
    assert set(PROMISED.split()) == set(SENSORS)


def test_no_name_leads_to_two_sensors():
    owner: dict[str, str] = {}
    for sensor in SENSORS.values():
        for name in (sensor.key, sensor.name, *sensor.aliases):
            folded = "".join(c for c in name.lower() if c.isalnum())
            assert owner.setdefault(folded, sensor.key) == sensor.key


@pytest.mark.parametrize("sensor", SENSORS.values(), ids=lambda sensor: sensor.key)
def test_every_row_is_physically_plausible(sensor):
    assert sensor.pan_nm[0] < sensor.pan_nm[1] <= 1100
    assert 0.05 < sensor.pan_nyquist_gain < 0.3
    assert 1 <= sensor.ratio <= 6
    assert len({band.name for band in sensor.bands}) == len(sensor.bands)
    for band in sensor.bands:
        assert band.name in NOMINAL
        assert abs(band.center_nm - NOMINAL[band.name].center_nm) < max(50, 0.02 * band.center_nm)
        assert 0 < band.width_nm < 0.3 * band.center_nm
        assert 0.2 <= band.nyquist_gain <= 0.4
    if not sensor.mtf_published:
        assert {band.nyquist_gain for band in sensor.bands} == {0.30}
        assert sensor.pan_nyquist_gain == 0.15
    counts = [len(order) for order in sensor.layouts]
    assert len(set(counts)) == len(counts)
    for order in sensor.layouts:
        assert names(sensor.layout(len(order))) == ",".join(order)
    for _, band_name in sensor.codes:
        assert band_name in {band.name for band in sensor.bands}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("wv3", "wv3"),
        ("WorldView-3", "wv3"),
        ("worldview 3", "wv3"),
        ("WV02", "wv2"),
        ("QB02", "qb"),
        ("LG04", "lg"),
        ("PHR 1A", "phr"),
        ("Pleiades Neo 4", "pneo"),
        ("SPOT 7", "spot7"),
        ("LANDSAT_8", "l8"),
        ("le07", "l7"),
        ("Deimos-2", "geosat2"),
        ("Beijing_2", "triplesat"),
    ],
)
def test_find_sensor_takes_any_spelling(name, key):
    assert find_sensor(name).key == key


def test_unknown_sensor_names_the_close_ones_and_the_way_out():
    with pytest.raises(SensorError, match=r"'wordview-3'.*wv3.*--sensor generic"):
        find_sensor("wordview-3")
    with pytest.raises(SensorError, match=r"known are qb, ik"):
        find_sensor("zzzzzz")


@pytest.mark.parametrize(
    ("key", "wanted", "got"),
    [
        ("wv2", ["blue", "GREEN", "r", "nir"], "B,G,R,N1"),
        ("wv3", ["N2", "nir", "coastal blue", "red-edge", "YELLOW"], "N2,N1,CA,RE,Y"),
        ("ge1", ["n", "Red", "grn", "BLU"], "NIR,R,G,B"),
        ("ge1", ["N1"], "NIR"),
        ("pneo", ["coastal", "RedEdge"], "DB,RE"),
        ("lg", ["RE", "RE2"], "RE1,RE2"),
        ("l8", ["B4", "b3", "B2", "b5"], "R,G,B,NIR"),
        ("l7", ["B4", "b3", "B5", "B7"], "NIR,R,SWIR1,SWIR2"),
        ("cbers4a", ["band3", "BAND1"], "R,B"),
    ],
)
def test_select_takes_words_codes_and_kin(key, wanted, got):
    assert names(SENSORS[key].select(wanted)) == got


def test_select_keeps_the_sensors_own_wavelengths_and_gains():
    red, nir2 = SENSORS["wv2"].select(["R", "N2"])
    assert (red.center_nm, red.width_nm, red.nyquist_gain) == (660, 60, 0.35)
    assert nir2.nyquist_gain == 0.27


def test_select_lends_a_standard_band_that_the_sensor_lacks():
    (swir,) = SENSORS["qb"].select(["swir1"])
    assert swir == nominal_band("SWIR1")
    assert swir.nyquist_gain == 0.30


def test_select_refuses_nonsense_and_repetition():
    with pytest.raises(SensorError, match=r"no band 'purple'.*B, G, R, NIR"):
        SENSORS["qb"].select(["B", "purple"])
    with pytest.raises(SensorError, match="named twice"):
        SENSORS["wv2"].select(["NIR", "N1"])


@pytest.mark.parametrize(
    ("key", "count", "order"),
    [
        ("wv2", 8, "CA,B,G,Y,R,RE,N1,N2"),
        ("wv3", 4, "B,G,R,N1"),
        ("lg", 8, "CA,B,G,Y,R,RE1,RE2,NIR"),
        ("phr", 4, "R,G,B,NIR"),
        ("spot6", 4, "R,G,B,NIR"),
        ("pneo", 6, "R,G,B,NIR,RE,DB"),
        ("geosat2", 4, "NIR,R,G,B"),
        ("gf2", 4, "B,G,R,NIR"),
        ("cbers4a", 3, "R,G,B"),
        ("l8", 7, "CA,B,G,R,NIR,SWIR1,SWIR2"),
        ("l7", 6, "B,G,R,NIR,SWIR1,SWIR2"),
    ],
)
def test_layout_is_the_delivered_file_order(key, count, order):
    assert names(SENSORS[key].layout(count)) == order


def test_layout_of_another_count_says_which_exist():
    with pytest.raises(
        SensorError, match="WorldView-2 is delivered with .*found 5, expected 8, 4 or 3.; name them with"
    ):
        SENSORS["wv2"].layout(5)
    with pytest.raises(SensorError, match="--bands"):
        SENSORS["generic"].layout(4)


@pytest.mark.parametrize(
    ("key", "gains", "pan"),
    [
        ("qb", (0.34, 0.32, 0.30, 0.22), 0.15),
        ("ik", (0.26, 0.28, 0.29, 0.28), 0.17),
        ("ge1", (0.23,) * 4, 0.16),
        ("wv4", (0.23,) * 4, 0.16),
        ("wv2", (0.35,) * 7 + (0.27,), 0.11),
        ("wv3", (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315), 0.14),
    ],
)
def test_published_gains(key, gains, pan):
    sensor = SENSORS[key]
    assert sensor.mtf_published
    assert tuple(band.nyquist_gain for band in sensor.bands) == gains
    assert sensor.pan_nyquist_gain == pan


def test_pan_that_does_not_see_the_near_infrared():
    for key in ("l8", "l9", "triplesat", "vision1"):
        (nir,) = SENSORS[key].select(["NIR"])
        assert SENSORS[key].pan_nm[1] < nir.center_nm - nir.width_nm / 2


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Blue", "B"),
        ("near-infrared", "NIR"),
        ("Coastal Aerosol", "CA"),
        ("re1", "RE1"),
        ("Cirrus", "CIRRUS"),
        ("x9", None),
    ],
)
def test_canonical_band(text, name):
    assert canonical_band(text) == name


def test_nominal_band_of_no_band():
    with pytest.raises(SensorError, match="unknown band 'purple'"):
        nominal_band("purple")


def test_the_table_imports_without_numeric_libraries():
    code = "import sys, crossdiff_cli.sensors.table; print({'numpy', 'torch', 'rasterio'} & set(sys.modules))"
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == "set()"


@pytest.mark.skipif("CROSSDIFF_DATA" not in os.environ, reason="CROSSDIFF_DATA is not set")
def test_the_table_agrees_with_the_real_pairs():
    pairs = json.loads((Path(os.environ["CROSSDIFF_DATA"]) / "index.json").read_text())
    assert pairs
    for pair in pairs:
        sensor = find_sensor(pair["sensor"])
        assert sensor.ratio == pair["ratio"]
        assert list(sensor.pan_nm) == pair["pan_nm"]
        bands = sensor.select(pair["bands"])
        assert [band.center_nm for band in bands] == pytest.approx(pair["center_nm"], abs=3)
        assert [band.width_nm for band in bands] == pytest.approx(pair["width_nm"], abs=3)
