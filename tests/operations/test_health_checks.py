"""HAProxy checks the health of a relay, with short configurations; both are real processes."""

from __future__ import annotations

import contextlib
import csv
import io
import signal
import socket
from pathlib import Path

import pytest

from tests.processes import Process, free_port, running_relay, until
from tests.tools import require

CONFIGURATION = """
global
    log stdout format raw local0
    stats socket {folder}/admin.sock
defaults
    mode http
    log global
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend public
    bind 127.0.0.1:{port}
    default_backend relays
backend relays
    {check}
    server relay 127.0.0.1:{relay} check inter 200ms rise 2 fall 1 {options}
"""

CHECKS = {
    "one line": ("option httpchk GET /health", ""),
    "HEAD": ("option httpchk HEAD /health", ""),
    "no argument": ("option httpchk", ""),
    "with Host": (r"option httpchk GET /health HTTP/1.1\r\nHost:\ relay.example", ""),
    "expect string": ("option httpchk GET /health\n    http-check expect string OK", ""),
    "PROXY header": ("option httpchk GET /health", "send-proxy check-send-proxy"),
    "PROXY v2 header": ("option httpchk GET /health", "send-proxy-v2 check-send-proxy"),
}


def check_status(folder: Path) -> str:
    """Return the result of HAProxy's last check, such as ``L7OK``; empty before the first check."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(folder / "admin.sock"))
        admin.sendall(b"show stat\n")
        text = admin.makefile(encoding="utf-8").read().removeprefix("# ")
        for row in csv.DictReader(io.StringIO(text)):
            if row["svname"] == "relay":
                return row["check_status"]
    return ""


QUICK = "one line"


@pytest.mark.parametrize(
    "name", [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in CHECKS if name != QUICK)]
)
def test_haproxy_reports_a_relay_up_and_then_down_when_it_drains(name: str, tmp_path: Path) -> None:
    require("haproxy")
    check, options = CHECKS[name]
    is_proxied = "send-proxy" in options
    listen = "haproxy:tcp:0:interface=127.0.0.1" if is_proxied else "tcp:0:interface=127.0.0.1"
    trust = ("--trusted-proxy", "127.0.0.1") if is_proxied else ()
    with running_relay(*trust, listen=listen) as relay:
        values = {"folder": tmp_path, "port": free_port(), "relay": relay.port}
        file = tmp_path / "haproxy.cfg"
        file.write_text(CONFIGURATION.format(**values, check=check, options=options), "utf-8")
        with Process(["haproxy", "-db", "-f", str(file)], name="haproxy") as proxy:
            until("the check was answered", lambda: check_status(tmp_path).startswith("L7"))
            assert check_status(tmp_path) == "L7OK", proxy.output
            relay.signal(signal.SIGTERM)
            proxy.when_line("Server relays/relay is DOWN")
