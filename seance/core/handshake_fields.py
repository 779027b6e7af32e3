"""The header fields of an agent's handshake, which both ends read and write (docs/protocol.md)."""

from __future__ import annotations

from typing import Final

__all__ = ["AGENT_FIELD", "LOCAL_FIELD", "NONCE_FIELD", "REPLACE_FIELD"]

AGENT_FIELD: Final = "Seance-Agent"
"""Request: the agent's public key, with its proof if it has a nonce of this relay."""

NONCE_FIELD: Final = "Seance-Nonce"
"""Answer: the nonce that the next proof has to sign."""

REPLACE_FIELD: Final = "Seance-Replace"
"""``no`` in a request: do not replace the same agent. In an answer: another process has taken the room."""

LOCAL_FIELD: Final = "Seance-Local"
"""Both: facts about the local server, see ``seance.core.local_info``."""
