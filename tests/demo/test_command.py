"""``seance demo`` as a process."""

from __future__ import annotations

import signal
import socket
import urllib.request

import pytest

from seance.demo import command, main
from tests.commands import check_one_sentence, started

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--port", "http"], "'http' is not a port; write a number from 0 to 65535"),
        (["--port", "65536"], "'65536' is not a port"),
        (["--port", "-1"], "'-1' is not a port"),
        (["--host", "http://x/"], "'http://x/' is not an address"),
        (["--stor", "x"], "unrecognized arguments: --stor x"),
        (["--store"], "--store: expected one argument"),
    ],
)
def test_wrong_option_is_one_line(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check_one_sentence(main, "demo", options, sentence, capsys)


def test_invalid_room_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--room", "a/b"]) == 1
    assert capsys.readouterr().err.startswith("seance demo: The room name 'a/b' is not usable")


def test_missing_extra_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "EXTRAS", ("pycrdt", "no_such_package_at_all"))
    assert main([]) == 1
    output = capsys.readouterr().err
    assert output == (
        "seance demo: the demo needs no_such_package_at_all: pip install 'seance-tunnel[demo]'\n"
    )


def test_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert not ended.value.code
    output = capsys.readouterr().out
    for option in ("--store FILE", "--port N", "--host ADDRESS", "--room NAME", "--no-qr"):
        assert option in output


def test_link_works_until_ctrl_c() -> None:
    with started("demo", "--port", "0", "--room", "my-room") as process:
        link = process.when_line(r"^ +(http://localhost:\d+/c/my-room)$")[1]
        process.when_line("█")
        process.when_line("Ctrl-C")
        asked = urllib.request.Request(link, headers={"Accept": "text/html"})
        with urllib.request.urlopen(asked) as answer:
            assert b"<title>Seance pad</title>" in answer.read()
        process.signal(signal.SIGINT)
        assert process.when_exited() == 0
        process.check_quiet()


@pytest.mark.parametrize(("options", "encoding"), [(["--no-qr"], "utf-8"), ([], "ascii")])
def test_code_is_left_out_if_unwanted_or_impossible(options: list[str], encoding: str) -> None:
    with started("demo", "--port", "0", *options, PYTHONIOENCODING=encoding) as process:
        process.when_line("Ctrl-C")
        assert "█" not in process.output
        assert "u2588" not in process.output
        process.signal(signal.SIGTERM)
        process.when_exited()
        process.check_quiet()


def test_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with started("demo", "--port", str(port)) as process:
            assert process.when_exited() == 1
            (line,) = process.output.splitlines()
            assert line.startswith(f"seance demo: The relay cannot listen on 127.0.0.1:{port}: ")


def test_store_that_cannot_be_opened_is_one_line() -> None:
    with started("demo", "--port", "0", "--store", "nowhere/at/all") as process:
        assert process.when_exited() == 1
        (line,) = process.output.splitlines()
        assert line.startswith("seance demo: The store 'nowhere/at/all' cannot be opened: ")
