"""Which scenes a batch has: tables, JSON, folders of pairs, shards; and what is refused before anything runs."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from crossdiff_cli.batch.manifest import check_outputs, read_manifest, scenes_of_pairs
from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import ManifestError


def batch(*arguments):
    return CliRunner().invoke(main, ["batch", *map(str, arguments)])


def listed(text: str, tmp_path: Path, name: str = "m") -> list[dict]:
    """The scenes that the command understands."""
    (tmp_path / name).write_text(text)
    done = batch(tmp_path / name, "-o", tmp_path / "out", "--dry-run")
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_table_lines_and_list_say_the_same(tmp_path):
    wanted = [
        {"name": "a", "pan": f"{tmp_path}/a_pan.tif", "ms": [f"{tmp_path}/a_ms.tif"], "output": "a.tif"},
        {
            "name": "b c",
            "pan": "/far/b.tif",
            "ms": ["s3://bucket/b1.tif", f"{tmp_path}/b.tif,band=2"],
            "sensor": "wv2",
            "bands": ["B", "G"],
            "output": "2024/b.tif",
        },
    ]
    table = (
        "\ufeffPAN, ms ,name,sensor,bands,output,clouds\r\n"
        "a_pan.tif,a_ms.tif\r\n"
        "\r\n"
        '/far/b.tif,"s3://bucket/b1.tif; b.tif,band=2",b c,wv2,B;G,2024/b.tif,3\r\n'
    )
    assert listed(table, tmp_path) == wanted
    items = [
        {"files": {"pan": "a_pan.tif", "ms": "a_ms.tif", "reference": "x"}, "split": "train", "note": 3},
        {**wanted[1], "bands": "B,G", "ms": "s3://bucket/b1.tif;b.tif,band=2"},
    ]
    assert listed(json.dumps(items, indent=1), tmp_path) == wanted
    assert listed("\n\n".join(map(json.dumps, items)), tmp_path) == wanted
    assert listed("".join(json.dumps(item) + "\n" for item in wanted), tmp_path) == wanted


def test_pairs_of_a_folder(tmp_path):
    for name in ("in/a_pan.tif", "in/a_ms.tif", "in/b/PAN.tif", "in/b/ms.tif", "in/c_pan.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    done = batch("--pair-dir", tmp_path / "in", "-o", tmp_path / "out", "--dry-run")
    scenes = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(s["name"], s["output"]) for s in scenes} == {("a", "a.tif"), ("b", "b.tif")}
    assert "c_pan.tif: 1 PAN and 0 MS" in done.stderr
    assert all(Path(s["pan"]).is_file() and Path(s["ms"][0]).is_file() for s in scenes)


def test_shards_are_every_nth_scene(tmp_path):
    table = "pan,ms,name\n" + "".join(f"p.tif,m.tif,{k}\n" for k in range(1, 8))
    (tmp_path / "m.csv").write_text(table)
    shards = []
    for i in (1, 2, 3):
        done = batch(tmp_path / "m.csv", "-o", tmp_path / "out", "--dry-run", "--shard", f"{i}/3")
        shards.append([json.loads(line)["name"] for line in done.stdout.splitlines()])
    assert shards == [["1", "4", "7"], ["2", "5"], ["3", "6"]]
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0", "-1/3"):
        assert batch(tmp_path / "m.csv", "-o", tmp_path / "out", "--shard", wrong).exit_code == 2


def test_a_delivery_stands_for_pan_and_ms(tmp_path):
    (tmp_path / "m.csv").write_text("delivery,name\nD1,one\nD2/x.TIL,\n")
    done = batch(tmp_path / "m.csv", "-o", tmp_path / "out", "--dry-run")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["delivery"] for line in lines] == [str(tmp_path / "D1"), str(tmp_path / "D2" / "x.TIL")]
    assert not {"pan", "ms"} & lines[0].keys()
    (tmp_path / "again.jsonl").write_text(done.stdout)
    assert batch(tmp_path / "again.jsonl", "-o", tmp_path / "out", "--dry-run").stdout == done.stdout


MALFORMED = {
    "": "lists no scene|first line must name",
    "pan,ms\n": "lists no scene",
    "PAN;MS\na;b\n": "first line must name the columns",
    "a_pan.tif,a_ms.tif\n": "first line must name the columns",
    "pan,ms,ms\na,b,c\n": "two columns have the same name",
    "pan,ms\na,b,c,d\n": r"line 2: .*found 4, expected 2",
    "pan,ms\na,b\nc,\n": "line 3: it needs one pan and at least one ms",
    "pan,ms\na;b,c\n": "line 2: it needs one pan",
    "pan,ms,delivery\na,b,c\n": "a delivery stands for both pan and ms",
    'pan,ms\n"a,b\n': "it is not CSV",
    "pan,ms,name\na,b,../c\n": "cannot be a file name",
    "pan,ms,name\na,b,..\n": "cannot be a file name",
    "pan,ms,output\na,b,../c.tif\n": "does not lie below the result folder",
    "pan,ms,output\na,b,/c.tif\n": "does not lie below the result folder",
    "pan,ms,name\na,b,x\nc,d,y\ne,f,x\n": r"x\.tif: scenes 1 \(.*/a\) and 3 \(.*/e\) would both",
    "pan,ms,output\na,b,q.tif\nout/q.tif,c,r.tif\n": r"q\.tif: scene .* reads it, and a result would overwrite it",
    "pan,ms,output\na,b,q.tif\nc/../out/q.tif,c,r.tif\n": r"q\.tif: scene .* reads it, and a result would overwrite it",
    "[": "begins like a JSON list",
    "[1]": "scene 1: it is not a JSON object",
    "[" * 100_000: "begins like a JSON list",
    '[{"pan": 1, "ms": "m"}]': r"scene 1: pan is .*found 1",
    '[{"pan": "p", "ms": ["m", 2]}]': "scene 1: ms is",
    '[{"pan": "p", "ms": "m", "sensor": []}]': r"scene 1: sensor is .*found \[\]",
    '[{"files": "p"}]': "`files` is not a JSON object",
    '{"pan": "p", "ms": "m"}\n{"pan": "p"}\n': "line 2: it needs one pan",
    '{"pan": "p", "ms": "m"}\n["p", "m"]\n': "line 2: it is not a JSON object",
    '{\n"pan": "p"}\n': "line 1: it is not a JSON object",
    "\udcff": "the manifest cannot be read",
}


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: repr(text[:30]))
def test_malformed_list_is_a_usage_error(tmp_path, text):
    manifest = tmp_path / "list"
    manifest.write_bytes(text.encode(errors="surrogateescape"))
    folder = tmp_path / "out"
    with pytest.raises(ManifestError, match=MALFORMED[text]):
        check_outputs(read_manifest(manifest, folder))
    done = batch(manifest, "-o", folder)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert not folder.exists()


def test_folders_without_a_batch_in_them(tmp_path):
    with pytest.raises(ManifestError, match="the manifest cannot be read"):
        read_manifest(tmp_path / "none.csv", tmp_path)
    with pytest.raises(ManifestError, match="is a folder, not a manifest; --pair-dir"):
        read_manifest(tmp_path, tmp_path)
    with pytest.raises(ManifestError, match="holds no PAN and MS"):
        scenes_of_pairs(tmp_path, tmp_path)
    with pytest.raises(ManifestError, match="it is not a folder"):
        scenes_of_pairs(tmp_path / "none", tmp_path)


def test_wrong_usage(tmp_path):
    (tmp_path / "m.csv").write_text("pan,ms\na,b\n")
    out = ("-o", tmp_path / "out")
    for arguments, text in (
        (out, "either a MANIFEST or a folder"),
        ((tmp_path / "m.csv", "--pair-dir", tmp_path, *out), "either a MANIFEST or a folder"),
        ((tmp_path / "m.csv",), "--output"),
        ((tmp_path / "m.csv", *out, "--overwrite", "--skip-existing"), "exclude each other"),
        ((tmp_path / "m.csv", *out, "--scheduler", "tcp://h:1", "--jobs", 2), "not for --scheduler"),
        ((tmp_path / "m.csv", *out, "--scheduler", "h:1"), "tcp://HOST:PORT"),
        ((tmp_path / "m.csv", *out, "--bidx", "x"), "list of numbers"),
        ((tmp_path / "m.csv", *out, "--timeout", "0"), "--timeout"),
    ):
        done = batch(*arguments)
        assert done.exit_code == 2, arguments
        assert text in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()
