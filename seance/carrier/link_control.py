"""Link control: text messages on a carrier. Each is a JSON object with the message type under ``t``.

``token`` renews an agent's token (``seance.relay.rooms.agent_link``), ``drain`` and ``bye`` announce an end,
``ack`` belongs to resumption (``seance.resume.messages``). Only peers that negotiated a subprotocol receive
text messages. An unknown type is ignored, so either side can be upgraded first. Wire format:
docs/protocol.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from seance.errors import RemoteProtocolError

__all__ = [
    "MAX_TEXT_BYTES",
    "RESUMABLE",
    "SUBPROTOCOL",
    "SUBPROTOCOLS",
    "choose_subprotocol",
    "parse_control",
]

RESUMABLE = "seance.resume.v1"
"""Subprotocol: link control and resumption, so a link lasts longer than its carriers."""

SUBPROTOCOL = "seance.link.v1"
"""Subprotocol: link control without resumption."""

SUBPROTOCOLS = (RESUMABLE, SUBPROTOCOL)
"""The subprotocols that the agent offers and the relay selects from, best first."""

MAX_TEXT_BYTES = 16 * 1024
"""Maximum length of a received text message; a longer one closes the carrier with 1009."""


def choose_subprotocol(offers: Sequence[str], *, may_resume: bool) -> str | None:
    """Return the best subprotocol that a peer offers; None for a plain peer, which offers none of ours.

    Args:
        offers: Names of subprotocols.
        may_resume: Whether this side keeps a link whose carrier is lost.
    """
    for name in SUBPROTOCOLS:
        if name in offers and (may_resume or name != RESUMABLE):
            return name
    return None


def parse_control(payload: bytes) -> dict[str, object]:
    """Parse one text message.

    Returns:
        The JSON object.

    Raises:
        RemoteProtocolError: The message is not a JSON object with a string under ``t``.
    """
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as error:
        text = "A text message on a carrier must be JSON"
        raise RemoteProtocolError(text, code="link_control_malformed") from error
    if not isinstance(message, dict) or not isinstance(message.get("t"), str):
        text = "A text message on a carrier must be a JSON object with a string under 't'"
        raise RemoteProtocolError(text, code="link_control_malformed")
    return message
