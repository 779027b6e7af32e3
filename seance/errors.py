"""Every exception that Seance raises on purpose, as one tree.

::

    SeanceError
    |- ConfigError                an option is wrong; the process exits with 1
    |- ProtocolError              never raised itself
    |  |- LocalProtocolError      our own caller broke a rule
    |  `- RemoteProtocolError     the peer broke a rule; carries the yamux GoAway code
    |- Refusal                    an HTTP answer in place of a 101
    `- Gone                       what we were talking to is no longer there
       |- CarrierLost             the WebSocket between agent and relay ended
       |  `- NegotiationFailed    the relay's 101 selects a subprotocol that cannot be used
       `- StreamReset             one yamux stream was cut by either side

This is not the place for translation: an error is raised where the fact is known and changed
into another kind only where it crosses a floor (``raise ... from``). ``str(error)`` is a
sentence for a person; programs look at the class and at ``code``, never at the text.
"""

from __future__ import annotations

__all__ = [
    "CarrierLost",
    "ConfigError",
    "Gone",
    "LocalProtocolError",
    "NegotiationFailed",
    "ProtocolError",
    "Refusal",
    "RemoteProtocolError",
    "SeanceError",
    "StreamReset",
]


class SeanceError(Exception):
    """The root of the tree.

    Args:
        sentence: What went wrong, where, and what to do about it.
        code: A stable word for logs and metrics, such as ``"window_exceeded"``.
    """

    def __init__(self, sentence: str, *, code: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code


class ConfigError(SeanceError):
    """An option, environment variable or config file entry is wrong."""

    def __init__(self, sentence: str, *, code: str = "config") -> None:
        super().__init__(sentence, code=code)


class ProtocolError(SeanceError):
    """A rule of a protocol was broken; see the two subclasses for by whom."""

    def __new__(cls, *args: object, **kwargs: object) -> ProtocolError:
        """Make one of the two subclasses; this class itself says too little."""
        if cls is ProtocolError:
            msg = "raise LocalProtocolError or RemoteProtocolError: say who broke the rule"
            raise TypeError(msg)
        return super().__new__(cls)


class LocalProtocolError(ProtocolError):
    """Our own caller asked for something that the protocol does not allow now."""


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule.

    Args:
        sentence: What the peer did.
        code: A stable word for logs and metrics.
        goaway: The yamux GoAway code that tells the peer (1 protocol error, 2 internal).
    """

    def __init__(self, sentence: str, *, code: str, goaway: int = 1) -> None:
        super().__init__(sentence, code=code)
        self.goaway = goaway


class Refusal(SeanceError):
    """An upgrade is answered with an HTTP status instead of a 101.

    Args:
        status: The HTTP status, 400 to 599.
        sentence: The whole body of the answer: one sentence that says what to do.
        code: A stable word for logs and metrics.
        headers: Further header fields of the answer, such as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        *,
        code: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(sentence, code=code)
        self.status = status
        self.headers = headers


class Gone(SeanceError):
    """What we were talking to is no longer there."""


class CarrierLost(Gone):
    """The WebSocket between agent and relay ended, or never came up.

    Args:
        sentence: What happened.
        code: A stable word for logs and metrics.
        is_refused: Whether the connection was refused (ECONNREFUSED): no process listens there.
    """

    def __init__(self, sentence: str, *, code: str = "carrier_lost", is_refused: bool = False) -> None:
        super().__init__(sentence, code=code)
        self.is_refused = is_refused


class NegotiationFailed(CarrierLost):
    """The 101 of a relay selects a subprotocol that was not offered, or one that it does not speak.

    Args:
        sentence: Says which subprotocol, for a person.
        code: A stable word for logs and metrics.
        server: The ``Server`` field of the 101; empty without one.
    """

    def __init__(self, sentence: str, *, code: str, server: str) -> None:
        super().__init__(sentence, code=code)
        self.server = server


class StreamReset(Gone):
    """One yamux stream was cut; the others go on."""

    def __init__(self, sentence: str, *, code: str = "stream_reset") -> None:
        super().__init__(sentence, code=code)
