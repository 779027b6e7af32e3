"""The owner of a room: while its agent is connected, and in the grace time afterwards."""

from __future__ import annotations

import pytest

from seance.errors import Refusal
from seance.relay.rooms import room_table as rooms_module
from seance.relay.rooms.room_table import RoomTable


def refused(rooms: RoomTable[str], room: str, link: str, **who: object) -> str:
    with pytest.raises(Refusal) as refusal:
        rooms.claim(room, link, **who)  # type: ignore[arg-type]
    assert refusal.value.status == 409
    return refusal.value.code


def test_the_same_identity_replaces_its_link_immediately() -> None:
    rooms: RoomTable[str] = RoomTable()
    assert rooms.claim("r", "old", identity="a") is None
    assert rooms.claim("r", "new", identity="a") == "old"
    assert rooms.find("r") == "new"
    rooms.release("r", "old")
    assert rooms.find("r") == "new"


@pytest.mark.parametrize("identity", [None, "b"])
def test_another_identity_is_refused_while_the_first_is_connected(identity: str | None) -> None:
    rooms: RoomTable[str] = RoomTable()
    rooms.claim("r", "first", identity="a")
    assert refused(rooms, "r", "second", identity=identity) == "room_taken"


def test_an_agent_without_identity_never_replaces_another() -> None:
    rooms: RoomTable[str] = RoomTable()
    rooms.claim("r", "first")
    assert refused(rooms, "r", "second") == "room_taken"


def test_a_room_is_reserved_for_its_owner_for_the_grace_time() -> None:
    rooms: RoomTable[str] = RoomTable(grace_seconds=60.0)
    rooms.claim("r", "first", identity="a", now=0.0)
    rooms.release("r", "first", now=100.0)
    assert refused(rooms, "r", "second", identity="b", now=159.9) == "room_reserved"
    assert refused(rooms, "r", "second", now=159.9) == "room_reserved"
    with pytest.raises(Refusal, match="agent not connected"):
        rooms.find("r")
    assert rooms.claim("r", "again", identity="a", now=159.9) is None
    assert rooms.find("r") == "again"


def test_a_room_is_free_after_the_grace_time() -> None:
    rooms: RoomTable[str] = RoomTable(grace_seconds=60.0)
    rooms.claim("r", "first", identity="a", now=0.0)
    rooms.release("r", "first", now=100.0)
    assert rooms.claim("r", "second", identity="b", now=160.0) is None


def test_a_room_of_an_agent_without_identity_is_free_immediately() -> None:
    rooms: RoomTable[str] = RoomTable()
    rooms.claim("r", "first")
    rooms.release("r", "first")
    assert rooms.claim("r", "second", identity="b") is None


def test_reservations_are_limited_and_the_oldest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms_module, "MAX_RESERVED", 2)
    rooms: RoomTable[str] = RoomTable()
    for room in ("r1", "r2", "r3"):
        rooms.claim(room, room, identity="a", now=0.0)
        rooms.release(room, room, now=0.0)
    assert rooms.claim("r1", "b", identity="b", now=1.0) is None
    assert refused(rooms, "r2", "b", identity="b", now=1.0) == "room_reserved"


def test_expired_reservations_are_removed() -> None:
    rooms: RoomTable[str] = RoomTable(grace_seconds=1.0)
    for number in range(3):
        rooms.claim(f"r{number}", "x", identity="a", now=number * 10.0)
        rooms.release(f"r{number}", "x", now=number * 10.0)
    assert list(rooms._reserved) == ["r2"]


def test_a_room_is_known_for_a_while_after_its_agent_disconnected() -> None:
    rooms: RoomTable[str] = RoomTable(known_seconds=600.0)
    assert rooms.since("r", 0.0) is None
    rooms.claim("r", "nameless", now=1.0)
    assert rooms.since("r", 5000.0) == 1.0
    rooms.release("r", "nameless", now=5000.0)
    assert rooms.get("r") is None
    assert rooms.since("r", 5599.0) == 5000.0
    assert rooms.since("r", 5600.0) is None


def test_a_known_room_is_not_reserved() -> None:
    rooms: RoomTable[str] = RoomTable()
    rooms.claim("r", "nameless", now=0.0)
    rooms.release("r", "nameless", now=1.0)
    assert rooms.claim("r", "stranger", identity="b", now=1.0) is None


def test_a_failed_link_does_not_change_the_known_rooms() -> None:
    rooms: RoomTable[str] = RoomTable()
    rooms.claim("r", "stillborn", now=0.0)
    rooms.release("r", "stillborn", now=1.0, was_served=False)
    assert rooms.since("r", 1.0) is None
    rooms.claim("r", "first", now=2.0)
    rooms.release("r", "first", now=3.0)
    rooms.claim("r", "stillborn", now=4.0)
    rooms.release("r", "stillborn", now=5.0, was_served=False)
    assert rooms.since("r", 5.0) == 3.0


def test_known_rooms_are_limited_and_the_oldest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms_module, "MAX_KNOWN", 2)
    rooms: RoomTable[str] = RoomTable()
    for now, room in enumerate(("r1", "r2", "r3")):
        rooms.claim(room, room, now=float(now))
        rooms.release(room, room, now=float(now))
    assert [rooms.since(room, 3.0) for room in ("r1", "r2", "r3")] == [None, 1.0, 2.0]


def test_known_rooms_expire_in_the_order_of_disconnection() -> None:
    rooms: RoomTable[str] = RoomTable(known_seconds=10.0)
    for room in ("r1", "r2"):
        rooms.claim(room, room, now=0.0)
    rooms.release("r1", "r1", now=1.0)
    rooms.release("r2", "r2", now=2.0)
    rooms.claim("r1", "again", now=3.0)
    rooms.release("r1", "again", now=11.5)
    assert list(rooms._gone_at) == ["r2", "r1"]
    rooms.claim("r3", "r3", now=12.0)
    rooms.release("r3", "r3", now=12.0)
    assert list(rooms._gone_at) == ["r1", "r3"]


def test_every_change_of_a_room_is_reported() -> None:
    rooms: RoomTable[str] = RoomTable()
    told: list[str] = []
    stop = rooms.on_change(told.append)
    rooms.claim("r", "old", identity="a", now=0.0)
    rooms.note_change("r", "old", 1.0)
    rooms.note_change("r", "somebody else", 2.0)
    assert (told, rooms.since("r", 2.0)) == (["r"] * 2, 1.0)
    rooms.claim("r", "new", identity="a", now=3.0)
    rooms.release("r", "old", now=4.0)
    rooms.release("r", "new", now=5.0)
    assert told == ["r"] * 4
    stop()
    stop()
    rooms.claim("r", "new", identity="a", now=6.0)
    assert told == ["r"] * 4
