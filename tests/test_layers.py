"""The rules of the layout: which package may import which, file length, exports, and the plugin folder.

The layers are those of docs/architecture.md. A module imports lower layers and its own package; packages on
one layer do not import each other. Only the programs on the top layer may.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import ROOT

LAYERS = {
    "compiled": 0,
    "errors": 0,
    "yamux": 1,
    "heads": 1,
    "resume": 1,
    "mux": 2,
    "carrier": 2,
    "net": 2,
    "logs": 2,
    "core": 3,
    "wsclient": 3,
    "relay": 4,
    "agent": 4,
    "auth": 5,
    "dashboard": 5,
    "metrics": 5,
    "pad": 5,
    "yserver": 5,
    "admin": 6,
    "options": 7,
    "cli": 8,
    "__main__": 9,
    "agent_tap": 9,
    "bench": 9,
    "check": 9,
    "demo": 9,
    "doctor": 9,
    "relay_tap": 9,
}
"""The layer of each package or module directly under ``seance``."""

PURE, PROGRAMS = 1, 9

MAX_FILE_LINES = 600

AUTOBAHN_PACKAGES = {"carrier", "yserver"}
"""The carrier joins relay and agent by WebSocket; the demo's document server serves Yjs clients."""

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

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if "node_modules" not in path.parts]


SOURCES = {module_name(path): path for path in python_files(ROOT / "seance")}
PACKAGES = {name: [*name.split("."), ""][1] for name in SOURCES}
"""The name after ``seance`` for each module; empty for ``seance`` itself."""


def imports_of(path: Path) -> Iterator[str]:
    """Yield each module that a file imports anywhere; ``a.b`` for ``from a import b``."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages_imported_by(name: str) -> set[str]:
    """Return the packages of ours that a module imports."""
    found = {one.split(".")[1] for one in imports_of(SOURCES[name]) if one.startswith("seance.")}
    return found & set(PACKAGES.values())


def test_every_package_has_a_layer_and_every_layer_its_package() -> None:
    assert {package for package in PACKAGES.values() if package} == set(LAYERS)


def test_a_module_imports_only_lower_layers_and_its_own_package() -> None:
    wrong = [
        f"{name} (layer {layer}) imports seance.{other} (layer {LAYERS[other]})"
        for name, package in PACKAGES.items()
        for layer in [LAYERS[package] if package else PROGRAMS + 1]
        for other in packages_imported_by(name)
        if other != package and not LAYERS[other] == layer == PROGRAMS and LAYERS[other] >= layer
    ]
    assert wrong == []


def test_the_layers_inside_the_relay() -> None:
    """The service is above ``edge``, which is above ``rooms``; ``edge`` uses rooms by interfaces."""
    hidden_from_edge = {
        "seance.relay.service",
        "seance.relay.listeners",
        "seance.relay.rooms.agent_link",
        "seance.relay.rooms.local_directory",
    }
    wrong = [
        f"{name} imports {one}"
        for name, path in SOURCES.items()
        for one in imports_of(path)
        if (
            name.startswith("seance.relay.rooms")
            and one.startswith(("seance.relay.edge", "seance.relay.service"))
        )
        or (name.startswith("seance.relay.edge") and one in hidden_from_edge)
    ]
    assert wrong == []


def test_no_modules_import_each_other() -> None:
    """Imports for types only count as well. Imports of a parent package by its own modules do not count."""
    graph = {
        name: {one for one in imports_of(path) if one in SOURCES and one not in (name, "seance")}
        for name, path in SOURCES.items()
    }
    graph = {
        name: {one for one in found if not (name.startswith(f"{one}.") or one.startswith(f"{name}."))}
        for name, found in graph.items()
    }
    assert list(cycles(graph)) == []


def cycles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield one path through each import cycle that a depth-first search meets."""
    done: set[str] = set()
    for start in sorted(graph):
        path: list[str] = []
        stack: list[tuple[str, Iterator[str]]] = (
            [(start, iter(sorted(graph[start])))] if start not in done else []
        )
        if stack:
            path.append(start)
        while stack:
            name, rest = stack[-1]
            for other in rest:
                if other in path:
                    yield [*path[path.index(other) :], other]
                elif other not in done:
                    path.append(other)
                    stack.append((other, iter(sorted(graph[other]))))
                    break
            else:
                done.add(name)
                path.pop()
                stack.pop()


def test_the_cycle_search_finds_a_cycle() -> None:
    assert list(cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == [["b", "c", "b"]]


def test_the_pure_layers_need_only_the_standard_library_and_h11() -> None:
    allowed = set(sys.stdlib_module_names) - NOT_PURE | {"h11", "seance"}
    wrong = [
        f"{name} imports {imported}"
        for name, package in PACKAGES.items()
        if package and LAYERS[package] <= PURE
        for imported in imports_of(SOURCES[name])
        if imported.split(".")[0] not in allowed or imported in NOT_PURE
    ]
    assert wrong == []


def test_only_two_packages_import_autobahn() -> None:
    wrong = [
        name
        for name, package in PACKAGES.items()
        if package not in AUTOBAHN_PACKAGES
        and any(imported.split(".")[0] in ("autobahn", "txaio") for imported in imports_of(SOURCES[name]))
    ]
    assert wrong == []


def test_no_module_imports_the_reactor_while_it_is_imported() -> None:
    wrong = [f"{name}, line {line}" for name in SOURCES for line in reactor_imports(name)]
    assert wrong == []


def reactor_imports(name: str) -> Iterator[int]:
    """Yield the lines of a module that import the reactor outside of any function."""
    tree = ast.parse(SOURCES[name].read_text("utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, FUNCTIONS) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet" and id(node) not in inside:
            yield from (node.lineno for alias in node.names if alias.name == "reactor")


def test_no_file_is_longer_than_the_limit() -> None:
    files = [*SOURCES.values(), *python_files(ROOT / "tests")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def public_modules() -> list[str]:
    private = [name for name in SOURCES if any(part.startswith("_") for part in name.split(".")[1:])]
    only_a_docstring = [name for name, path in SOURCES.items() if is_only_a_docstring(path)]
    return [name for name in SOURCES if name not in (*private, *only_a_docstring)]


def is_only_a_docstring(path: Path) -> bool:
    """Return whether a file defines nothing but dunder names."""
    body = ast.parse(path.read_text("utf-8")).body
    names = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    is_dunder = all(isinstance(name, ast.Name) and name.id.startswith("__") for name in names)
    return is_dunder and all(isinstance(node, ast.Expr | ast.Assign) for node in body)


def test_a_public_module_has_a_docstring_and_exports_that_exist() -> None:
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
