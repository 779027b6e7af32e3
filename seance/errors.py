"""The exceptions that Seance raises, as one tree.

::

    SeanceError
    |- ConfigError                an option is wrong; the process exits with 1
    |- ProtocolError              abstract
    |  |- LocalProtocolError      the caller broke a rule of the protocol
    |  `- RemoteProtocolError     the peer broke a rule; has the yamux GoAway code
    |- Refusal                    an HTTP error response in place of a 101
    `- Gone                       the peer disconnected or cannot be reached
       `- CarrierLost             the WebSocket between agent and relay ended
          `- NegotiationFailed    the relay's 101 selects a subprotocol that cannot be used

An error is raised by the code that detects it. It is converted to another class only at the
border of a layer (``raise ... from``). ``str(error)`` is the message for the user; programs check
the class and ``code``, never the text.
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
]


class SeanceError(Exception):
    """Base class of all errors.

    Args:
        message: Message for the user: what happened, where, and what to do.
        code: Stable identifier for logs and metrics, such as ``"window_exceeded"``.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class ConfigError(SeanceError):
    """An option, environment variable or config file entry is wrong."""

    def __init__(self, message: str, *, code: str = "config") -> None:
        super().__init__(message, code=code)


class ProtocolError(SeanceError):
    """A rule of a protocol was broken. Raise one of the two subclasses."""

    def __new__(cls, *args: object, **kwargs: object) -> ProtocolError:
        """Reject instances of this class itself."""
        if cls is ProtocolError:
            msg = "ProtocolError is abstract; raise LocalProtocolError or RemoteProtocolError"
            raise TypeError(msg)
        return super().__new__(cls)


class LocalProtocolError(ProtocolError):
    """The caller requested something that the protocol does not allow in the current state."""


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule.

    Args:
        message: Describes the violation.
        code: See ``SeanceError``.
        goaway: The yamux GoAway code to send to the peer (1 protocol error, 2 internal error).
    """

    def __init__(self, message: str, *, code: str, goaway: int = 1) -> None:
        super().__init__(message, code=code)
        self.goaway = goaway


class Refusal(SeanceError):
    """A request is refused with an HTTP error response.

    Args:
        status: The HTTP status, 400 to 599.
        message: Body of the response: one message that says what to do.
        code: See ``SeanceError``.
        headers: Further header fields of the response, such as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.headers = headers


class Gone(SeanceError):
    """The peer disconnected or cannot be reached."""


class CarrierLost(Gone):
    """The WebSocket between agent and relay ended or could not be opened.

    Args:
        message: What happened.
        code: See ``SeanceError``.
        is_refused: Whether the connection was refused (ECONNREFUSED): no process listens there.
    """

    def __init__(self, message: str, *, code: str = "carrier_lost", is_refused: bool = False) -> None:
        super().__init__(message, code=code)
        self.is_refused = is_refused


class NegotiationFailed(CarrierLost):
    """The 101 of a relay selects a subprotocol that was not offered or that the relay does not support.

    Args:
        message: Names the subprotocol.
        code: See ``SeanceError``.
        server: The ``Server`` field of the 101, or an empty string.
    """

    def __init__(self, message: str, *, code: str, server: str) -> None:
        super().__init__(message, code=code)
        self.server = server
