"""Who is in a document and what they tell about themselves, after ``awareness.js`` of y-protocols.

Pure. ``seance.yserver.document`` keeps one for each document. A state here belongs to the
connection that brought its newest clock, and goes at once when that connection does; so there is
no timer, and no ghost that outlives its window by half a minute. Ownership follows the newest
clock because stock clients send *every* state they hear of back to the server (yjs.md, fact 9):
such an echo is never newer, so it moves nothing, whereas a client that reconnects before its old
connection is known to be dead takes its own state along.

The clock of an editor that left is remembered for a while, or the echo of somebody who has not
heard of the departure yet would raise the dead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Generic, NoReturn, TypeVar

from seance.errors import RemoteProtocolError
from seance.yserver.limits import YServerLimits
from seance.yserver.messages import ClientState

__all__ = ["GONE", "Awareness"]

GONE = "null"
"""The state of an editor that has left."""

MAX_DEPARTED = 1024
"""Departed editors whose clocks are remembered, the latest ones."""

Owner = TypeVar("Owner")


class Awareness(Generic[Owner]):
    """The states of one document.

    Args:
        limits: The server's.
    """

    def __init__(self, limits: YServerLimits) -> None:
        self._limits = limits
        self._states: dict[int, ClientState] = {}
        self._owners: dict[int, Owner] = {}
        self._departed: dict[int, ClientState] = {}

    def __len__(self) -> int:
        return len(self._states)

    def states(self) -> tuple[ClientState, ...]:
        """Everybody who is here."""
        return tuple(self._states.values())

    def known_ids(self) -> set[int]:
        """Everybody who is here or is remembered to have left."""
        return self._states.keys() | self._departed.keys()

    def states_of(self, client_ids: Iterable[int]) -> tuple[ClientState, ...]:
        """What is known of some editors, the departed ones among them."""
        known = (self._states.get(one) or self._departed.get(one) for one in client_ids)
        return tuple(state for state in known if state is not None)

    def apply(self, states: Iterable[ClientState], owner: Owner) -> tuple[ClientState, ...]:
        """Take in what a connection says.

        Returns:
            The states that are news. Tell them to everybody, the sender too: a stock client that
            hears nothing for 30 s takes its connection for dead.

        Raises:
            RemoteProtocolError: A state is not JSON, too big, or one too many. What came before
                it has been taken in.
        """
        return tuple(state for state in states if self._apply(state, owner))

    def leave(self, owner: Owner) -> tuple[ClientState, ...]:
        """Drop what a connection brought; returns what to tell the others."""
        gone = [client_id for client_id, other in self._owners.items() if other == owner]
        return tuple(self._remove(client_id, self._states[client_id].clock) for client_id in gone)

    def _apply(self, state: ClientState, owner: Owner) -> bool:
        client_id = state.client_id
        known = self._states.get(client_id) or self._departed.get(client_id)
        clock = -1 if known is None else known.clock
        is_here = client_id in self._states
        if state.state == GONE:
            if is_here and state.clock >= clock:
                self._remove(client_id, state.clock)
                return True
            return False
        if state.clock <= clock:
            return False
        if not is_here and len(self._states) >= self._limits.states:
            sentence = f"This document has {len(self._states)} editors already; no more are taken."
            raise RemoteProtocolError(sentence, code="too_many_states")
        _check_json(state.state, self._limits.state_bytes)
        self._departed.pop(client_id, None)
        self._states[client_id] = state
        self._owners[client_id] = owner
        return True

    def _remove(self, client_id: int, clock: int) -> ClientState:
        del self._states[client_id], self._owners[client_id]
        gone = self._departed[client_id] = ClientState(client_id, clock, GONE)
        if len(self._departed) > MAX_DEPARTED:
            del self._departed[next(iter(self._departed))]
        return gone


def _check_json(text: str, limit_bytes: int) -> None:
    """Refuse what would make ``JSON.parse`` of every other client throw."""
    if len(text.encode()) > limit_bytes:
        sentence = f"An awareness state has more than {limit_bytes} bytes."
        raise RemoteProtocolError(sentence, code="state_too_big")
    try:
        json.loads(text, parse_constant=_refuse_constant, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("An awareness state is not JSON.", code="bad_message") from error


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)
