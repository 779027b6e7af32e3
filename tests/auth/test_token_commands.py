"""Tests of the commands ``seance keygen``, ``seance token`` and ``seance share``."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import segno
from twisted.internet.task import Clock

from seance.auth.service import AuthService
from seance.cli import tokens
from seance.core.interfaces import Grant, TokenRole
from tests.auth.tokens import grant_of
from tests.processes import environment

Run = Callable[..., tuple[int, str, str]]

COMMANDS = {
    "keygen": tokens.keygen,
    "token": tokens.token,
    "share": tokens.share,
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process and an empty folder; return status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        try:
            status = COMMANDS[command](arguments)
        except SystemExit as error:
            status = error.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def key(run: Run) -> str:
    assert run("keygen")[0] == 0
    return "seance.key"


def grant(key: str, text: str, role: TokenRole, room: str) -> Grant:
    """Return the grant of a token at a relay with this key."""
    service = AuthService(Clock(), keys=[key])
    service.startService()
    try:
        return grant_of(service.verify(text, role, room))
    finally:
        service.stopService()


def in_a_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "seance", *arguments],
        cwd=folder,
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


# As processes


def test_key_token_and_link_by_the_real_command(tmp_path: Path) -> None:
    made = in_a_process(tmp_path, "keygen", "--out", "k")
    assert (made.returncode, made.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k", "k.pub"]
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600

    token = in_a_process(
        tmp_path, "token", "--key", "k", "--room", "team-*", "--role", "agent", "--sub", "desk"
    )
    assert (token.returncode, token.stderr) == (0, "")
    [text] = token.stdout.splitlines()
    assert grant(str(tmp_path / "k.pub"), text, TokenRole.AGENT, "team-1").subject == "desk"

    link = in_a_process(tmp_path, "share", "--key", "k", "--room", "r", "--relay", "wss://relay.example/x/")
    assert link.returncode == 0
    [url] = link.stdout.splitlines()
    assert url.startswith("https://relay.example/x/c/r?access_token=")
    [sentence] = link.stderr.splitlines()
    assert re.match("This link gives read and write access to the room r until .* UTC[.]", sentence)
    [text] = parse_qs(urlsplit(url).query)["access_token"]
    assert grant(str(tmp_path / "k.pub"), text, TokenRole.CLIENT, "r").rooms == ("r",)


def test_error_is_one_line_by_the_real_command(tmp_path: Path) -> None:
    said = in_a_process(tmp_path, "token", "--key", "nowhere", "--room", "r")
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr == "seance token: The key file nowhere cannot be read (No such file or directory).\n"


# keygen


def test_keygen_prints_files_kid_and_public_key(run: Run) -> None:
    status, out, err = run("keygen")
    public = json.loads(Path("seance.key.pub").read_text())
    assert (status, err) == (0, "")
    assert f"Key id:      {public['kid']}" in out
    assert "Private key: seance.key\n" in out
    assert "--auth-key seance.key.pub" in out
    assert json.loads(out.splitlines()[-1]) == public
    assert json.loads(Path("seance.key").read_text())["d"] not in out


def test_keygen_does_not_print_a_secret(run: Run) -> None:
    status, out, _ = run("keygen", "--secret", "--out", "s")
    secret = json.loads(Path("s").read_text())
    assert status == 0
    assert (secret["kty"], secret["alg"]) == ("oct", "HS256")
    assert secret["kid"] in out
    assert secret["k"] not in out
    assert os.listdir() == ["s"]


def test_keygen_overwrites_nothing(run: Run, key: str) -> None:
    before = Path(key).read_bytes()
    status, out, err = run("keygen")
    assert (status, out) == (1, "")
    assert (
        err == "seance keygen: seance.key exists already and is not overwritten; "
        "choose another name with --out.\n"
    )
    assert Path(key).read_bytes() == before


# token


def test_token_accepts_every_option(run: Run, key: str) -> None:
    words = "--room a --room b-* --role client --ttl 15m --sub zoe --jti t1 --origin https://a.example "
    words += "--origin http://localhost:3000 --max-clients 5 --max-rate 1MiB --agent-identity desk"
    began_at = int(time.time())
    status, out, err = run("token", "--key", key, *words.split())
    assert (status, err) == (0, "")
    said = grant(f"{key}.pub", out.removesuffix("\n"), TokenRole.CLIENT, "b-7")
    assert began_at + 900 <= said.expires_at <= time.time() + 900
    assert said.rooms == ("a", "b-*")
    assert (said.subject, said.token_id, said.agent_identity) == ("zoe", "t1", "desk")
    assert said.origins == ("https://a.example", "http://localhost:3000")
    assert (said.max_clients, said.max_bytes_per_second) == (5, 1 << 20)


def test_default_token_is_for_a_client_and_one_hour(run: Run, key: str) -> None:
    _, out, _ = run("token", "--key", key, "--room", "r")
    said = grant(f"{key}.pub", out.strip(), TokenRole.CLIENT, "r")
    assert 3590 < said.expires_at - time.time() <= 3600
    assert (said.origins, said.max_clients, said.subject) == (None, None, None)


@pytest.mark.parametrize(
    ("ttl", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("366d", 31_622_400)]
)
def test_ttl_is_a_number_and_a_letter(ttl: str, seconds: int, run: Run, key: str) -> None:
    began_at = int(time.time())
    _, out, _ = run("token", "--key", key, "--room", "r", "--ttl", ttl)
    said = grant(f"{key}.pub", out.strip(), TokenRole.CLIENT, "r")
    assert began_at + seconds <= said.expires_at <= time.time() + seconds


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("", "the following arguments are required: --room"),
        ("--room r --nonsense", "unrecognized arguments: --nonsense"),
        ("--room a*b", "argument --room: 'a*b' is not a room"),
        ("--room r --role root", "argument --role: invalid choice: 'root'"),
        ("--room r --ttl 1y", "argument --ttl: '1y' is not a time"),
        ("--room r --ttl 0s", "argument --ttl: '0s' is not a time"),
        ("--room r --ttl 367d", "at most 366d"),
        ("--room r --ttl 60", "argument --ttl: '60' is not a time"),
        ("--room r --max-clients 0", "argument --max-clients: '0' is not a count"),
        ("--room r --max-rate fast", "argument --max-rate: 'fast' is not a size"),
        ("--room r --origin https://a.example/", "the value of --origin is not valid"),
        ("--room r --ro client", "unrecognized arguments: --ro"),
    ],
)
def test_wrong_option_is_one_line_and_status_1(words: str, problem: str, run: Run, key: str) -> None:
    status, out, err = run("token", "--key", key, *words.split())
    assert (status, out) == (1, "")
    assert err.startswith("seance token: ")
    assert problem in err
    assert len(err.splitlines()) == 1


# share


class Terminal(io.StringIO):
    """A terminal for UTF-8."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def share_on(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    monkeypatch.setattr(sys, "stdout", terminal)
    assert tokens.share(["--key", "seance.key", "--room", "r", *arguments]) == 0
    return terminal.getvalue().splitlines()


