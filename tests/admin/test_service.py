"""Endpoints and TLS of the admin port."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogEvent, globalLogPublisher

from seance.admin import service as service_module
from seance.admin.port import AgentAdmin, RelayAdmin
from seance.auth.service import AuthService
from seance.core.settings import AgentSettings, RelaySettings
from seance.errors import ConfigError
from tests.admin.rig import AdminRig, ask_at
from tests.admin.test_access_control import admin_token, bearer
from tests.certificates import Authority, CertificateFiles
from tests.processes import free_port
from tests.relay.rig import reactor

EVERYWHERE = "tcp:0:interface=0.0.0.0"


async def start(admin: Any) -> Any:
    admin.startService()
    return (await admin.when_listening()).getHost()


def tls_settings(authority: Authority, certificate: CertificateFiles, **others: Any) -> RelaySettings:
    return RelaySettings(
        admin=EVERYWHERE, tls_cert=str(certificate.chain), tls_key=str(certificate.key), **others
    )


def trusting(authority: Authority, own: CertificateFiles | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if own is not None:
        context.load_cert_chain(str(own.chain), str(own.key))
    return context


@pytest.mark.parametrize("address", ["tcp:0", EVERYWHERE, r"tcp6:0:interface=\:\:"])
@ensureDeferred
async def test_public_address_needs_tokens_or_certificates(address: str) -> None:
    admin = RelayAdmin(reactor, RelaySettings(admin=address))
    with pytest.raises(ConfigError) as caught:
        admin.startService()
    assert caught.value.code == "admin_unsafe"
    assert "--auth-key FILE or --admin-ca FILE" in str(caught.value)
    await admin.stopService()


@ensureDeferred
async def test_admin_token_needs_a_verifier() -> None:
    settings = RelaySettings(admin="tcp:0:interface=127.0.0.1", admin_token=True)
    admin = RelayAdmin(reactor, settings)
    with pytest.raises(ConfigError, match="--admin-token"):
        admin.startService()
    await admin.stopService()


@ensureDeferred
async def test_agent_listens_on_loopback_only() -> None:
    admin = AgentAdmin(reactor, AgentSettings(room="r", admin=EVERYWHERE))
    with pytest.raises(ConfigError) as caught:
        admin.startService()
    assert str(caught.value) == (
        "Any client of the admin port on 0.0.0.0 could read this agent's metrics: "
        "an agent cannot require tokens, so keep it on 127.0.0.1."
    )
    await admin.stopService()


@ensureDeferred
async def test_public_address_requires_a_token_and_accepts_any_host(service: AuthService) -> None:
    async with AdminRig(relay={"admin": EVERYWHERE}, verifier=service, with_agent=False) as rig:
        assert (await rig.ask("/api/rooms")).status_code == 401
        fields = {**bearer(admin_token()), "Host": "relay.example:9090"}
        assert (await rig.ask("/api/rooms", headers=fields)).status_code == 200


@ensureDeferred
async def test_default_port_in_use_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
    number = taken.getHost().port
    monkeypatch.setattr(service_module, "DEFAULT_ENDPOINT", f"tcp:{number}:interface=127.0.0.1")
    lines: list[LogEvent] = []
    globalLogPublisher.addObserver(lines.append)
    admin = RelayAdmin(reactor, RelaySettings())
    try:
        admin.startService()
        assert await admin.when_listening() is None
        [line] = [one for one in lines if one.get("event") == "admin.no_port"]
        assert line["endpoint"] == f"tcp:{number}:interface=127.0.0.1"
    finally:
        globalLogPublisher.removeObserver(lines.append)
        await admin.stopService()
        await taken.stopListening()


@ensureDeferred
async def test_configured_port_in_use_is_an_error() -> None:
    taken = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
    admin = RelayAdmin(reactor, RelaySettings(admin=f"tcp:{taken.getHost().port}:interface=127.0.0.1"))
    with pytest.raises(ConfigError, match="choose another with --admin") as caught:
        admin.startService()
    assert caught.value.code == "admin"
    with pytest.raises(ConfigError):
        await admin.when_listening()
    await admin.stopService()
    await taken.stopListening()


@ensureDeferred
async def test_invalid_endpoint_is_an_error() -> None:
    admin = RelayAdmin(reactor, RelaySettings(admin="nonsense:1"))
    with pytest.raises(ConfigError, match="is invalid"):
        admin.startService()
    await admin.stopService()


def test_default_is_port_9090_on_loopback() -> None:
    assert service_module.DEFAULT_ENDPOINT == "tcp:9090:interface=127.0.0.1"
    assert RelaySettings().admin is None
    assert AgentSettings(room="r").admin == "none"


@ensureDeferred
async def test_unix_socket_is_local_and_has_no_host(tmp_path: Path) -> None:
    admin = RelayAdmin(reactor, RelaySettings(admin=f"unix:{tmp_path}/admin.sock"))
    await start(admin)
    transport = httpx.HTTPTransport(uds=str(tmp_path / "admin.sock"))
    answer = await ask_at("http://whatever/healthz", transport=transport)
    assert answer.status_code == 200
    await admin.stopService()


@ensureDeferred
async def test_public_address_uses_the_certificate(authority: Authority, service: AuthService) -> None:
    certificate = authority.issue("localhost")
    admin = RelayAdmin(reactor, tls_settings(authority, certificate), verifier=service)
    port = (await start(admin)).port
    url = f"https://localhost:{port}/api/rooms"
    assert (await ask_at(url, verify=trusting(authority))).status_code == 401
    answer = await ask_at(url, verify=trusting(authority), headers=bearer(admin_token()))
    assert answer.status_code == 200
    await admin.stopService()


@ensureDeferred
async def test_loopback_address_does_not_use_the_certificate(authority: Authority) -> None:
    certificate = authority.issue("localhost")
    async with AdminRig(
        relay={"tls_cert": str(certificate.chain), "tls_key": str(certificate.key)}, with_agent=False
    ) as rig:
        assert (await rig.ask("/healthz")).status_code == 200


@ensureDeferred
async def test_client_certificate_of_the_authority_gives_access(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    stranger = Authority(tmp_path / "others", "stranger")
    own = authority.issue("localhost")
    operator = authority.issue(subject="operator", file="operator", for_servers=False)
    other = stranger.issue(subject="other", file="other", for_servers=False)
    admin = RelayAdmin(reactor, tls_settings(authority, own, admin_ca=str(authority.file)))
    port = (await start(admin)).port
    url = f"https://localhost:{port}/api/rooms"
    assert (await ask_at(url, verify=trusting(authority, operator))).status_code == 200
    refused = await ask_at(url, verify=trusting(authority))
    assert (refused.status_code, refused.json()["code"]) == (401, "admin_token")
    with pytest.raises(httpx.TransportError):
        await ask_at(url, verify=trusting(authority, other))
    await admin.stopService()


@ensureDeferred
async def test_invalid_certificate_is_an_error_and_closes_the_port(
    authority: Authority, service: AuthService, tmp_path: Path
) -> None:
    settings = RelaySettings(
        admin=f"tcp:{free_port()}:interface=0.0.0.0", tls_cert=str(tmp_path / "none.pem")
    )
    admin = RelayAdmin(reactor, settings, verifier=service)
    with pytest.raises(ConfigError):
        admin.startService()
    await admin.stopService()


@ensureDeferred
async def test_renewed_certificate_is_used(authority: Authority, service: AuthService) -> None:
    certificate = authority.issue("localhost")
    admin = RelayAdmin(reactor, tls_settings(authority, certificate), verifier=service)
    port = (await start(admin)).port

    async def serial() -> int:
        from twisted.internet.threads import deferToThread

        text = await deferToThread(ssl.get_server_certificate, ("127.0.0.1", port))
        from cryptography import x509

        return x509.load_pem_x509_certificate(text.encode()).serial_number

    before = await serial()
    authority.issue("localhost")
    admin.reread()
    for _ in range(100):  # the files are read in a thread
        if await serial() != before:
            break
    else:
        pytest.fail("the certificate was not reloaded")
    await admin.stopService()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"admin_ca": "ca.pem"}, "--admin-ca requires --tls-cert.")],
)
def test_invalid_settings_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RelaySettings(**options)


def test_importing_the_port_installs_no_reactor() -> None:
    import subprocess
    import sys

    code = "import sys, seance.admin.port; sys.exit('twisted.internet.reactor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
