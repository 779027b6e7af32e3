"""Looks after one carrier: asks for a sign of life, and cuts it when none comes.

The rule is ``seance.resume.Heartbeat``; here are the timer, the ping and the cut. Pings are WebSocket
pings, which every implementation answers, so this works towards plain peers too. The relay looks after
its carriers with one, and the agent with another: either may be the first to notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from seance.carrier.transport import Carrier
from seance.resume import CHECK_SECONDS, Heartbeat, HeartbeatAction

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["Pulse"]


class Pulse:
    """The pulse of one open carrier; begins at once. ``stop`` it when the carrier is lost.

    Args:
        reactor: Where time comes from.
        carrier: The carrier.
        is_owed: Whether the peer has something to acknowledge; a plain peer never has.
    """

    def __init__(
        self, reactor: IReactorTime, carrier: Carrier, is_owed: Callable[[], bool] = lambda: False
    ) -> None:
        self._reactor = reactor
        self._carrier = carrier
        self._is_owed = is_owed
        self._heartbeat = Heartbeat(reactor.seconds())
        self._is_probed = False
        self._timer: IDelayedCall | None = reactor.callLater(CHECK_SECONDS, self._look)

    def probe(self) -> None:
        """Ask now, and wait for the answer for two seconds only: something may have happened."""
        if self._timer is not None:
            if not self._is_probed:
                self._carrier.has_heard = False  # what came before is no answer
            self._is_probed = True
            self._carrier.ping()
            self._heartbeat.probe(self._reactor.seconds())

    def stop(self) -> None:
        """The carrier is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._reactor.callLater(CHECK_SECONDS, self._look)
        carrier = self._carrier
        has_heard, carrier.has_heard = carrier.has_heard, False
        self._is_probed = self._is_probed and not has_heard
        beat = self._heartbeat.check(self._reactor.seconds(), has_heard=has_heard, is_owed=self._is_owed())
        if beat is HeartbeatAction.PING:
            carrier.ping()
        elif beat is HeartbeatAction.DEAD:
            self.stop()
            carrier.abortConnection()
