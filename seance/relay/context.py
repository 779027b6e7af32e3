"""What every part of one relay uses: its clock, settings, verifiers and observer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seance.core.interfaces import IdentityVerifier, Observer, Verifier
    from seance.core.settings import RelaySettings
    from seance.relay.rooms.active_grants import ActiveGrants

__all__ = ["RelayContext"]


@dataclass(slots=True)
class RelayContext:
    """Made by ``Relay`` and passed to the parts of ``relay.edge`` and ``relay.rooms``.

    Attributes:
        reactor: Twisted's reactor.
        settings: The settings of the relay.
        observer: Receives each event.
        verifier: Verifies tokens; None: clients and agents need none.
        identities: Verifies the identity of agents; None: only tokens name agents.
        grants: The sessions that depend on a token or certificate; None if there are neither.
    """

    reactor: Any
    settings: RelaySettings
    observer: Observer
    verifier: Verifier | None
    identities: IdentityVerifier | None
    grants: ActiveGrants | None
