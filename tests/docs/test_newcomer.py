"""The new user's path: four pages, typed from top to bottom, by somebody who has nothing but a clone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.newcomer import NOT_TYPED, Newcomer, lines_of, typed_blocks
from tests.docs.pages import DOCS, README, blocks

QUICKSTART = DOCS / "quickstart.md"

PATH = (README, QUICKSTART, DOCS / "security.md", DOCS / "operations.md")
"""Every ``console`` block of these is typed, or says in a comment before it why not."""

BEFORE = {
    "operations.md": (
        "pip install .",
        "seance keygen",
        "twistd -n seance-relay",
        "twistd -n seance-agent --room test-room",
    ),
    "security.md": ("pip install .",),
}
"""What a page expects of somebody who has read the quick start."""

pages = pytest.mark.parametrize("page", PATH, ids=lambda page: page.stem)


@pages
def test_what_is_not_typed_says_why(page: Path) -> None:
    notes = [block.note for block in blocks(page, "console") if block.note]
    for note in notes:
        assert note.startswith(NOT_TYPED), note
        assert len(note.removeprefix(NOT_TYPED).split()) >= 3, "a reason"


@pages
def test_no_shell_line_hides_in_a_block_of_another_kind(page: Path) -> None:
    for block in blocks(page):
        assert block.language not in ("sh", "bash", "shell"), block
        assert block.language == "console" or "\n$ " not in f"\n{block.text}", block


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty at first; the pages share it, since each begins by installing what is there already."""
    return tmp_path_factory.mktemp("newcomer") / "venv"


@pages
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_page_does_what_it_says(page: Path, venv: Path, tmp_path: Path) -> None:
    with Newcomer(tmp_path, venv) as person:
        for line in BEFORE.get(page.name, ()):
            person.type(line)
        for block in typed_blocks(page):
            for line in lines_of(block):
                person.type(line)
