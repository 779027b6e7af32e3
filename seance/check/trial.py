"""Trying one thing: what it is called, how long it may take, and what its failure says.

Every check is a list of such trials. A trial returns a sentence when all was as it should be, and raises
``Failed`` or any other error of ours when it was not; whatever it raises, the others are still made.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from seance.check.report import Part
from seance.errors import Refusal, SeanceError
from seance.heads import redact

__all__ = ["Failed", "attempt", "expect"]

TRIAL_SECONDS = 60.0
"""No trial takes longer, except that of idleness, which says how long it does."""

BROKEN = "The check itself broke; what it said is above. Please report it."


class Failed(Exception):
    """Something was not as it should be; the text is the sentence for the report."""


def expect(holds: bool, sentence: str) -> None:
    """Go on if it is so.

    Raises:
        Failed: It is not.
    """
    if not holds:
        raise Failed(sentence)


async def attempt(
    reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
    name: str,
    words: str,
    trial: Callable[[], Awaitable[str]],
    *,
    timeout_seconds: float = TRIAL_SECONDS,
) -> Part:
    """Make one trial.

    Args:
        reactor: Where time comes from.
        name: Of the part.
        words: Of the part.
        trial: Returns the sentence of a part that has passed.
        timeout_seconds: After that it has failed.
    """
    began = time.monotonic()
    running: Deferred[str] = Deferred.fromCoroutine(_awaited(trial))
    running.addTimeout(timeout_seconds, reactor)
    passed = False
    try:
        sentence = await running
        passed = True
    except CancelledError:
        raise
    except DeferredTimeout:
        sentence = f"It was not over after {timeout_seconds:g} s."
    except Failed as failed:
        sentence = str(failed)
    except Refusal as refusal:
        sentence = f"The answer was HTTP {refusal.status}: {refusal.sentence}"
    except SeanceError as error:
        sentence = error.sentence[:1].upper() + error.sentence[1:].rstrip(".") + "."
    except Exception:  # noqa: BLE001  # a mistake of ours; the other trials are worth having nevertheless
        sys.stderr.write(redact(traceback.format_exc()))
        sentence = BROKEN
    return Part(name, words, passed, redact(sentence), time.monotonic() - began)


async def _awaited(trial: Callable[[], Awaitable[str]]) -> str:
    return await trial()
