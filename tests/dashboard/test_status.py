"""``seance status`` against real relays and against other servers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from seance.cli import status
from seance.cli.status_client import MAX_ROOMS, Admin
from tests.auth.tokens import claims, secret_key, sign, write_jwks
from tests.dashboard.stage import ADMIN, admin_url, running_stage
from tests.processes import environment, running_relay

ROOM: dict[str, Any] = {
    "room": "r",
    "state": "online",
    "since_seconds": 1.5,
    "clients": 2,
    "received_bytes": 3,
    "sent_bytes": 40_000,
    "kept_bytes": 0,
    "round_trip_seconds": 0.0125,
    "agent_address": "192.0.2.1",
}


class FakeAdmin:
    """An HTTP server with prepared responses: ``answers`` by path without the query."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {"/readyz": (200, b"ready\n")}
        self.asked: list[tuple[str, str | None]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.asked.append((self.path, self.headers.get("Authorization")))
                code, body = fake.answer(self.path)
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def answer(self, path: str) -> tuple[int, bytes]:
        return self.answers.get(path.partition("?")[0], (404, b"nothing"))

    def says(self, path: str, content: object, code: int = 200) -> None:
        self.answers[path] = (code, json.dumps(content).encode())

    def __enter__(self) -> FakeAdmin:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def fake() -> Iterator[FakeAdmin]:
    with FakeAdmin() as fake:
        yield fake


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = status.main(arguments)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert said.err.count("\n") <= 1
    return code, said.out, said.err


def test_rooms_are_a_table(fake: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    away = ROOM | {"room": "other", "state": "resuming", "since_seconds": 75, "round_trip_seconds": None}
    fake.says("/api/rooms", {"rooms": [ROOM, away], "next": None})
    code, out, _ = run(capsys, "--admin", fake.url)
    assert code == 0
    assert out.splitlines() == [
        f"{fake.url}: ready, 2 rooms, 4 clients",
        "",
        "ROOM   STATE               CLIENTS  TO CLIENTS  FROM CLIENTS  ROUND TRIP  AGENT AT",
        "r      online                    2    39.1 KiB           3 B     12.5 ms  192.0.2.1",
        "other  resuming for 1 min        2    39.1 KiB           3 B           -  192.0.2.1",
    ]


def test_one_room_comes_with_its_clients(fake: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    client = {
        "client": 7,
        "address": "192.0.2.9",
        "state": "joined",
        "seconds": 4000.0,
        "received_bytes": 1,
        "sent_bytes": 2,
    }
    fake.says("/api/rooms/r", ROOM | {"clients": 3, "list": [client]})
    code, out, _ = run(capsys, "r", "--admin", fake.url)
    assert code == 0
    assert out.splitlines()[-3:] == [
        "CLIENT  STATE         FOR  TO IT  FROM IT  FROM",
        "     7  joined  1 h 6 min    2 B      1 B  192.0.2.9",
        "and 2 more clients",
    ]


def test_json_has_the_fields_of_the_api(fake: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    fake.says("/api/rooms", {"rooms": [ROOM], "next": None})
    _, out, _ = run(capsys, "--admin", fake.url, "--json")
    assert json.loads(out) == {"relay": fake.url, "state": "ready", "rooms": [ROOM]}


def test_all_rooms_are_read_page_by_page(fake: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    pages = {"": {"rooms": [ROOM], "next": "r"}, "r": {"rooms": [ROOM | {"room": "s"}], "next": None}}
    plain = fake.answer

    def answer(path: str) -> tuple[int, bytes]:
        after = re.search(r"after=(\w+)", path)
        if path.startswith("/api/rooms"):
            return 200, json.dumps(pages[after[1] if after else ""]).encode()
        return plain(path)

    fake.answer = answer  # type: ignore[method-assign]
    _, out, _ = run(capsys, "--admin", fake.url, "--json")
    assert [room["room"] for room in json.loads(out)["rooms"]] == ["r", "s"]


def test_number_of_rooms_is_limited(fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seance.cli.status_client.MAX_ROOMS", 5)
    fake.says("/api/rooms", {"rooms": [ROOM], "next": "r"})
    assert len(Admin(fake.url).rooms()) == 5
    assert MAX_ROOMS > 5


def test_unreachable_server_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code, out, err = run(capsys, "--admin", f"http://127.0.0.1:{port}")
    assert (code, out) == (2, "")
    assert err == (
        f"seance status: No connection to http://127.0.0.1:{port} (Connection refused). "
        "Is the relay running, and is this its --admin?\n"
    )


@pytest.mark.parametrize(
    ("path", "code", "body"),
    [
        ("/readyz", 200, b"<html>"),
        ("/readyz", 404, b"ready"),
        ("/api/rooms", 200, b"{"),
        ("/api/rooms", 200, b"[]"),
        ("/api/rooms", 200, b'{"rooms": [{"room": 1}], "next": null}'),
        ("/api/rooms", 200, b'{"rooms": 7, "next": null}'),
        ("/api/rooms", 200, b'{"rooms": []}'),
        ("/api/rooms", 200, json.dumps({"rooms": [ROOM | {"clients": True}], "next": None}).encode()),
        ("/api/rooms", 302, b"{}"),
        ("/api/rooms", 404, b'{"code": "admin_path", "error": "There is nothing here."}'),
        ("/api/rooms", 401, b'{"code": 7, "error": 7}'),
    ],
)
def test_another_server_is_status_3(
    path: str, code: int, body: bytes, fake: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.says("/api/rooms", {"rooms": [], "next": None})
    assert run(capsys, "--admin", fake.url)[0] == 0
    fake.answers[path] = (code, body)
    status, out, err = run(capsys, "--admin", fake.url)
    assert (status, out) == (3, "")
    assert f"{fake.url} is not the admin port of a relay." in err


def test_too_long_response_is_status_3(
    fake: FakeAdmin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seance.cli.status_client.MAX_ANSWER_BYTES", 100)
    fake.says("/api/rooms", {"rooms": [ROOM], "next": None})
    assert run(capsys, "--admin", fake.url)[0] == 3


def test_server_without_http_is_status_3(capsys: pytest.CaptureFixture[str]) -> None:
    def talk() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"220 mail.example ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk)
        thread.start()
        code, _, err = run(capsys, "--admin", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert code == 3
    assert "is not the admin port of a relay" in err


def test_control_characters_are_replaced(fake: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    fake.says("/api/rooms", {"rooms": [ROOM | {"agent_address": "\x1b[2J\u202e"}], "next": None})
    _, out, _ = run(capsys, "--admin", fake.url)
    assert out.isprintable() or set(out) - set("\n") <= {c for c in out if c.isprintable()}
    assert "?[2J?" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--admin", "localhost:9090"],
            "'localhost:9090' is not the URL of an admin port; write http://HOST:PORT",
        ),
        (["--admin", "http://h:99999"], "is invalid (Port out of range"),
        (["--admin", "http://h/?token=x"], "may have only host, port and path"),
        (["--admin", "http://me@h"], "may have only host, port and path"),
        (["--token-file", "/no/such"], "The token file /no/such cannot be read: No such file or directory."),
        (["--admin", "https://h", "--ca", "/no/such"], "/no/such has no readable certificates"),
    ],
)
def test_invalid_option_is_one_line_and_status_1(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert sentence in err


def test_invalid_token_is_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("this is secret")
    code, _, err = run(capsys, "--token-file", str(tmp_path / "token"))
    assert code == 1
    assert "secret" not in err


def test_unknown_option_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        status.main(["--what"])
    assert left.value.code == 1
    assert capsys.readouterr().err == (
        "seance status: unrecognized arguments: --what; see seance status --help.\n"
    )


class Interrupt(KeyboardInterrupt):
    """Ctrl-C."""


def test_watch_shows_rates_and_survives_an_error(
    fake: FakeAdmin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    fake.says("/api/rooms", {"rooms": [ROOM], "next": None})
    polls = 0

    def sleep(seconds: float) -> None:
        nonlocal polls
        polls += 1
        now[0] += seconds
        fake.says("/api/rooms", {"rooms": [ROOM | {"sent_bytes": 40_000 + 2048 * polls}], "next": None})
        if polls == 2:
            fake.says("/api/rooms", {}, 500)
        if polls == 3:
            raise Interrupt

    assert status.main(["--watch", "--admin", fake.url], sleep) == 0
    first, second, third = capsys.readouterr().out.split("ROOM ")[0:3]
    assert first.startswith(fake.url)
    assert "1000 B/s" not in second
    assert "1024 B/s" not in second
    assert "1.0 KiB/s" in third
    assert "is not the admin port of a relay" in third


def _no_sleep(seconds: float) -> None:
    pytest.fail("sleep was called")


def test_watch_of_an_unreachable_server_ends_immediately(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert status.main(["--watch", "--admin", f"http://127.0.0.1:{port}"], _no_sleep) == 2
    assert "No connection to" in capsys.readouterr().err


# Real relays


def seance_status(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "seance", "status", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**environment(), "PATH": "/usr/bin:/bin"},
    )


@pytest.mark.slow
def test_real_relay_shows_its_rooms_and_clients() -> None:
    with running_stage() as stage:
        stage.host("first")
        stage.host("second")
        client = stage.join("first")
        client.send(b"hello")
        assert client.read_exactly(5) == b"hello"
        shown = seance_status("--admin", stage.url)
        assert shown.returncode == 0
        assert "ready, 2 rooms, 1 client\n" in shown.stdout
        assert re.search(r"^first +online +1 +5 B +5 B +", shown.stdout, re.M)
        assert re.search(r"^second +online +0 +0 B +0 B +", shown.stdout, re.M)
        shown = seance_status("first", "--admin", stage.url, "--json")
        report = json.loads(shown.stdout)
        assert [one["state"] for one in report["list"]] == ["joined"]
        missing = seance_status("third", "--admin", stage.url)
        assert (missing.returncode, missing.stdout) == (5, "")
        assert missing.stderr == "seance status: No agent serves room third.\n"
        public = seance_status("--admin", f"http://127.0.0.1:{stage.relay.port}")
        assert public.returncode == 3
        assert "is not the admin port" in public.stderr


def write_token(folder: Path, name: str, **more: Any) -> str:
    key = secret_key()
    told = claims(**{"role": "admin", "room": "*", "exp": int(time.time()) + 600, **more})
    file = folder / name
    file.write_text(sign(told, material=key.signing, algorithm="HS256", kid=key.key_id) + "\n")
    return str(file)


@pytest.mark.slow
def test_token_file_is_used(tmp_path: Path) -> None:
    keys = str(write_jwks(tmp_path / "keys", secret_key()))
    with running_relay(*ADMIN, "--auth-key", keys, "--admin-token") as relay:
        url = admin_url(relay)
        without = seance_status("--admin", url)
        assert (without.returncode, without.stdout) == (4, "")
        assert "Name a token with --token-file." in without.stderr
        client = seance_status("--admin", url, "--token-file", write_token(tmp_path, "client", role="client"))
        assert client.returncode == 4
        old = seance_status("--admin", url, "--token-file", write_token(tmp_path, "old", exp=1))
        assert old.returncode == 4
        good = seance_status("--admin", url, "--token-file", write_token(tmp_path, "good"))
        assert (good.returncode, good.stderr) == (0, "")
