"""Who may ask the admin port.

On this machine everybody who has an account may, unless tokens are asked for there too; but a web page may
not, which could reach the port under a name that it made point here (DNS rebinding), so the ``Host``
has to be one of this machine's. From elsewhere it takes a token of role ``admin``, or a certificate.

A token comes as ``Authorization: Bearer``, or as the password of ``Basic``, which is what a browser asks a
person for and then sends along to the same place by itself. So whatever changes something needs a header
field besides, which no page of another origin can send without being allowed to (``CHANGE_FIELD``).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Any

from twisted.internet.defer import TimeoutError  # Twisted's own
from twisted.internet.interfaces import IReactorTime

from seance.core.interfaces import Grant, TokenRole, Verifier
from seance.errors import Refusal
from seance.net import peer_certificate

__all__ = ["CHANGE_FIELD", "EVERYTHING", "Guard", "check_change"]

CHANGE_FIELD = "Seance-Admin"
"""A request that changes something has this field, with any value."""

EVERYTHING = Grant(TokenRole.ADMIN, ("*",), math.inf)
"""What is allowed to whoever needs no token."""

VERIFY_SECONDS = 15.0
LONGEST_AUTHORIZATION = 8192

_OWN_HOST = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)

CHALLENGES = (
    (b"WWW-Authenticate", b'Bearer realm="seance"'),
    (b"WWW-Authenticate", b'Basic realm="seance: any name, and a token of role admin", charset="UTF-8"'),
)


class Guard:
    """Looks at requests.

    Args:
        reactor: Where time comes from.
        verifier: Who judges tokens; None where nobody needs one.
        is_local: Whether only this machine reaches the port.
        asks_for_token: Whether a token is needed.
    """

    def __init__(
        self, reactor: IReactorTime, verifier: Verifier | None, *, is_local: bool, asks_for_token: bool
    ) -> None:
        self._reactor = reactor
        self._verifier = verifier
        self._is_local = is_local
        self._asks_for_token = asks_for_token

    def check_host(self, host: str) -> None:
        """Look whether a request was meant for this machine, where only that can reach the port.

        Raises:
            Refusal: 403, it was not.
        """
        if self._is_local and not _OWN_HOST.fullmatch(host):
            sentence = "This port answers to localhost only; a proxy in front has to say Host: localhost."
            raise Refusal(403, sentence, code="admin_host")

    async def admit(self, authorization: str, transport: object) -> Grant:
        """Say what the one who asks may see.

        Args:
            authorization: The field of that name, or nothing.
            transport: The connection, which may show a certificate.

        Raises:
            Refusal: 401, there is no good token; 403, it is for something else.
        """
        if not self._asks_for_token or peer_certificate(transport) is not None:
            return EVERYTHING
        token = _token_of(authorization)
        if self._verifier is None or not token:
            raise _no_token()
        try:
            deciding = self._verifier.verify(token, TokenRole.ADMIN, "")
            return await deciding.addTimeout(VERIFY_SECONDS, _clock(self._reactor))
        except TimeoutError as error:
            sentence = "Whether this token is good could not be found out in time; try again."
            raise Refusal(503, sentence, code="token_wait") from error
        except Refusal as refusal:
            if refusal.status == 401:
                raise _no_token() from refusal  # what is wrong with it is not for whoever guesses
            raise Refusal(403, refusal.sentence, code="admin_role") from refusal

    def is_still_good(self, grant: Grant) -> bool:
        """Whether what ``admit`` returned would be granted again."""
        return grant is EVERYTHING or (self._verifier is not None and self._verifier.is_still_good(grant))


def check_change(value: str | None) -> None:
    """Look whether a request that changes something may come from a page of another origin.

    Args:
        value: Its ``Seance-Admin`` field.

    Raises:
        Refusal: 403, it may.
    """
    if not value:
        sentence = f"Whatever changes something needs the header field {CHANGE_FIELD}, with any value."
        raise Refusal(403, sentence, code="admin_change")


def _no_token() -> Refusal:
    sentence = "This port takes a good token of role admin, as Authorization: Bearer or as a password."
    return Refusal(401, sentence, code="admin_token", headers=CHALLENGES)


def _token_of(authorization: str) -> str:
    scheme, _, rest = authorization[:LONGEST_AUTHORIZATION].partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _clock(reactor: IReactorTime) -> Any:  # noqa: ANN401  # Twisted wants two interfaces for one clock
    return reactor
