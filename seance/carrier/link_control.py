"""Text messages on a carrier: JSON objects with a ``t`` key, for peers that negotiated them.

``token`` renews an agent's token (``seance.relay.rooms.agent_link``), ``drain`` and ``bye`` announce an end,
``ack`` belongs to resumption (``seance.resume.messages``). A peer that negotiates nothing never sees a text
message. A message with an unknown ``t`` is ignored, so that either side may learn new words first. Wire
format: docs/protocol.md.
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
"""Both understand link control, and the link outlives its carriers."""

SUBPROTOCOL = "seance.link.v1"
"""Both understand link control."""

SUBPROTOCOLS = (RESUMABLE, SUBPROTOCOL)
"""What our agent offers and our relay selects from, best first."""

MAX_TEXT_BYTES = 16 * 1024
"""The longest text message that is read; longer ones end the carrier with 1009."""


def choose_subprotocol(offers: Sequence[str], *, may_resume: bool) -> str | None:
    """Return the best of what a peer offers; None makes it a plain one.

    Args:
        offers: Names of subprotocols.
        may_resume: Whether we keep links whose carrier is lost.
    """
    for name in SUBPROTOCOLS:
        if name in offers and (may_resume or name != RESUMABLE):
            return name
    return None


def parse_control(payload: bytes) -> dict[str, object]:
    """Read one text message.

    Returns:
        The object; its ``t`` says what it is.

    Raises:
        RemoteProtocolError: It is not a JSON object with a string under ``t``.
    """
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as error:
        sentence = "A text message on a carrier must be JSON"
        raise RemoteProtocolError(sentence, code="link_control_malformed") from error
    if not isinstance(message, dict) or not isinstance(message.get("t"), str):
        sentence = "A text message on a carrier must be a JSON object with a string under 't'"
        raise RemoteProtocolError(sentence, code="link_control_malformed")
    return message
