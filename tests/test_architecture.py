"""The rooms of the package and their ranks (docs/architecture.md): who may import whom, read with `ast`."""

import ast
import sys
from pathlib import Path

import pytest

import crossdiff_cli

PACKAGE = Path(crossdiff_cli.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

RANK = {
    "errors": 0,
    "options": 1,
    "geometry": 1,
    "system": 1,
    "sensors": 2,
    "imaging": 2,
    "model": 3,
    "io": 3,
    "estimate": 4,
    "inference": 4,
    "quality": 5,
    "training": 6,
    "report": 6,
    "tasks": 7,
    "batch": 8,
    "api": 8,
    "cli": 9,
    "__init__": 10,
    "__main__": 10,
}
NEVER = {
    "errors": {"torch", "numpy", "rasterio", "click"},
    "options": {"torch", "numpy", "rasterio", "click"},
    "geometry": {"torch", "rasterio", "click"},
    "system": {"torch", "rasterio", "click"},
    "sensors": {"torch", "numpy", "rasterio", "click"},
    "imaging": {"rasterio", "click", "crossdiff_cli.sensors"},
    "model": {"rasterio", "click", "crossdiff_cli.sensors"},
    "io": {"torch", "click"},
    "estimate": {"rasterio", "click"},
    "inference": {"rasterio", "click"},
    "quality": {"rasterio", "click", "crossdiff_cli.model", "crossdiff_cli.inference"},
    "training": {"rasterio", "click", "crossdiff_cli.inference"},
    "report": {"rasterio", "click", "crossdiff_cli.inference"},
    "tasks": {"rasterio", "click"},
    "batch": {"rasterio", "click"},
    "cli": {"rasterio"},
}
"""What a room imports nowhere, not even inside a function."""
AT_THE_TOP = {"cli": {"torch", "rasterio", "numpy"}, "batch": {"torch"}}
"""What a room does not import while it is imported itself: `--help` stays quick."""


def imports(path: Path, *, top: bool = False) -> set[str]:
    """Every module that a file imports, inside functions too unless `top`."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def room_of(module: str) -> str:
    """The room of a module of the package; `__init__` for the package's own face."""
    name = module.split(".")[1] if "." in module else "__init__"
    return name if name in RANK else "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_rooms_of_a_lower_rank_only(path):
    own = room(path)
    for module in imports(path):
        if within(module, "crossdiff_cli") and module not in ("crossdiff_cli", "crossdiff_cli.__version__"):
            other = room_of(module)
            assert other == own or RANK[other] < RANK[own], f"{own} (rank {RANK[own]}) imports {module}"
        for never in NEVER.get(own, set()):
            assert not within(module, never), f"{own} imports {module}"
    for module in imports(path, top=True):
        for never in AT_THE_TOP.get(own, set()):
            assert not within(module, never), f"{own} imports {module} at the top"


def test_few_files_lie_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= 6
    assert {room(path) for path in FILES} <= RANK.keys()


def test_only_io_imports_rasterio_and_only_cli_imports_click():
    def rooms(package: str) -> set[str]:
        return {room(path) for path in FILES if any(within(module, package) for module in imports(path))}

    assert rooms("rasterio") == {"io"}
    assert rooms("click") == {"cli"}


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
        assert path.stem not in sys.stdlib_module_names or path.parent != PACKAGE, path.name
        if path.name == "__init__.py" and path.parent != PACKAGE:
            body = ast.parse(path.read_text()).body
            assert all(isinstance(node, ast.Expr) for node in body), path
