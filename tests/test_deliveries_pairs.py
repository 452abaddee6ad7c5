"""The pairs of a folder to train on: deliveries by their metadata, the rest by names."""

from delivery_files import cbers, landsat, maxar, maxar_image, pixels

from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.pairing import find_pairs


def test_pairs_of_a_folder_are_deliveries_and_names(make_pair, tmp_path):
    maxar(tmp_path / "order")
    landsat(tmp_path / "landsat")
    cbers(tmp_path / "cbers")
    make_pair(shape=(64, 64), name="scene_")
    pairs, remarks = find_pairs(tmp_path)
    assert len(pairs) == 4
    assert not [remark for remark in remarks if "order" in remark]
    sensors = set()
    for found in pairs:
        with open_pair(str(found.pan), [str(found.ms)]) as pair:
            sensors.add(pair.sensor.key)
    assert sensors == {"wv4", "l9", "cbers4a", "vhr"}


def test_a_damaged_document_costs_only_its_own_pair(tmp_path):
    maxar(tmp_path / "order")
    cbers(tmp_path / "cbers")
    for path in (tmp_path / "order").rglob("*_MUL/*.IMD"):
        path.write_bytes(b"x" * (9 << 20))
    pairs, _ = find_pairs(tmp_path)
    assert [found.pan.name for found in pairs] == ["CBERS_4A_WPM_20200801_209_115_L4_BAND0.xml"]


def test_a_second_view_of_the_same_day_is_not_the_partner(tmp_path):
    pan, ms = pixels()
    for second, catalogue in ((0, "A"), (40, "B")):
        facts = {
            "time": f"2018-01-01T10:00:{second:02d}.5Z",
            "catalogue": catalogue,
            "stamp": f"18JAN011000{second:02d}",
        }
        maxar_image(tmp_path / f"{catalogue}_PAN", pan, 1, "P", letter="P", band_id="P", **facts)
        maxar_image(tmp_path / f"{catalogue}_MUL", ms, 4, "B G R N", letter="M", band_id="Multi", **facts)
    pairs, _ = find_pairs(tmp_path)
    assert sorted((found.pan.parent.name, found.ms.parent.name) for found in pairs) == [
        ("A_PAN", "A_MUL"),
        ("B_PAN", "B_MUL"),
    ]
