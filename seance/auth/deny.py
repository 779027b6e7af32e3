"""The deny list: tokens, people and rooms that have been taken back.

A file with one entry in each line, ``jti:ID``, ``sub:NAME`` or ``room:NAME``; a room may end in one
``*``. Empty lines and lines that start with ``#`` are for people. A line that is none of these
makes the whole file bad, because a slip of the pen in a list of who is kept out must not
let somebody in; ``seance.auth.files`` then keeps the list of before.
"""

from __future__ import annotations

from dataclasses import dataclass

from seance.auth.claims import ROOM_PATTERN
from seance.core.interfaces import Grant

__all__ = ["LONGEST_DENY_FILE", "DenyList", "deny_list_from_text"]

LONGEST_DENY_FILE = 1024 * 1024
"""Some thirty thousand entries. Tokens that have expired can leave the list."""

MOST_ROOM_BEGINNINGS = 256
"""Every session is compared with each of them every second; all others are looked up."""

LONGEST_ENTRY = 256


@dataclass(frozen=True, slots=True)
class DenyList:
    """What is denied.

    Attributes:
        token_ids: Tokens, by their own name.
        subjects: People, by what their tokens call them.
        rooms: Rooms, by name.
        room_beginnings: Rooms, by how their names begin.
    """

    token_ids: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    rooms: frozenset[str] = frozenset()
    room_beginnings: tuple[str, ...] = ()

    def denies_bearer(self, grant: Grant) -> bool:
        """Whether the token or whom it was made for is denied."""
        return grant.token_id in self.token_ids or grant.subject in self.subjects

    def denies_room(self, room: str) -> bool:
        """Whether nobody may enter a room."""
        return room in self.rooms or room.startswith(self.room_beginnings)


def deny_list_from_text(text: bytes) -> DenyList:
    """Return the list that a file holds.

    Raises:
        ValueError: A line is not understood, with half a sentence.
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
                msg = f"has an entry in line {number} that is none of jti:ID, sub:NAME and room:NAME"
                raise ValueError(msg)
            found[kind].add(value)
    beginnings = tuple(sorted(room[:-1] for room in found["room"] if room.endswith("*")))
    if len(beginnings) > MOST_ROOM_BEGINNINGS:
        msg = f"has more than {MOST_ROOM_BEGINNINGS} rooms that end in *"
        raise ValueError(msg)
    exact = frozenset(room for room in found["room"] if not room.endswith("*"))
    return DenyList(frozenset(found["jti"]), frozenset(found["sub"]), exact, beginnings)


def _is_usable(kind: str, value: str) -> bool:
    if kind == "room":
        return ROOM_PATTERN.fullmatch(value) is not None
    return 1 <= len(value) <= LONGEST_ENTRY and value.isprintable()
