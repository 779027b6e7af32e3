"""Every output of the suite is searched for tokens: what tests log, and what their processes write.

The tokens of a test are known by their look, because no place knows them all: a JWT, or whatever stands
behind ``seance.token.``. ``tests/conftest.py`` asks about every event that is logged in the process of
the tests, ``tests/processes.py`` about every line of every process that they start. What is not there
although it was sent, in each place where a token may travel, is ``tests/attacks/test_canary.py``.
"""

from __future__ import annotations

import re

__all__ = ["tokens_in"]

_TOKEN = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}|seance\.token\.(?!\*|\.\.\.|…|<)\w[^\s\"',]{7,}", re.ASCII)


def tokens_in(text: str) -> list[str]:
    """What looks like a token of ours in an output; only the beginnings, for this is an output too."""
    return [found[:12] for found in _TOKEN.findall(text)]
