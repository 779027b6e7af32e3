"""Converts the claims of a token to a ``Grant``, or refuses them.

The caller has verified the signature. The claims are parsed strictly nevertheless, because tokens may be
signed by other programs, and a claim that two programs read differently is a security hole. The time is an
argument. PyJWT's own checks are not used: they read the clock, accept a number for some strings, and accept a
name that occurs twice in an object.

==========  ========================================================================================
``aud``     ``seance-relay``, as a string or a list with this entry only. Any other audience that
            receives the token could use it here.
``exp``     required; whole Unix seconds. ``nbf`` and ``iat`` have the same form and are optional.
``role``    required; ``agent``, ``client`` or ``admin``.
``room``    a name or a list of names, each with at most one ``*``, at its end. Missing means none.
``sub``     the bearer; ``jti`` the token's ID; ``agt`` the agent that owns the rooms.
``org``     origins of web pages that may use the token; missing means any, an empty list none.
``max``     an object with ``clients`` and ``bps`` (bytes per second), each optional.
==========  ========================================================================================

Other claims are ignored, as RFC 7519, section 4 requires.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from seance.auth.strict_json import object_from_json
from seance.core.interfaces import Grant, TokenRole
from seance.errors import Refusal
from seance.heads.refusals import refusal

__all__ = ["AUDIENCE", "CLOCK_SKEW_SECONDS", "ROOM_PATTERN", "grant_from_claims"]

AUDIENCE = "seance-relay"

CLOCK_SKEW_SECONDS = 30
"""How far the clock of the issuer may be ahead, for ``nbf`` and ``iat``. It is not applied to ``exp``: a
session ends at the second that its token names."""

LAST_SECOND = 253_402_300_799
"""The end of the year 9999. The issuer decides how long tokens are valid."""

ROOM_PATTERN = re.compile(r"[A-Za-z0-9._~-]{1,128}|[A-Za-z0-9._~-]{0,127}\*")
ORIGIN = re.compile(r"https?://([a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?")

MAX_ROOMS = 64
MAX_ORIGINS = 16
MAX_TEXT_LENGTH = 256
MAX_NUMBER = 2**53 - 1
"""The largest integer that all JSON parsers represent exactly (RFC 8259, section 6)."""


def grant_from_claims(payload: bytes, *, key_id: str | None, now: float) -> Grant:
    """Return the grant that the claims describe.

    Args:
        payload: The signed bytes; the caller has verified the signature and limited the length.
        key_id: Name of the key that signed them.
        now: Unix seconds.

    Raises:
        Refusal: 401; its ``code`` names the problem.
    """
    try:
        claims = object_from_json(payload)
    except ValueError:
        raise refusal("token_claims") from None
    _check_audience(claims)
    expires_at = _check_times(claims, now)
    return Grant(
        role=_role(claims),
        rooms=_strings(claims, "room", ROOM_PATTERN, MAX_ROOMS) or (),
        expires_at=expires_at,
        subject=_text(claims, "sub"),
        token_id=_text(claims, "jti"),
        key_id=key_id,
        origins=_strings(claims, "org", ORIGIN, MAX_ORIGINS),
        max_clients=_limit(claims, "clients"),
        max_bytes_per_second=_limit(claims, "bps"),
        agent_identity=_text(claims, "agt"),
    )


def _check_audience(claims: Mapping[str, object]) -> None:
    if claims.get("aud") not in (AUDIENCE, [AUDIENCE]):
        raise refusal("token_audience")


def _check_times(claims: Mapping[str, object], now: float) -> int:
    expires_at = _seconds(claims, "exp")
    if expires_at is None:
        raise _wrong("exp")
    if expires_at <= now:
        raise refusal("token_expired")
    for name in ("nbf", "iat"):
        begins_at = _seconds(claims, name)
        if begins_at is not None and begins_at > now + CLOCK_SKEW_SECONDS:
            raise refusal("token_not_yet_valid")
    return expires_at


def _seconds(claims: Mapping[str, object], name: str) -> int | None:
    return _number(claims, name, minimum=0, maximum=LAST_SECOND)


def _role(claims: Mapping[str, object]) -> TokenRole:
    role = claims.get("role")
    for one in TokenRole:
        if role == one.value:
            return one
    raise _wrong("role")


def _text(claims: Mapping[str, object], name: str) -> str | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT_LENGTH:
        raise _wrong(name)
    # Surrogates are not printable, and could not be encoded for a log. A value with spaces at its ends
    # could not be written into a deny list.
    if not value.isprintable() or value != value.strip():
        raise _wrong(name)
    return value


def _strings(
    claims: Mapping[str, object], name: str, form: re.Pattern[str], maximum: int
) -> tuple[str, ...] | None:
    if name not in claims:
        return None
    value = claims[name]
    values = value if isinstance(value, list) else [value]
    if len(values) > maximum or not all(isinstance(one, str) and form.fullmatch(one) for one in values):
        raise _wrong(name)
    return tuple(values)


def _limit(claims: Mapping[str, object], name: str) -> int | None:
    limits = claims.get("max", {})
    if not isinstance(limits, dict):
        raise _wrong("max")
    return _number(limits, name, minimum=1, maximum=MAX_NUMBER)


def _number(claims: Mapping[str, object], name: str, *, minimum: int, maximum: int) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    # ``isinstance`` would accept True. Floats such as 1.5 or 1e400 are not accepted either.
    if type(value) is not int or not minimum <= value <= maximum:
        raise _wrong(name)
    return value


def _wrong(name: str) -> Refusal:
    return refusal(f"token_claim_{name}")
