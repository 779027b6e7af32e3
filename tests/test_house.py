"""The rules of the house: who may import whom, how long a file may be, what a module exports.

The floors are those of ``docs/architecture.md``. A module imports lower floors and its own room;
two rooms on one floor do not know each other. The doors, on the top floor, are one room.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import ROOT

FLOORS = {
    "compiled": 0,
    "errors": 0,
    "yamux": 1,
    "heads": 1,
    "resume": 1,
    "mux": 2,
    "carrier": 2,
    "net": 2,
    "tunnel": 3,
    "wsclient": 3,
    "auth": 4,
    "admin": 4,
    "metrics": 4,
    "dashboard": 4,
    "pad": 4,
    "yserver": 4,
    "__main__": 5,
    "admin_port": 5,
    "agent_tap": 5,
    "arguments": 5,
    "bench": 5,
    "check": 5,
    "cli": 5,
    "config": 5,
    "demo": 5,
    "doctor": 5,
    "flags": 5,
    "foreground": 5,
    "hangup": 5,
    "health_check": 5,
    "health_socket": 5,
    "log_files": 5,
    "log_writer": 5,
    "logs": 5,
    "options": 5,
    "paths": 5,
    "redacting": 5,
    "steady": 5,
    "relay_tap": 5,
    "status": 5,
    "status_api": 5,
    "status_lines": 5,
    "stopping": 5,
    "terminal": 5,
    "token_commands": 5,
    "values": 5,
}
"""Which floor a room is on: the first name after ``seance``."""

PURE, DOORS = 1, 5

LONGEST_FILE_LINES = 600

AUTOBAHN_ROOMS = {"carrier", "yserver"}
"""The carrier speaks WebSocket between us; the demo's document server speaks it to stock clients."""

NOT_PURE = {
    "asyncio",
    "datetime",
    "http.client",
    "logging",
    "os",
    "random",
    "secrets",
    "select",
    "selectors",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib.request",
    "uuid",
}
"""The sockets, clocks, logs and sources of randomness of the standard library."""

PACKAGE = ROOT / "seance"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if "node_modules" not in path.parts]


SOURCES = {module_name(path): path for path in python_files(PACKAGE)}
ROOMS = {name: [*name.split("."), ""][1] for name in SOURCES}


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; ``from a import b`` counts as ``a.b`` too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported_by(name: str) -> set[str]:
    """The rooms of our own that a module imports."""
    found = {
        imported.split(".")[1] for imported in imports_of(SOURCES[name]) if imported.startswith("seance.")
    }
    return found & set(ROOMS.values())


def test_there_is_something_to_look_at() -> None:
    assert {"seance", "seance.errors", "seance.cli"} <= set(SOURCES)


def test_every_room_has_a_floor() -> None:
    assert {room for room in ROOMS.values() if room} <= set(FLOORS)


def test_every_floor_has_its_room() -> None:
    assert set(FLOORS) <= set(ROOMS.values())


def test_a_module_imports_only_lower_floors_and_its_own_room() -> None:
    wrong = [
        f"{name} (floor {floor}) imports seance.{other}"
        for name, room in ROOMS.items()
        for floor in [FLOORS[room] if room else DOORS + 1]
        for other in rooms_imported_by(name)
        if other != room and not FLOORS[other] == floor == DOORS and FLOORS[other] >= floor
    ]
    assert wrong == []


def test_the_pure_floors_need_only_the_standard_library_and_h11() -> None:
    allowed = set(sys.stdlib_module_names) - NOT_PURE | {"h11", "seance"}
    wrong = [
        f"{name} imports {imported}"
        for name, room in ROOMS.items()
        if FLOORS.get(room, 0) <= PURE
        for imported in imports_of(SOURCES[name])
        if imported.split(".")[0] not in allowed or imported in NOT_PURE
    ]
    assert wrong == []


def test_autobahn_is_known_to_its_rooms_alone() -> None:
    wrong = [
        name
        for name, room in ROOMS.items()
        if room not in AUTOBAHN_ROOMS
        and any(imported.split(".")[0] in ("autobahn", "txaio") for imported in imports_of(SOURCES[name]))
    ]
    assert wrong == []


def test_no_module_imports_the_reactor_while_it_is_imported() -> None:
    wrong = [f"{name}, line {line}" for name in SOURCES for line in reactor_imports(name)]
    assert wrong == []


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def reactor_imports(name: str) -> Iterator[int]:
    """The lines of a module that import the reactor outside of any function."""
    tree = ast.parse(SOURCES[name].read_text("utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, FUNCTIONS) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet" and id(node) not in inside:
            yield from (node.lineno for alias in node.names if alias.name == "reactor")


def test_no_file_is_longer_than_the_limit() -> None:
    files = [*SOURCES.values(), *python_files(ROOT / "tests")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE_LINES} == {}


def public_modules() -> list[str]:
    private = [name for name in SOURCES if any(part.startswith("_") for part in name.split(".")[1:])]
    only_a_docstring = [name for name, path in SOURCES.items() if is_only_a_docstring(path)]
    return [name for name in SOURCES if name not in (*private, *only_a_docstring)]


def is_only_a_docstring(path: Path) -> bool:
    """Whether a file defines nothing but dunders: a package whose ``__init__`` is its description."""
    body = ast.parse(path.read_text("utf-8")).body
    names = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    is_dunder = all(isinstance(name, ast.Name) and name.id.startswith("__") for name in names)
    return is_dunder and all(isinstance(node, ast.Expr | ast.Assign) for node in body)


def test_a_public_module_says_what_it_exports_and_has_it() -> None:
    wrong = []
    for name in public_modules():
        module = importlib.import_module(name)
        exported = getattr(module, "__all__", [])
        missing = [one for one in exported if not hasattr(module, one)]
        if not module.__doc__ or not exported or missing or len(set(exported)) != len(exported):
            wrong.append(f"{name}: docstring {bool(module.__doc__)}, __all__ {exported}, missing {missing}")
    assert wrong == []


@pytest.mark.parametrize("folder", ["twisted", "twisted/plugins"])
def test_the_plugin_folder_does_not_hide_twisted(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()
