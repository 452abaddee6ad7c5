"""Sensors of the user's own: read from TOML, defined by options, kept, found again, and what is refused."""

import tomllib

import pytest
from click.testing import CliRunner

from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import OutputError, SensorError
from crossdiff_cli.sensors.definitions import define, file_key, keep, named_sensor, own_sensors, read_definition
from crossdiff_cli.sensors.table import SENSORS, Band
from crossdiff_cli.system.weight_files import adapted_head_path

TOML = """
name = "My Satellite"
ratio = 3
pan_nm = [480, 820]
pan_nyquist_gain = 0.12

[[bands]]
name = "red"
center_nm = 655
width_nm = 62.5
nyquist_gain = 0.27

[[bands]]
name = "NIR"

[[bands]]
name = "ice"
center_nm = 1030
width_nm = 20
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSDIFF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_file_says_what_a_sensor_is(tmp_path):
    path = tmp_path / "MySat.toml"
    path.write_text(TOML)
    sensor = named_sensor(str(path))
    assert (sensor.key, sensor.name, sensor.ratio, sensor.pan_nm) == ("mysat", "My Satellite", 3.0, (480.0, 820.0))
    assert sensor.pan_nyquist_gain == 0.12
    assert sensor.bands[0] == Band("R", 655.0, 62.5, 0.27)
    assert sensor.bands[1] == Band("NIR", 835.0, 130.0, 0.30)
    assert sensor.bands[2] == Band("ice", 1030.0, 20.0, 0.30)
    assert sensor.layout(3) == sensor.bands


def test_what_is_kept_is_found_by_its_key_in_any_case(home):
    sensor = define("Foo-2", ["B", "G", "R"], [(470, 60), (550, 70), (640, 55)], [0.25], (430, 760), 0.1)
    path = keep(sensor)
    assert path == home / "sensors" / "foo-2.toml"
    assert tomllib.loads(path.read_text())["bands"][1] == {
        "name": "G", "center_nm": 550.0, "width_nm": 70.0, "nyquist_gain": 0.25,
    }  # fmt: skip
    assert named_sensor("FOO-2") == sensor
    assert own_sensors() == [sensor]
    assert adapted_head_path(file_key("Foo-2")) == home / "heads" / "foo-2.safetensors"
    listed = CliRunner().invoke(main, ["sensors"]).output
    assert "foo-2" in listed.splitlines()[-1]
    assert "B,G,R" in listed.splitlines()[-1]


def test_another_definition_is_not_replaced_silently(home):
    first, other = define("foo", ["B", "G"]), define("foo", ["G", "B"])
    path = keep(first)
    assert keep(first) == path
    with pytest.raises(OutputError, match="foo.toml: it defines 'foo' otherwise; --force"):
        keep(other)
    assert named_sensor("foo") == first
    keep(other, replace=True)
    assert named_sensor("foo") == other


def test_the_table_comes_first(home):
    assert named_sensor("WorldView-3") is SENSORS["wv3"]
    with pytest.raises(SensorError, match="'wv3' belongs to WorldView-3; give your sensor another name"):
        keep(define("wv3", ["B", "G"]))
    with pytest.raises(SensorError, match="unknown sensor 'foo'"):
        named_sensor("foo")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ratio = ", "is not a TOML file"),
        ("ratio = 4", r"defines no bands; write \[\[bands\]\]"),
        ("bands = 3", "defines no bands"),
        ("[[bands]]\ncenter_nm = 3", "a band has no name"),
        ("[[bands]]\nname = 'foo'", "'foo' is not a usual one; give its center_nm and width_nm"),
        (
            "[[bands]]\nname = 'B'\ncenter_nm = '480'",
            "center_nm is out of range .*found '480', expected a number from 100 to 30000",
        ),
        ("[[bands]]\nname = 'B'\ncenter_nm = nan", "center_nm is out of range .*found nan"),
        (
            "[[bands]]\nname = 'B'\nnyquist_gain = 1.2",
            "nyquist_gain is out of range .*found 1.2, expected a number from 0.01 to 0.99",
        ),
        ("[[bands]]\nname = 'B'\nmtf = 0.3", "unknown entries .*found mtf, expected center_nm"),
        ("[[bands]]\nname = 'B'\n[[bands]]\nname = 'blue'", "names a band twice .*found B,B"),
        ("pan_nm = [800, 450]\n[[bands]]\nname = 'B'", "pan_nm does not rise .*found 800 to 450"),
        ("pan_nm = 800\n[[bands]]\nname = 'B'", r"found 800, expected \[low, high\]"),
        ("ratio = true\n[[bands]]\nname = 'B'", "ratio is out of range .*found True"),
        ("key = '../x'\n[[bands]]\nname = 'B'", "the key may have .*found '../x'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, words):
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(SensorError, match=words):
        read_definition(path)


def test_a_missing_a_binary_and_a_huge_file(tmp_path):
    with pytest.raises(SensorError, match="none.toml: the sensor definition cannot be read"):
        named_sensor(str(tmp_path / "none.toml"))
    path = tmp_path / "s.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SensorError, match="is not a TOML file"):
        read_definition(path)
    path.write_text("#" * 70000)
    with pytest.raises(SensorError, match="at most 65536 bytes"):
        read_definition(path)


def test_options_that_do_not_fit_each_other():
    with pytest.raises(SensorError, match=r"--wavelengths .*\(B,G\) \(found 1, expected 2\)"):
        define("foo", ["B", "G"], [(480, 60)])
    with pytest.raises(SensorError, match="--mtf .*found 3, expected 2"):
        define("foo", ["B", "G"], gains=[0.3, 0.3, 0.3])