def test_terminal_gets_a_qr_code_of_the_link(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []
    make = segno.make
    monkeypatch.setattr(segno, "make", lambda text, **options: made.append(text) or make(text, **options))
    link, *code = share_on(Terminal(), monkeypatch)
    assert made == [link]
    assert link.startswith("http://localhost:8080/c/r?access_token=")
    assert len(code) > 20
    assert all("█" in line or "▄" in line or "▀" in line for line in code)


def test_qr_code_can_be_turned_off(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(share_on(Terminal(), monkeypatch, "--no-qr")) == 1


def test_terminal_without_block_characters_gets_no_qr_code(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(Terminal, "encoding", "latin-1")
    assert len(share_on(terminal, monkeypatch)) == 1


def test_without_the_extra_the_link_is_printed_with_a_hint(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tokens, "find_spec", lambda _: None)
    assert len(share_on(Terminal(), monkeypatch)) == 1
    assert "pip install 'seance-tunnel[share]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--room team-*", "argument --room: The room name 'team-*' is not usable"),
        ("--room r --relay nowhere", "argument --relay: The relay URL 'nowhere' is not a WebSocket address"),
        ("--room r --role admin", "unrecognized arguments: --role admin"),
    ],
)
def test_link_needs_one_room_and_a_valid_relay(words: str, problem: str, run: Run, key: str) -> None:
    status, out, err = run("share", "--key", key, *words.split())
    assert (status, out) == (1, "")
    assert problem in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, run: Run) -> None:
    status, out, _ = run(command, "--help")
    assert status == 0
    assert f"usage: seance {command}" in out
