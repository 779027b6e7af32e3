"""Run one case of a check with a timeout, and turn its failure into a message.

A case returns a message if it passed and raises ``CaseFailed`` or another error if it did not. An error in
one case does not stop the others.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from seance.check.report import Part
from seance.errors import Refusal, SeanceError
from seance.heads import redact
from seance.wsclient import Reactor

__all__ = ["CaseFailed", "expect", "run_case"]

CASE_SECONDS = 60.0
"""Default time limit of a case."""

INTERNAL_ERROR = "Internal error of the check; the traceback is above. Please report it."


class CaseFailed(Exception):
    """A case has failed; the text is its message in the report."""


def expect(holds: bool, message: str) -> None:
    """Raise ``CaseFailed`` with a message unless ``holds``."""
    if not holds:
        raise CaseFailed(message)


async def run_case(
    reactor: Reactor,
    name: str,
    words: str,
    case: Callable[[], Coroutine[Deferred[Any], Any, str]],
    *,
    timeout_seconds: float = CASE_SECONDS,
) -> Part:
    """Run a case and return its result.

    Args:
        reactor: Twisted's reactor.
        name: The name of the part in JSON.
        words: The name of the part in text.
        case: Returns the message of a passed part.
        timeout_seconds: Time limit; a case that takes longer has failed.
    """
    began = time.monotonic()
    passed = False
    try:
        message = await Deferred.fromCoroutine(case()).addTimeout(timeout_seconds, reactor)
        passed = True
    except CancelledError:
        raise
    except DeferredTimeout:
        message = f"It did not finish within {timeout_seconds:g} s."
    except CaseFailed as failed:
        message = str(failed)
    except Refusal as refusal:
        message = f"The response was HTTP {refusal.status}: {refusal}"
    except SeanceError as error:
        message = str(error)[:1].upper() + str(error)[1:].rstrip(".") + "."
    except Exception:  # noqa: BLE001  # a bug of ours: the other cases are useful nevertheless
        sys.stderr.write(redact(traceback.format_exc()))
        message = INTERNAL_ERROR
    return Part(name, words, passed, redact(message), round(time.monotonic() - began, 3))
