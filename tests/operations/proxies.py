"""nginx, HAProxy and Caddy with the files of ``deploy/``; only ports, paths and times are replaced.

The tests run the files that users copy. A replacement fails if its original is not in the file, so the files
cannot diverge from the tested ones. ``Frontend`` is the common interface of the three.
"""

from __future__ import annotations

import contextlib
import signal
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.processes import Process, free_port
from tests.tls_in_threads import trusting
from tests.tools import ROOT, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.certificates import CertificateFiles

__all__ = ["DEPLOY", "FRONTS", "Frontend", "Place", "caddy", "deployed", "haproxy", "nginx", "passthrough"]

DEPLOY = ROOT / "deploy"

IDLE_SECONDS = 8
"""The idle timeout in place of two minutes. It is longer than the 4 s after which an idle carrier sends a
ping.
"""

NGINX_AROUND = """
daemon off;
user root;
pid {folder}/nginx.pid;
error_log stderr notice;
worker_processes 2;
events {{ worker_connections 4096; }}
http {{
    include {folder}/seance.conf;
    {temporary}
}}
"""
"""Replaces the distribution's ``nginx.conf``, which includes files in the same way."""


@dataclass(frozen=True, slots=True)
class Place:
    """The parameters of a proxy.

    Attributes:
        folder: Folder for its files.
        certificate: For ``localhost`` and 127.0.0.1.
        authority: File of the authority of that certificate.
        relays: Ports of the relays behind it.
        speaks_proxy: Whether connections to the proxy begin with a PROXY line.
    """

    folder: Path
    certificate: CertificateFiles
    authority: Path
    relays: tuple[int, ...]
    speaks_proxy: bool = False


@dataclass(slots=True)
class Frontend:
    """A running proxy.

    Attributes:
        port: Its port, with TLS.
        authority: File of the authority of its certificate.
        process: The process, for signals.
        reload: Makes it read its configuration again; returns when that is done.
        log: File of its request log; None if it has none.
    """

    port: int
    authority: Path
    process: Process
    reload: Callable[[], None]
    log: Path | None = None
    context: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        self.context = trusting(self.authority)

    @property
    def url(self) -> str:
        return f"wss://localhost:{self.port}"


def deployed(name: str, replacements: Mapping[str, str]) -> str:
    """Return a file of ``deploy/`` with some of its words replaced, each of which must be there."""
    text = (DEPLOY / name).read_text("utf-8")
    for old, new in replacements.items():
        assert old in text, f"deploy/{name} does not have {old!r} any more"
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def nginx(place: Place) -> Iterator[Frontend]:
    """Run ``deploy/nginx/seance.conf`` inside a minimal ``nginx.conf``."""
    require("nginx")
    port = free_port()
    log = place.folder / "access.log"
    listen = f"listen 127.0.0.1:{port} ssl" + (" proxy_protocol" if place.speaks_proxy else "")
    replacements = {
        "listen 443 ssl": listen,
        "    listen [::]:443 ssl;\n": "",
        "server 127.0.0.1:8080": f"server 127.0.0.1:{place.relays[0]}",
        "server_name relay.example": "server_name localhost",
        "/etc/letsencrypt/live/relay.example/fullchain.pem": str(place.certificate.chain),
        "/etc/letsencrypt/live/relay.example/privkey.pem": str(place.certificate.key),
        "/var/log/nginx/seance.log": str(log),
        "120s": f"{IDLE_SECONDS}s",
    }
    if place.speaks_proxy:
        replacements |= {
            "#real_ip_header": "real_ip_header",
            "#set_real_ip_from 192.0.2.1": "set_real_ip_from 127.0.0.1",
        }
    (place.folder / "seance.conf").write_text(deployed("nginx/seance.conf", replacements), "utf-8")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n    ".join(f"{kind}_temp_path {place.folder}/{kind};" for kind in kinds)
    main = place.folder / "nginx.conf"
    main.write_text(NGINX_AROUND.format(folder=place.folder, temporary=temporary), "utf-8")
    argv = ["nginx", "-e", "stderr", "-p", str(place.folder), "-c", str(main)]
    with _running(argv, "nginx", r"start worker process \d+") as process:

        def reload() -> None:
            process.signal(signal.SIGHUP)
            process.when_line("reconfiguring")
            process.when_line("gracefully shutting down")

        yield Frontend(port, place.authority, process, reload, log)


