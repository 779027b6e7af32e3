"""The TLS settings with which an agent connects to its relay."""

from __future__ import annotations

from seance.carrier import RelayAddress
from seance.core.settings import AgentSettings
from seance.net import ClientTls

__all__ = ["relay_tls"]


def relay_tls(relay: RelayAddress, settings: AgentSettings) -> ClientTls | None:
    """Return the TLS settings for the relay; None for a ``ws://`` relay.

    The agent loads the files when it starts, so that a file that cannot be used is reported then.

    Raises:
        ConfigError: ``tls_insecure`` is set for a relay on another machine.
    """
    if not relay.is_secure:
        return None
    return ClientTls(
        relay.host,
        ca_file=settings.tls_ca,
        cert_file=settings.tls_cert,
        key_file=settings.tls_key,
        insecure=settings.tls_insecure,
    )
