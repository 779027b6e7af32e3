"""What a token says of itself, read without a key: who may do what, where, until when.

Nobody can tell here whether it is genuine; the relay can, and is asked (``seance.doctor.runner``). But a
relay says the same to every token that will not do, so as to teach nothing to whoever guesses. Whoever *has*
the token may read it, and most of what goes wrong stands in it. The claims are read by ``seance.auth``'s own
functions, so that what passes here is what a relay would take if its key fits.
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
from seance.doctor.findings import Trouble
from seance.errors import CarrierLost, Refusal

__all__ = ["Paper", "age", "moment", "read_papers"]

RENEW = "Make a new one (seance token --key FILE --room ROOM --role ROLE), or ask whoever made this one."

DAY, HOUR, MINUTE = 86_400, 3_600, 60


@dataclass(frozen=True, slots=True)
class Paper:
    """A token that was read.

    Attributes:
        text: The token itself. Not shown.
        path: Where it is from.
        role: What its bearer may be.
        grant: What it says.
        key_id: The key that it says it is signed with; None if it does not say.
    """

    text: str = field(repr=False)
    path: str
    role: TokenRole
    grant: Grant
    key_id: str | None

    def __str__(self) -> str:
        """Say what it is for, in a few words, without any of its own."""
        rooms = ", ".join(self.grant.rooms[:3]) + (", ..." if len(self.grant.rooms) > 3 else "")
        left = self.grant.expires_at - time.time()
        until = f"good until {moment(self.grant.expires_at)}" + (
            f", for another {age(left)}" if left > 0 else ""
        )
        article = "an" if self.role.value.startswith("a") else "a"
        return f"{article} {self.role.value}'s for {rooms or 'no room'}, {until}"


def read_papers(paths: list[str], room: str, now: float) -> dict[TokenRole, Paper]:
    """Read tokens, and judge them as a relay would that has their keys.

    Args:
        paths: The files.
        room: What they have to be for.
        now: What the relay's clock shows, as far as that is known.

    Returns:
        The last good one of each role.

    Raises:
        Trouble: One cannot be read, or will not do whatever its key is.
    """
    papers: dict[TokenRole, Paper] = {}
    for path in paths:
        paper = _read(path, now)
        if paper.role is TokenRole.ADMIN:
            raise Trouble(
                f"The token in {path} is an admin's, which lets in neither agents nor clients.",
                "It is for seance status and the dashboard. Name a client's (seance token --key FILE "
                f"--room {room} --role client), or the agent's.",
            )
        if not paper.grant.allows_room(room):
            raise Trouble(f"The token in {path} is not for the room {room}: it is {paper}.", RENEW)
        papers[paper.role] = paper
    return papers


def _read(path: str, now: float) -> Paper:
    try:
        text = TokenSource("", path).read()
    except CarrierLost as error:
        raise Trouble(
            error.sentence, "Name the file that seance token was written to, and see who may read it."
        ) from error
    try:
        key_id = read_header(text).key_id
        payload = urlsafe_b64decode(text.split(".")[1] + "==")
        claims = object_from_json(payload)
    except (Refusal, ValueError) as error:
        raise Trouble(
            f"What is in {path} is no token of Seance: it is no signed JWT.",
            "It holds one line, as seance token prints it; a link of seance share has the token behind "
            "access_token=.",
        ) from error
    try:
        grant = grant_from_claims(payload, key_id=key_id, now=now)
    except Refusal as refusal:
        raise _will_not_do(refusal.code, path, claims, now) from refusal
    return Paper(text, path, grant.role, grant, key_id)


def _will_not_do(code: str, path: str, claims: dict[str, object], now: float) -> Trouble:
    expires_at = claims.get("exp")
    if code == "token_expired" and isinstance(expires_at, int):
        ago = age(now - expires_at)
        return Trouble(f"The token in {path} has ended: on {moment(expires_at)}, {ago} ago.", RENEW)
    if code == "token_not_yet_valid":
        begins = max(one for name in ("nbf", "iat") if isinstance(one := claims.get(name), int))
        return Trouble(
            f"The token in {path} is not yet valid: it begins at {moment(begins)}, in {age(begins - now)}.",
            "If that is not meant so, the clock of the machine where it was made is ahead, or the relay's "
            "is behind: set both by NTP.",
        )
    if code == "token_audience":
        return Trouble(f"The token in {path} is not for a Seance relay: its audience is another.", RENEW)
    what = code.removeprefix("token_claim_")
    return Trouble(f"The token in {path} lacks its {what!r}, or has it in a form that no relay takes.", RENEW)


def moment(seconds: float) -> str:
    """Write a time of Unix seconds for a person."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "a time that no calendar has"


def age(seconds: float) -> str:
    """Write a length of time for a person: its two greatest units."""
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
