"""The house: who may import whom (read with `ast`), and what stays small."""

import ast
from pathlib import Path

import pytest

import crossdiff_cli

PACKAGE = Path(crossdiff_cli.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

FORBIDDEN = {
    "model": {"crossdiff_cli.scene", "crossdiff_cli.sensors", "crossdiff_cli.mtf", "crossdiff_cli.fuse", "rasterio"},
    "scene": {"torch", "crossdiff_cli.model", "crossdiff_cli.mtf", "crossdiff_cli.fuse", "crossdiff_cli.survey"},
    "quality": {"crossdiff_cli.model", "crossdiff_cli.fuse", "crossdiff_cli.training", "crossdiff_cli.sharpen"},
    "report": {"crossdiff_cli.model", "crossdiff_cli.fuse", "crossdiff_cli.training", "crossdiff_cli.sharpen"},
    "batch": {
        "rasterio",
        "crossdiff_cli.commands",
        "crossdiff_cli.fuse",
        "crossdiff_cli.mtf",
        "crossdiff_cli.quality",
        "crossdiff_cli.report",
        "crossdiff_cli.training",
    },
    "commands": {"crossdiff_cli.model", "crossdiff_cli.mtf", "crossdiff_cli.fuse", "torch", "rasterio", "numpy"},
    "mtf.py": {"crossdiff_cli", "rasterio"},
    "boxes.py": {"crossdiff_cli", "rasterio"},
    "masking.py": {"crossdiff_cli.scene", "crossdiff_cli.model", "crossdiff_cli.mtf", "crossdiff_cli.fuse", "rasterio"},
    "fuse.py": {"crossdiff_cli.scene", "crossdiff_cli.sensors", "rasterio"},
    "sensors.py": {"torch", "numpy", "rasterio"},
    "errors.py": {"torch", "numpy", "rasterio", "crossdiff_cli", "click"},
    "training": {"rasterio"},
    "sharpen.py": {"rasterio", "crossdiff_cli.training", "crossdiff_cli.quality"},
    "pipeline.py": {"rasterio", "crossdiff_cli.training", "crossdiff_cli.quality"},
    "profile.py": {"torch", "rasterio", "crossdiff_cli.model"},
    "degrade.py": {"rasterio", "crossdiff_cli.model", "crossdiff_cli.fuse", "crossdiff_cli.training"},
    "matching.py": {"crossdiff_cli.scene", "crossdiff_cli.model", "crossdiff_cli.fuse", "rasterio"},
    "registration.py": {"crossdiff_cli.scene", "crossdiff_cli.model", "crossdiff_cli.fuse", "rasterio"},
    "survey.py": {"rasterio", "crossdiff_cli.model"},
    "info.py": {"rasterio", "crossdiff_cli.model"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_forbidden_import(path):
    for module in imports(path):
        for forbidden in FORBIDDEN.get(room(path), set()):
            assert module != forbidden and not module.startswith(forbidden + "."), f"{path.name} imports {module}"
        assert module != "crossdiff_cli.cli" or path.name == "__main__.py"


def test_only_the_scene_knows_rasterio():
    known = {room(path) for path in FILES if any(m.split(".")[0] == "rasterio" for m in imports(path))}
    assert known == {"scene"}


def test_no_circles():
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    graph = {name: {m for m in imports(path) if m in names and m != name} for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_files_are_small_and_faces_are_empty():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 350, path.name
        assert path.stem not in {"utils", "common", "helpers"}
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            assert all(isinstance(node, ast.Expr | ast.Assign) for node in body), path
