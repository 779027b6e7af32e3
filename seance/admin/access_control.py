"""Authorises requests to the admin port.

On a loopback address every local user has access, unless a token is required there as well. A web page must
not have access: it could reach the port under a domain that it resolves to 127.0.0.1 (DNS rebinding), so
``Host`` must be a loopback name. From other machines, a token of role ``admin`` or a client certificate is
required.

The token is sent as ``Authorization: Bearer``, or as the password of ``Basic``. Browsers send a password to
the same origin automatically, so a request that changes something also needs a header field that a page of
another origin cannot send without permission (``CHANGE_FIELD``).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Any

from twisted.internet.defer import TimeoutError  # Twisted's own
from twisted.internet.interfaces import IReactorTime

from seance.core.interfaces import VERIFY_SECONDS, Grant, TokenRole, Verifier
from seance.errors import Refusal
from seance.heads.refusals import refusal
from seance.net import peer_certificate

__all__ = ["CHANGE_FIELD", "FULL_ACCESS", "AccessControl", "check_change"]

CHANGE_FIELD = "Seance-Admin"
"""A request that changes something must have this header field, with any value."""

FULL_ACCESS = Grant(TokenRole.ADMIN, ("*",), math.inf)
"""The grant of a request that needs no token."""

MAX_AUTHORIZATION_CHARACTERS = 8192

_OWN_HOST = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


class AccessControl:
    """Checks ``Host``, tokens and certificates of requests.

    Args:
        reactor: The clock for the time limit of the verifier.
        verifier: Verifies tokens; None if no token is required.
        is_local: Whether the port listens on a loopback address.
        requires_token: Whether a token or a certificate is required.
    """

    def __init__(
        self, reactor: IReactorTime, verifier: Verifier | None, *, is_local: bool, requires_token: bool
    ) -> None:
        self._reactor = reactor
        self._verifier = verifier
        self._is_local = is_local
        self._requires_token = requires_token

    def check_host(self, host: str) -> None:
        """On a loopback address, check that ``Host`` is a loopback name.

        Raises:
            Refusal: 403 for another name.
        """
        if self._is_local and not _OWN_HOST.fullmatch(host):
            raise refusal("admin_host")

    async def admit(self, authorization: str, transport: object) -> Grant:
        """Return what a request may access.

        Args:
            authorization: The ``Authorization`` field; empty if there is none.
            transport: The connection, which may have a client certificate.

        Raises:
            Refusal: 401 without a valid token, 403 for a token of another role, 503 if the verifier is too
                slow.
        """
        if not self._requires_token or peer_certificate(transport) is not None:
            return FULL_ACCESS
        token = _token_of(authorization)
        if self._verifier is None or not token:
            raise refusal("admin_token")
        try:
            deciding = self._verifier.verify(token, TokenRole.ADMIN, "")
            return await deciding.addTimeout(VERIFY_SECONDS, _clock(self._reactor))
        except TimeoutError as error:
            raise refusal("token_wait.admin") from error
        except Refusal as error:
            if error.status == 401:
                raise refusal("admin_token") from error  # the reason would help an attacker to guess
            raise refusal("admin_role", reason=error) from error

    def is_still_good(self, grant: Grant) -> bool:
        """Whether a grant that ``admit`` returned is still valid."""
        return grant is FULL_ACCESS or (self._verifier is not None and self._verifier.is_still_good(grant))


def check_change(value: str | None) -> None:
    """Check that a request that changes something does not come from a page of another origin.

    Args:
        value: Its ``Seance-Admin`` field; None if there is none.

    Raises:
        Refusal: 403 without the field.
    """
    if not value:
        raise refusal("admin_change", field=CHANGE_FIELD)


def _token_of(authorization: str) -> str:
    scheme, _, rest = authorization[:MAX_AUTHORIZATION_CHARACTERS].partition(" ")
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
