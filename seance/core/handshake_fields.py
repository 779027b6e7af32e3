"""Names of the header fields in the handshake between agent and relay (docs/protocol.md)."""

from __future__ import annotations

from typing import Final

__all__ = ["AGENT_FIELD", "LOCAL_FIELD", "NONCE_FIELD", "REPLACE_FIELD"]

AGENT_FIELD: Final = "Seance-Agent"
"""Request: the agent's public key, and a proof of identity if the agent has a nonce of this relay."""

NONCE_FIELD: Final = "Seance-Nonce"
"""Response: the nonce that the agent's next proof has to sign."""

REPLACE_FIELD: Final = "Seance-Replace"
"""``no`` in a request: do not replace a process with the same key. ``no`` in a response: another process with
this key has taken the room."""

LOCAL_FIELD: Final = "Seance-Local"
"""Request and response: facts about the local server, see ``seance.core.local_info``."""
