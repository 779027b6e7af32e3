"""Commands in the pages exist: targets of make, options, files, versions, addresses."""

from __future__ import annotations

import configparser
import functools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from seance.admin.openapi import description
from seance.cli import COMMANDS
from seance.heads import resolve_target
from seance.options import Program, options_of
from tests.docs.pages import PAGES, README, blocks, code_spans
from tests.processes import PEERS
from tests.tools import ROOT

PROGRAMS = ("relay", "agent", "demo", "keygen", "token", "share", "doctor", "status", "check", "bench")
PROGRAMS += ("health",)
COMMON = {"--help", "--help-all", "--version", "--config"}
FOREIGN = {
    "--tls",
    "--config-settings",
    "--draft",
    "--slow",
    "--logfile",
    "--logger",
    "--reactor",
    "--help-reactors",
    "--syslog",
}
FOREIGN |= {"--against", "--compiled", "--follow-imports", "--rundir"}
"""Options of other programs in the pages: pip, towncrier, twistd, mypy, our tests and benchmarks."""

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PEER_VERSIONS = json.loads((PEERS / "package.json").read_text("utf-8"))["dependencies"]


def typed(page: Path) -> list[list[str]]:
    """Return the commands of a page as lists of words; a line is split at ``&&``."""
    lines = []
    for block in blocks(page, "console"):
        text = block.text.replace("\\\n", " ")
        lines += [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    return [shlex.split(part) for line in lines for part in re.split(r"\s&&\s", line)]


@functools.cache
def flags_of(program: str) -> frozenset[str]:
    """Return the options of a command, from the table of options or from its help."""
    if program not in {one.value for one in Program}:
        argv = [sys.executable, "-m", "seance", program, "--help"]
        shown = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return frozenset(re.findall(r"--[a-z-]+", shown))
    options = options_of(Program(program))
    off = {f"--no-{option.name}" for option in options if option.is_flag}
    return frozenset(COMMON | off | {f"--{option.name}" for option in options})


def flags_in(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def check_make(words: list[str]) -> None:
    for word in words:
        variable, is_assignment, value = word.partition("=")
        if not is_assignment:
            assert re.search(rf"^{word}:.*##", MAKEFILE, re.M), f"make {word}"
            continue
        assert re.search(rf"^{variable} \?=", MAKEFILE, re.M), variable
        if variable == "DEMO_FLAGS":
            assert flags_in(shlex.split(value)) <= flags_of("demo")
        if variable == "BENCH_FLAGS":
            check_python(["benchmarks/pairs.py", *shlex.split(value)])


def check_python(words: list[str]) -> None:
    source = (ROOT / words[0]).read_text("utf-8")
    for flag in flags_in(words):
        assert f'"{flag}"' in source, flag


def check_twistd(words: list[str]) -> None:
    assert words[0] == "-n", "run twistd in the foreground"
    assert flags_in(words) <= flags_of(words[1].removeprefix("seance-"))


def check_seance(words: list[str]) -> None:
    assert words[0] in COMMANDS
    assert flags_in(words) <= flags_of(words[0])


def check_pip(words: list[str]) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for word in words:
        extras = re.fullmatch(r"\.\[(.+)\]", word)
        assert extras is None or set(extras[1].split(",")) <= set(setup["options.extras_require"])


def check_npx(words: list[str]) -> None:
    package, _, version = words[words.index("-p") + 1].rpartition("@")
    assert PEER_VERSIONS[package] == version, "pages and tests must use the same version"


def check_curl(words: list[str]) -> None:
    [url] = [word for word in words if word.startswith("http://localhost:")]
    path = url.partition("localhost:9090")[2]
    if not path:
        check_address(words)
        return
    assert words == [url] or words[:2] == ["-X", "DELETE"]
    method = "get" if words == [url] else "delete"
    known = {re.sub(r"\{\w+\}", "[^/]+", one): does for one, does in description()["paths"].items()}
    assert [one for one, does in known.items() if re.fullmatch(one, path) and method in does], url


def check_address(words: list[str]) -> None:
    [url] = [word for word in words if re.match(r"(ws|http)://localhost:8080/", word)]
    resolve_target(url.split("localhost:8080")[1].encode())


def check_install(words: list[str]) -> None:
    for word in words[:-1]:
        assert not word.startswith("deploy/") or (ROOT / word).is_file(), word


def check_unit(words: list[str]) -> None:
    for unit in re.findall(r"seance-(\w+)@\S+", " ".join(words)):
        assert (ROOT / "deploy" / "systemd" / f"seance-{unit}@.service").is_file()


def check_docker(words: list[str]) -> None:
    if "-f" in words:
        assert (ROOT / words[words.index("-f") + 1]).is_file()
    if words[0] == "run":
        check_seance(words[words.index("seance") + 1 :])


def check_variable(words: list[str]) -> None:
    variable = words[0].partition("=")[0]
    assert variable in {option.variables[0] for program in Program for option in options_of(program)}


def check_venv(words: list[str]) -> None:
    assert words[:2] == ["-m", "venv"]


def check_nothing(words: list[str]) -> None:
    assert words == []


CHECKS = {
    "python": check_python,
    "python3": check_venv,
    "install": check_install,
    "systemctl": check_unit,
    "systemd-sysusers": check_nothing,
    "docker": check_docker,
    "echo": check_variable,
    "pipx": check_pip,
    "make": check_make,
    "twistd": check_twistd,
    "seance": check_seance,
    "pip": check_pip,
    "npx": check_npx,
    "wscat": check_address,
    "curl": check_curl,
}


@pytest.mark.parametrize("page", [page for page in PAGES if typed(page)], ids=lambda page: page.name)
def test_commands_of_a_page_exist(page: Path) -> None:
    folder = ROOT
    for words in typed(page):
        while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        command, *rest = words
        if command == "cd":
            folder = ROOT / rest[0]
            assert folder.is_dir()
        elif command == "install" and rest[0] == "-d":
            assert rest[-1].startswith("/etc/seance")
        elif command == "node":
            assert (folder / rest[0]).is_file()
        elif command == "npm":
            assert (folder / "package-lock.json").is_file()
        else:
            CHECKS[Path(command).name](rest)


def test_the_readme_has_the_first_commands_of_a_new_user() -> None:
    lines = [" ".join(words) for words in typed(README)]
    for wanted in (
        "make demo",
        "make test",
        "pip install .",
        "twistd -n seance-relay",
        "twistd -n seance-agent --room test-room",
        "wscat -c ws://localhost:8080/client?room=test-room",
    ):
        assert wanted in lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_a_page_mentions_exists(page: Path) -> None:
    known = FOREIGN.union(*(flags_of(program) for program in PROGRAMS))
    mentioned = {
        flag
        for span in code_spans(page)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])", span)
    }
    assert mentioned <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_mentions_exists(page: Path) -> None:
    for span in code_spans(page):
        if target := re.fullmatch(r"make ([a-z]+)", span):
            check_make([target[1]])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_mentions_exists(page: Path) -> None:
    """``relay/edge/frontend.py`` in the text is a file of the package, or of the checkout."""
    for span in code_spans(page):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)+\.(py|md|mjs|go|cfg|toml|sh)", span):
            assert (ROOT / "seance" / span).exists() or (ROOT / span).exists(), span
