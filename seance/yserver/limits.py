"""How much an embedded Y-WebSocket server takes on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["YServerLimits"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class YServerLimits:
    """The bounds of a ``YServer``; whoever runs into one is refused, the others go on.

    Without a store a document stays in memory until the process ends, once something was written
    into it, so that everybody may leave and come back. Memory is then bounded by ``documents``
    times ``document_bytes`` (Yjs needs several times that while a document is open).

    Attributes:
        clients: Connections at a time; the next one is answered 503.
        documents: Documents, open or kept; a new name beyond that is answered 503.
        document_bytes: One document as an update. yjs.md, section 3, row 5: a state is 1 to 3
            times its text, so this is a text of some ten thousand pages.
        message_bytes: One WebSocket message. A whole document must fit, since sync step 2 is one
            message.
        name_bytes: The path of a document, without the slash in front.
        states: Editors in one document that tell the others about themselves.
        state_bytes: What one of them tells, as JSON. A cursor and a name are 300 bytes; some apps
            add a small picture.
    """

    clients: int = 256
    documents: int = 64
    document_bytes: int = 32 * MIB
    message_bytes: int = 32 * MIB
    name_bytes: int = 512
    states: int = 512
    state_bytes: int = 16 * KIB
