"""Where an agent has its token from: told once, or a file that somebody else keeps fresh.

The file is read again for every dial, and looked at while a link is up, so that whoever renews it
need not tell us. Not the place where a token is understood: to the agent it is a string.
"""

from __future__ import annotations

from pathlib import Path

from seance.errors import CarrierLost

__all__ = ["TokenSource"]

MOST_BYTES = 4096
"""A longer token is refused by every relay of ours."""


class TokenSource:
    """Gives the token for each attempt.

    Args:
        token: The token itself; empty for none.
        path: A file that holds it; empty for none. It counts before ``token``.
    """

    def __init__(self, token: str, path: str) -> None:
        self._token = token
        self._path = path
        self._last = ""

    def read(self) -> str:
        """Return the token as it is now; empty if none was given.

        Raises:
            CarrierLost: The file cannot be used; the next attempt looks again.
        """
        self._last = self._read() if self._path else self._token
        return self._last

    def changed(self) -> str | None:
        """Return the file's token if it is another than the one read last, and usable."""
        if not self._path:
            return None
        before = self._last
        try:
            now = self.read()
        except CarrierLost:
            return None
        return now if now != before else None

    def _read(self) -> str:
        try:
            with Path(self._path).open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except OSError as error:
            sentence = f"The token file {self._path} cannot be read: {error.strerror}."
            raise CarrierLost(sentence, code="token_file") from error
        token = content.strip()
        if not token or len(token) > MOST_BYTES or not token.isascii() or not token.decode().isprintable():
            sentence = (
                f"The token file {self._path} does not hold a token: one line, as seance token prints it."
            )
            raise CarrierLost(sentence, code="token_file")
        return token.decode()
