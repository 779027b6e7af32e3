"""The TLS options, and their conflicts."""

from __future__ import annotations

from typing import Any

import pytest

from seance.core.settings import AgentSettings, RelaySettings, has_tls
from seance.errors import ConfigError
from seance.options.config import agent_settings, relay_settings

OWN = "ssl:443:privateKey=key.pem:certKey=chain.pem"


def test_the_relay_gets_its_certificate_from_the_options() -> None:
    flags = {"tls-cert": ["chain.pem"], "tls-key": ["key.pem"]}
    settings = relay_settings(flags, {"SEANCE_AGENT_CA": "agents.pem"})
    assert (settings.tls_cert, settings.tls_key, settings.agent_ca) == ("chain.pem", "key.pem", "agents.pem")


def test_the_agent_gets_its_certificate_and_authorities_from_the_options() -> None:
    environment = {
        "SEANCE_ROOM": "r",
        "SEANCE_RELAY": "https://relay.example",
        "SEANCE_TLS_CA": "ca.pem",
        "SEANCE_LOCAL": "tls://localhost:1",
        "SEANCE_LOCAL_INSECURE": "yes",
    }
    settings = agent_settings({"tls-cert": ["agent.pem"]}, environment)
    assert (settings.tls_ca, settings.tls_cert, settings.tls_key) == ("ca.pem", "agent.pem", None)
    assert (settings.tls_insecure, settings.local_ca, settings.local_insecure) == (False, None, True)


def test_an_empty_file_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--tls-cert: '' is not the path of a file\.$"):
        relay_settings({"tls-cert": [""]}, {})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tls_key": "k"}, "--tls-key requires --tls-cert."),
        ({"agent_ca": "c"}, "--agent-ca requires --tls-cert."),
        (
            {"tls_cert": "c", "listen": (OWN, f"haproxy:{OWN}")},
            "--tls-cert is unused: every --listen endpoint is already ssl:.",
        ),
    ],
)
def test_conflicting_relay_options_are_one_message(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RelaySettings(**options)
    assert caught.value.message == sentence


@pytest.mark.parametrize("listen", [(), (OWN, "tcp:8080"), ("tcp:8080",), ("unix:/run/seance",)])
def test_a_certificate_is_accepted_with_a_listener_without_one(listen: tuple[str, ...]) -> None:
    RelaySettings(tls_cert="c", tls_key="k", agent_ca="a", listen=listen)


NEED_WSS = "--tls-ca, --tls-cert and --tls-insecure need a --relay with wss://, not ws://."
NEED_TLS = "--local-ca and --local-insecure need a --local with tls://."


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"tls_key": "k", "relay": "wss://h"},
            "--tls-key requires --tls-cert.",
        ),
        ({"tls_ca": "c"}, NEED_WSS),
        ({"tls_cert": "c"}, NEED_WSS),
        ({"tls_insecure": True}, NEED_WSS),
        ({"local_ca": "c"}, NEED_TLS),
        ({"local_insecure": True}, NEED_TLS),
        ({"local_ca": "c", "local": "unix:/x"}, NEED_TLS),
    ],
)
def test_conflicting_agent_options_are_one_message(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AgentSettings(room="r", **options)
    assert caught.value.message == sentence


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        (OWN, True),
        (f"haproxy:{OWN}", True),
        ("tcp:443", False),
        ("haproxy:tcp:443", False),
        ("unix:/run/ssl:x", False),
        ("tcp:443:interface=ssl:", False),
    ],
)
def test_an_endpoint_with_its_own_tls_is_recognised(listen: str, expected: bool) -> None:
    assert has_tls(listen) is expected
