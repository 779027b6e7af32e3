"""The close codes of a carrier; docs/protocol.md, "Close codes", lists them too.

The codes from 4400 on are private to this protocol (RFC 6455, 7.4.2) and resemble HTTP statuses. The close
frame that a relay sends to a *client* belongs to the local server's WebSocket: see
``seance.heads.frame_tracker``.
"""

from __future__ import annotations

import enum

from seance.heads import frame_tracker

__all__ = ["CloseCode"]


class CloseCode(enum.IntEnum):
    """Why a peer closes the carrier. The close frame has a readable reason as well."""

    NORMAL = 1000
    """The link ended normally: the agent moved to another relay. Also the answer to a ``bye``."""

    GOING_AWAY = 1001
    """The agent is stopping."""

    PROTOCOL_ERROR = 1002
    """The peer violated the WebSocket, link control or resumption protocol."""

    UNSUPPORTED_DATA = 1003
    """A peer without link control sent a text message."""

    INVALID_PAYLOAD = 1007
    """A text message or the reason of a close frame is not UTF-8."""

    TOO_BIG = 1009
    """A message is too long."""

    SERVICE_RESTART = frame_tracker.SERVICE_RESTART
    """The relay is stopping."""

    YAMUX_ERROR = 4400
    """The peer violated the yamux protocol."""

    TOKEN_ENDED = 4401
    """The agent's token or certificate has expired or was revoked."""

    DISCONNECTED = 4403
    """An operator of the relay disconnected the agent."""

    PING_TIMEOUT = 4408
    """The peer did not answer a yamux ping."""

    REPLACED = 4409
    """The same agent connected again with another carrier."""

    PEER_ENDED = 4410
    """The peer ended the yamux session with a GoAway that names an error."""
