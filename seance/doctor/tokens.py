"""Reads the claims of a token without its key: role, rooms, expiry.

Only the relay can verify the signature. Its response does not say why it rejects a token, to give no
information to an attacker, but the claims show most causes: another room, an expired token, another role. The
claims are checked by ``seance.auth``'s functions, as in a relay.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field

from seance.agent.token_source import TokenSource
from seance.auth.claims import grant_from_claims
from seance.auth.strict_json import object_from_json
from seance.auth.verifier import read_header
from seance.core.interfaces import Grant, TokenRole
from seance.doctor.findings import HopFailed
from seance.errors import CarrierLost, Refusal

__all__ = ["ParsedToken", "format_duration", "format_time", "read_tokens"]

RENEW = "Create a new one (seance token --key FILE --room ROOM --role ROLE), or request one from its issuer."

DAY, HOUR, MINUTE = 86_400, 3_600, 60


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """A token and its claims.

    Attributes:
        text: The token; not in ``repr`` and ``str``.
        path: The file.
        role: The role of the bearer.
        grant: The permissions of the token.
        key_id: The ID of the key that signed it; None if the token has none.
    """

    text: str = field(repr=False)
    path: str
    role: TokenRole
    grant: Grant
    key_id: str | None

    def __str__(self) -> str:
        """Return role, rooms and expiry in a few words, without the token."""
        rooms = ", ".join(self.grant.rooms[:3]) + (", ..." if len(self.grant.rooms) > 3 else "")
        left = self.grant.expires_at - time.time()
        until = f"valid until {format_time(self.grant.expires_at)}" + (
            f", for another {format_duration(left)}" if left > 0 else ""
        )
        article = "an" if self.role.value.startswith("a") else "a"
        return f"{article} {self.role.value}'s token for {rooms or 'no room'}, {until}"


def read_tokens(paths: list[str], room: str, now: float) -> dict[TokenRole, ParsedToken]:
    """Read tokens and check everything but their signatures.

    Args:
        paths: The files.
        room: The room that the tokens must permit.
        now: The relay's time in Unix seconds, as far as it is known.

    Returns:
        The last token of each role.

    Raises:
        HopFailed: A file cannot be read, or its token is invalid with any key.
    """
    tokens: dict[TokenRole, ParsedToken] = {}
    for path in paths:
        token = _read(path, now)
        if token.role is TokenRole.ADMIN:
            raise HopFailed(
                f"The token in {path} is an admin's token, which is not valid for agents or clients.",
                "It is for seance status and the dashboard. Give a client's token (seance token --key FILE "
                f"--room {room} --role client), or the agent's.",
            )
        if not token.grant.allows_room(room):
            raise HopFailed(f"The token in {path} is not for the room {room}: it is {token}.", RENEW)
        tokens[token.role] = token
    return tokens


def _read(path: str, now: float) -> ParsedToken:
    try:
        text = TokenSource("", path).read()
    except CarrierLost as error:
        raise HopFailed(
            str(error), "Give the file with the output of seance token, and check its permissions."
        ) from error
    try:
        key_id = read_header(text).key_id
        payload = urlsafe_b64decode(text.split(".")[1] + "==")
        claims = object_from_json(payload)
    except (Refusal, ValueError) as error:
        raise HopFailed(
            f"The file {path} does not contain a token of Seance: it is not a signed JWT.",
            "The file must contain one line, as printed by seance token. In a link of seance share, the "
            "token follows access_token=.",
        ) from error
    try:
        grant = grant_from_claims(payload, key_id=key_id, now=now)
    except Refusal as refusal:
        raise _invalid(refusal.code, path, claims, now) from refusal
    return ParsedToken(text, path, grant.role, grant, key_id)


def _invalid(code: str, path: str, claims: dict[str, object], now: float) -> HopFailed:
    expires_at = claims.get("exp")
    if code == "token_expired" and isinstance(expires_at, int):
        ago = format_duration(now - expires_at)
        return HopFailed(f"The token in {path} expired on {format_time(expires_at)}, {ago} ago.", RENEW)
    if code == "token_not_yet_valid":
        begins = max(time for name in ("nbf", "iat") if isinstance(time := claims.get(name), int))
        return HopFailed(
            f"The token in {path} is not valid before {format_time(begins)}, in "
            f"{format_duration(begins - now)}.",
            "If this is not intended, the clock of the machine that issued it is ahead, or the relay's is "
            "behind: set both with NTP.",
        )
    if code == "token_audience":
        return HopFailed(
            f"The token in {path} is not for a Seance relay: its audience (aud) is different.", RENEW
        )
    claim = code.removeprefix("token_claim_")
    return HopFailed(f"The claim {claim!r} of the token in {path} is missing or invalid.", RENEW)


def format_time(seconds: float) -> str:
    """Format Unix seconds as a UTC date and time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "a time out of range"


def format_duration(seconds: float) -> str:
    """Format a duration with its two largest units."""
    left = max(int(seconds), 0)
    for unit, smaller, name, small in (
        (DAY, HOUR, "d", "h"),
        (HOUR, MINUTE, "h", "min"),
        (MINUTE, 1, "min", "s"),
    ):
        if left >= unit:
            rest = left % unit // smaller
            return f"{left // unit} {name}" + (f" {rest} {small}" if rest else "")
    return f"{left} s"
