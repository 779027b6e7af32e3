"""The path of a new user: the commands of five pages, typed from top to bottom in a fresh clone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.newcomer import NOT_TYPED, Newcomer, lines_of, typed_blocks
from tests.docs.pages import DOCS, README, blocks

QUICKSTART = DOCS / "quickstart.md"

PATH = (README, QUICKSTART, DOCS / "security.md", DOCS / "operations.md", DOCS / "admin-port.md")
"""Every ``console`` block of these pages is typed, or the comment before it has the reason why not."""

BEFORE = {
    "operations.md": ("pip install .", "seance keygen"),
    "admin-port.md": (
        "pip install .",
        "seance keygen",
        "twistd -n seance-relay",
        "twistd -n seance-agent --room test-room",
    ),
    "security.md": ("pip install .",),
}
"""Commands of the quick start that a page depends on."""

pages = pytest.mark.parametrize("page", PATH, ids=lambda page: page.stem)


@pages
def test_a_block_that_is_not_typed_has_a_reason(page: Path) -> None:
    notes = [block.note for block in blocks(page, "console") if block.note]
    for note in notes:
        assert note.startswith(NOT_TYPED), note
        assert len(note.removeprefix(NOT_TYPED).split()) >= 3, "the reason is too short"


@pages
def test_no_shell_line_hides_in_a_block_of_another_kind(page: Path) -> None:
    for block in blocks(page):
        assert block.language not in ("sh", "bash", "shell"), block
        assert block.language == "console" or "\n$ " not in f"\n{block.text}", block


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment, empty at first. The pages share it, so packages are installed once."""
    return tmp_path_factory.mktemp("newcomer") / "venv"


@pages
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(1500)
def test_all_commands_of_a_page_work(page: Path, venv: Path, tmp_path: Path) -> None:
    with Newcomer(tmp_path, venv) as person:
        for line in BEFORE.get(page.name, ()):
            person.type(line)
        for block in typed_blocks(page):
            for line in lines_of(block):
                person.type(line)
