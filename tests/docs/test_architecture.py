"""docs/architecture.md names files that exist. Its list of files and docs/states.md are generated."""

from __future__ import annotations

import enum
import importlib
import re
from collections.abc import Mapping

from tests.docs.states import MACHINES, STATES_PAGE, Transitions, render_states, replace_states
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


def test_the_diagrams_of_states_are_up_to_date() -> None:
    page = STATES_PAGE.read_text("utf-8")
    assert re.findall(r"<!-- states: (\S+) -->", page) == list(MACHINES)
    assert replace_states(page) == page, "run python -m tests.docs.tree"


def test_every_table_of_transitions_has_a_diagram() -> None:
    tables = [
        value
        for path in (ROOT / "seance").rglob("*states.py")
        for value in vars(
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        ).values()
        if isinstance(value, Mapping) and all(isinstance(key, tuple) for key in value)
    ]
    assert len(tables) == len(MACHINES)
    assert all(any(table is shown for shown in MACHINES.values()) for table in tables)


class Job(enum.Enum):
    NEW = "new"
    """Not started."""
    RUNNING = "running"
    DONE = "done"


class JobEvent(enum.Enum):
    """An event of a job.

    Attributes:
        START: The job is
            started.
        SKIP: The job is not needed.
    """

    START = "start"
    SKIP = "skip"
    PAUSE_NOW = "pause now"
    STOP = "stop"
    UNUSED = "unused"


def test_a_diagram_has_a_line_for_each_pair_of_states_and_meanings_where_there_are_some() -> None:
    table: Transitions = {
        (Job.NEW, JobEvent.STOP): Job.DONE,
        (Job.RUNNING, JobEvent.PAUSE_NOW): Job.RUNNING,
        (Job.RUNNING, JobEvent.STOP): Job.DONE,
        (Job.NEW, JobEvent.START): Job.RUNNING,
        (Job.NEW, JobEvent.SKIP): Job.RUNNING,
    }
    assert render_states(table).splitlines() == [
        "```text",
        "new                --start, skip-->  running",
        "running            --pause now-->  running",
        "every other state  --stop-->  done",
        "```",
        "",
        "| state | meaning |",
        "| --- | --- |",
        "| `new` | Not started. |",
        "",
        "| event | meaning |",
        "| --- | --- |",
        "| `start` | The job is started. |",
        "| `skip` | The job is not needed. |",
    ]
