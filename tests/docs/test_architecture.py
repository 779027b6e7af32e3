"""docs/architecture.md names files that exist; its list of files and tables of states are generated."""

from __future__ import annotations

import enum
import re

from tests.docs.states import MACHINES, Transitions, render_states, replace_states
from tests.docs.tree import PAGE, replace_tree, tree
from tests.test_layers import LAYERS
from tests.tools import ROOT


def test_the_list_of_files_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    assert tree() in page, "run python -m tests.docs.tree"
    assert replace_tree(page) == page


def test_every_package_is_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    assert [package for package in LAYERS if f"`{package}`" not in page and package != "__main__"] == []


def test_every_file_that_the_page_names_exists() -> None:
    text = PAGE.read_text("utf-8").partition("## The files")[0]
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", text)
    assert len(named) > 30
    roots = (ROOT, ROOT / "seance")
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_the_tables_of_states_are_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    assert re.findall(r"<!-- states: (\S+) -->", page) == list(MACHINES)
    assert replace_states(page) == page, "run python -m tests.docs.tree"


class Door(enum.Enum):
    OPEN = "open"
    SHUT = "shut"


class Push(enum.Enum):
    """How a door is pushed.

    Attributes:
        SOFT: With one
            finger.
        HARD: With a foot.
    """

    SOFT = "soft"
    HARD = "hard"


def test_a_table_of_states_shows_each_state_once_and_meanings_where_there_are_some() -> None:
    table: Transitions = {
        (Door.OPEN, Push.SOFT): Door.SHUT,
        (Door.OPEN, Push.HARD): Door.SHUT,
        (Door.SHUT, Push.HARD): Door.OPEN,
    }
    assert render_states(table).splitlines() == [
        "| state | event → next state |",
        "| --- | --- |",
        "| `open` | `soft`, `hard` → `shut` |",
        "| `shut` | `hard` → `open` |",
        "",
        "| event | meaning |",
        "| --- | --- |",
        "| `soft` | With one finger. |",
        "| `hard` | With a foot. |",
    ]
