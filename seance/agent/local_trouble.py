"""Turns a failed dial of the local server into a log line, a status message and a response to the client.

A dial fails for one of two kinds of reasons. If the local server does not accept the connection, the client
gets 502. If the agent's own process or machine has no descriptor, port or memory left, the client gets 503,
and the log names the limit and how to raise it. ``DialLog`` keeps the log short while clients try repeatedly.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import ConnectingCancelledError, DNSLookupError, TimeoutError  # Twisted's own
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.core.local_address import LocalAddress
from seance.errors import Refusal, SeanceError
from seance.heads.refusals import refusal
from seance.net import limit_reached
from seance.net.log_limiter import LogLimiter

__all__ = ["DialLog", "LocalTrouble", "too_many_clients", "trouble_of"]

_AT_LIMIT = refusal("agent_limit")


@dataclass(frozen=True, slots=True)
class LocalTrouble:
    """Why a dial of the local server failed.

    Attributes:
        reason: The kind of failure; the log limiter counts each kind separately.
        message: Message for the log and for status listeners.
        refusal: Response to the client.
    """

    reason: str
    message: str
    refusal: Refusal


def too_many_clients(max_clients: int) -> LocalTrouble:
    """Return the trouble of a client that exceeds the limit of ``max_clients`` clients (``--streams``)."""
    message = (
        f"A client was refused: {max_clients} clients are connected, the limit of this agent (--streams)."
    )
    return LocalTrouble("streams", message, _AT_LIMIT)


def trouble_of(failure: Failure, local: LocalAddress, dial_seconds: float) -> LocalTrouble:
    """Return the trouble that a failed dial of the local server means.

    Args:
        failure: The endpoint's failure.
        local: The local server.
        dial_seconds: Timeout of the dial, in seconds.
    """
    limit = limit_reached(failure.value, local.host if local.kind != "unix" else "")
    if limit is not None:
        message = f"A client was refused: {limit} The local server {local} is not the cause."
        return LocalTrouble("limit", message, _AT_LIMIT)
    reason, why = type(failure.value).__name__, failure.getErrorMessage()
    if isinstance(failure.value, SeanceError):
        reason, message = failure.value.code, why
    else:
        if failure.check(TimeoutError, DeferredTimeoutError, ConnectingCancelledError) is not None:
            reason, why = "timeout", f"no answer within {dial_seconds:g} s."
        elif failure.check(DNSLookupError) is not None:
            reason, why = "name", f"the name {local.host} cannot be resolved."
        message = f"The local server {local} does not take connections: {why}"
    return LocalTrouble(reason, message, refusal("local_server_refused"))


class DialLog:
    """Logs dials of the local server: each change, then at most one line with a count per minute.

    Args:
        reactor: Provides the time.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self._limiter = LogLimiter(reactor)
        self._is_in_trouble = False
        self._refused = 0

    def note(self, trouble: LocalTrouble | None) -> bool:
        """Record one dial; None for one that succeeded.

        Returns:
            Whether to call status listeners: the trouble begins or ends, or a line was logged.
        """
        was_in_trouble, self._is_in_trouble = self._is_in_trouble, trouble is not None
        if trouble is not None:
            self._refused += 1
            line = self._limiter.line(trouble.reason, trouble.message)
            if line is not None:
                self._log.warn("[Agent] {sentence}", sentence=line, event="local.unreachable")
            return line is not None or not was_in_trouble
        if not was_in_trouble:
            return False
        refused, self._refused = self._refused, 0
        if self._limiter.admit("reachable") is not None:
            self._log.info(
                "[Agent] The local server takes connections again; {refused} clients were refused",
                refused=refused,
                event="local.reachable",
            )
        return True