@contextlib.contextmanager
def haproxy(place: Place) -> Iterator[Frontend]:
    """Run ``deploy/haproxy/haproxy.cfg``; blue is the first relay, green the second."""
    port = free_port()
    blue, green = place.relays[0], (*place.relays, free_port())[1]
    bind = f"bind 127.0.0.1:{port} ssl crt {place.certificate.both} alpn http/1.1"
    replacements = {
        "bind :443 ssl crt /etc/haproxy/relay.example.pem alpn http/1.1": bind
        + (" accept-proxy" if place.speaks_proxy else ""),
        "blue  127.0.0.1:8080": f"blue  127.0.0.1:{blue}",
        "green 127.0.0.1:8081": f"green 127.0.0.1:{green}",
        "tunnel       2m": f"tunnel       {IDLE_SECONDS}s",
    }
    with _haproxy(place, "haproxy/haproxy.cfg", replacements, port) as front:
        yield front


@contextlib.contextmanager
def passthrough(place: Place) -> Iterator[Frontend]:
    """Run ``deploy/haproxy/passthrough.cfg``; the relay has the certificate."""
    port = free_port()
    replacements = {
        "bind :443": f"bind 127.0.0.1:{port}" + (" accept-proxy" if place.speaks_proxy else ""),
        "127.0.0.1:8443": f"127.0.0.1:{place.relays[0]}",
        "2m": f"{IDLE_SECONDS}s",
    }
    with _haproxy(place, "haproxy/passthrough.cfg", replacements, port) as front:
        yield front


@contextlib.contextmanager
def _haproxy(place: Place, name: str, replacements: Mapping[str, str], port: int) -> Iterator[Frontend]:
    require("haproxy")
    here = {
        "log /dev/log local0": "log stdout format raw local0",
        "maxconn 20000": "maxconn 2000",
        "/run/haproxy/admin.sock": str(place.folder / "admin.sock"),
    }
    file = place.folder / "haproxy.cfg"
    file.write_text(deployed(name, {**here, **replacements}), "utf-8")
    with _running(["haproxy", "-W", "-db", "-f", str(file)], "haproxy", "Loading success") as process:

        def reload() -> None:
            process.signal(signal.SIGUSR2)
            process.when_line("Loading success")

        yield Frontend(port, place.authority, process, reload)


@contextlib.contextmanager
def caddy(place: Place) -> Iterator[Frontend]:
    """Run ``deploy/caddy/Caddyfile``, without requesting a certificate."""
    require("caddy")
    port, admin = free_port(), free_port()
    options = f"{{\n\tadmin 127.0.0.1:{admin}\n\tauto_https off\n}}\n\n"
    tls = f"\ttls {place.certificate.chain} {place.certificate.key}\n"
    name = "\n{$SEANCE_NAME:relay.example} {\n"
    text = deployed("caddy/Caddyfile", {name: name + tls})
    file = place.folder / "Caddyfile"
    file.write_text(options + text, "utf-8")
    env = {
        "HOME": str(place.folder),
        "XDG_DATA_HOME": str(place.folder),
        "XDG_CONFIG_HOME": str(place.folder),
        "SEANCE_NAME": f"https://localhost:{port}",
        "SEANCE_RELAY": f"127.0.0.1:{place.relays[0]}",
    }
    argv = ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]
    with _running(argv, "caddy", "serving initial configuration", env) as process:

        def reload() -> None:
            # Caddy ignores a reload of an unchanged file.
            again = ["caddy", "reload", "--force", "--adapter", "caddyfile", "--config", str(file)]
            with Process([*again, "--address", f"127.0.0.1:{admin}"], name="caddy reload", env=env) as told:
                assert told.when_exited() == 0, told.output

        yield Frontend(port, place.authority, process, reload)


@contextlib.contextmanager
def _running(
    argv: list[str], name: str, ready: str, env: Mapping[str, str] | None = None
) -> Iterator[Process]:
    with Process(argv, name=name, env=env) as process:
        process.when_line(ready)
        yield process
        assert process.exit_code is None, f"{name} ended by itself:\n{process.output}"


FRONTS = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy}
"""The proxies that terminate TLS."""
