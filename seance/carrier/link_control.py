"""Text messages on a carrier: JSON objects with a ``t`` key, for peers that negotiated them.

One word exists: ``token``, with which an agent renews its token (``seance.tunnel.link``). Further ones
(acknowledgements, drain notices) need no change of the handshake, and a peer that negotiates
nothing never sees a text message. A message with an unknown
``t`` is ignored, so that either side may learn new words first. Wire format: docs/protocol.md.
"""

from __future__ import annotations

import json

from seance.errors import RemoteProtocolError

__all__ = ["MAX_TEXT_BYTES", "SUBPROTOCOL", "parse_control"]

SUBPROTOCOL = "seance.link.v1"
"""Offered by our agent, selected by our relay: both understand link control."""

MAX_TEXT_BYTES = 16 * 1024
"""The longest text message that is read; longer ones end the carrier with 1009."""


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
