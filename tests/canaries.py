"""Every output of the suite is searched for tokens: logged events, and the output of processes.

Tokens are found by their form: a JWT, or the text behind ``seance.token.``. ``tests/conftest.py`` checks
every event logged in the test process, ``tests/processes.py`` every line of the processes that tests start.
``tests/attacks/test_canary.py`` sends tokens in each place where one may be.
"""

from __future__ import annotations

import re

__all__ = ["tokens_in"]

_TOKEN = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}|seance\.token\.(?!\*|\.\.\.|…|<)\w[^\s\"',]{7,}", re.ASCII)


def tokens_in(text: str) -> list[str]:
    """Return the beginnings of all tokens in an output; only beginnings, because the result is shown too."""
    return [found[:12] for found in _TOKEN.findall(text)]
