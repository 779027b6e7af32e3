"""What an agent shows and believes when it dials a relay over TLS.

Not the dialling itself: the agent asks this once, and loads what it gets when it starts, so that a file that
cannot be used is told then.
"""

from __future__ import annotations

from seance.carrier import RelayAddress
from seance.core.settings import AgentSettings
from seance.net import ClientTls

__all__ = ["relay_tls"]


def relay_tls(relay: RelayAddress, settings: AgentSettings) -> ClientTls | None:
    """Return how to speak TLS with the relay; None for one that is dialled in plain.

    Raises:
        ConfigError: A relay on another machine is not to be checked.
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
