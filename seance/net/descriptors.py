"""How many files and connections this process may have open at a time.

Shells and service managers give a process a small *soft* limit, 1024 as a rule or the 256 of a Mac, for the
sake of programs that wait with ``select``. Each client is a descriptor, so the doors ask for all that the
*hard* limit allows, unless the reactor is one of those itself. A program that embeds Seance decides that
itself, and the relay lives with what there is.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from twisted.internet.selectreactor import SelectReactor

__all__ = ["descriptor_limit", "raise_descriptor_limit"]

ENOUGH = 1 << 20
"""More is not asked for: there are systems that name a billion, and programs that count up to it."""

SELECT_MOST = 1024
"""``FD_SETSIZE``. A reactor around ``select``, which is Twisted's choice on a Mac, cannot look beyond."""

MAC_MOST = 10_240
"""``OPEN_MAX``: where the hard limit is said to be infinite, this is granted all the same."""


def descriptor_limit() -> int | None:
    """Return how many connections the process can hold, if the system tells.

    A fifth of a small limit, and 200 of a large one, stay for files, agents' local servers,
    listeners and libraries.
    """
    resource = _resource()
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    return int(soft - min(200, soft // 5))


def raise_descriptor_limit(reactor: Any) -> None:  # noqa: ANN401  # whichever there is
    """Raise the soft limit to the hard one, as far as system and reactor let us; before a relay is made."""
    resource = _resource()
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = SELECT_MOST if isinstance(reactor, SelectReactor) else ENOUGH
    if hard != resource.RLIM_INFINITY:
        most = min(hard, most)
    for wanted in (most, min(most, MAC_MOST)):
        if soft == resource.RLIM_INFINITY or wanted <= soft:
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def _resource() -> Any:  # noqa: ANN401  # a module that not every system has
    try:
        return importlib.import_module("resource")
    except ImportError:  # not a UNIX
        return None
