"""The deny list: revoked tokens, subjects and rooms.

A file with one entry in each line: ``jti:ID``, ``sub:NAME`` or ``room:NAME``; a room may end in one ``*``.
Empty lines and lines that start with ``#`` are ignored. Any other line makes the whole file invalid, because
a typing error must not grant access. ``seance.auth.files`` then keeps the previous list.
"""

from __future__ import annotations

from dataclasses import dataclass

from seance.auth.claims import ROOM_PATTERN
from seance.core.interfaces import Grant

__all__ = ["MAX_DENY_FILE_BYTES", "DenyList", "deny_list_from_text"]

MAX_DENY_FILE_BYTES = 1024 * 1024
"""Enough for some thirty thousand entries. Expired tokens can be removed from the list."""

MAX_ROOM_PREFIXES = 256
"""Every session is compared with each prefix every second. Other entries are found by hash."""

MAX_ENTRY_LENGTH = 256


@dataclass(frozen=True, slots=True)
class DenyList:
    """A parsed deny list.

    Attributes:
        token_ids: Denied values of ``jti``.
        subjects: Denied values of ``sub``.
        rooms: Names of denied rooms.
        room_prefixes: Prefixes of names of denied rooms.
    """

    token_ids: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    rooms: frozenset[str] = frozenset()
    room_prefixes: tuple[str, ...] = ()

    def denies_bearer(self, grant: Grant) -> bool:
        """Return whether the token or its subject is denied."""
        return grant.token_id in self.token_ids or grant.subject in self.subjects

    def denies_room(self, room: str) -> bool:
        """Return whether a room is denied."""
        return room in self.rooms or room.startswith(self.room_prefixes)


def deny_list_from_text(text: bytes) -> DenyList:
    """Return the deny list in a file.

    Raises:
        ValueError: The file is invalid. The message is a predicate that follows the file's name.
    """
    found: dict[str, set[str]] = {"jti": set(), "sub": set(), "room": set()}
    try:
        lines = text.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        msg = "is not UTF-8 text"
        raise ValueError(msg) from None
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            kind, _, value = entry.partition(":")
            if kind not in found or not _is_usable(kind, value):
                msg = f"has an invalid entry in line {number}; write jti:ID, sub:NAME or room:NAME"
                raise ValueError(msg)
            found[kind].add(value)
    prefixes = tuple(sorted(room[:-1] for room in found["room"] if room.endswith("*")))
    if len(prefixes) > MAX_ROOM_PREFIXES:
        msg = f"has more than {MAX_ROOM_PREFIXES} rooms that end in *"
        raise ValueError(msg)
    exact = frozenset(room for room in found["room"] if not room.endswith("*"))
    return DenyList(frozenset(found["jti"]), frozenset(found["sub"]), exact, prefixes)


def _is_usable(kind: str, value: str) -> bool:
    if kind == "room":
        return ROOM_PATTERN.fullmatch(value) is not None
    return 1 <= len(value) <= MAX_ENTRY_LENGTH and value.isprintable()
