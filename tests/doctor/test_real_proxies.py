"""Real proxies in front of a relay: the files of ``deploy/`` pass, a minimal nginx configuration fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from seance.doctor.findings import Hop
from tests.certificates import Authority
from tests.doctor.rig import diagnose, finding, only_failure, running_tunnel
from tests.operations.proxies import FRONTS, Place
from tests.processes import Process, free_port
from tests.relay.rig import Rig
from tests.tools import require

pytestmark = pytest.mark.slow

DETECTED = {"nginx": "nginx", "caddy": "Caddy", "haproxy": "none detected"}

MINIMAL_CONFIG = """
daemon off;
user root;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 64; }}
http {{
    access_log off;
    proxy_temp_path {folder}/proxy;
    client_body_temp_path {folder}/body;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ {lines} proxy_pass http://127.0.0.1:{relay}; }}
    }}
}}
"""


@contextlib.contextmanager
def minimal_nginx(folder: Path, relay: int, lines: str) -> Iterator[str]:
    """Run nginx with ``proxy_pass`` and further lines; yields its URL."""
    require("nginx")
    port = free_port()
    main = folder / "nginx.conf"
    main.write_text(MINIMAL_CONFIG.format(folder=folder, port=port, relay=relay, lines=lines), "utf-8")
    argv = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(main)]
    with Process(argv, name="nginx") as process:
        process.when_line(r"start worker process \d+")
        yield f"ws://127.0.0.1:{port}"


@pytest.mark.parametrize("name", sorted(FRONTS))
@ensureDeferred
async def test_files_of_deploy_pass(name: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("localhost", "127.0.0.1")
    async with running_tunnel(relay={"trusted_proxy": ("127.0.0.1",), "head_seconds": 30.0}) as (rig, _):
        place = Place(tmp_path, certificate, authority.file, (rig.port,))
        with FRONTS[name](place) as front:
            report = await diagnose(front.url, "r", ca_file=str(authority.file))
            assert report.exit_code == 0, report.findings
            assert DETECTED[name] in finding(report, Hop.PROXY).message


@pytest.mark.parametrize("lines", ["", "proxy_http_version 1.1;"])
@ensureDeferred
async def test_nginx_that_does_not_forward_upgrades_is_reported(lines: str, tmp_path: Path) -> None:
    async with Rig(with_agent=False) as rig:
        with minimal_nginx(tmp_path, rig.port, lines) as url:
            failed = only_failure(await diagnose(url, "r"), Hop.PROXY)
            assert "(nginx" in failed.message
            assert "proxy_set_header Upgrade $http_upgrade" in failed.advice


@ensureDeferred
async def test_nginx_without_its_relay_is_reported(tmp_path: Path) -> None:
    with minimal_nginx(tmp_path, free_port(), "") as url:
        failed = only_failure(await diagnose(url, "r"), Hop.PROXY)
        assert "502" in failed.message
        assert "does not reach the relay behind it" in failed.advice
