"""The text of the project is plain English: phrases that readers must read twice are rare.

The test searches comments, docstrings and messages of Python files, the text of Markdown pages, and comments
and strings of configuration files, scripts and web pages. Code is skipped. A single hit may be good English;
the limits are for the number of hits per 1,000 words. The text of h11, websockets and twisted.internet has
0.2 to 1.2.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import ROOT

SENTENCE_START = r"(?:\A[\s#]*|\n[ \t#>*-]*\n[\s#>*-]*|(?<=[.:;(])\s*|(?<=,)\s+)"

KINDS = {
    "whoever": r"\b(?:(?:who|what|which|where)ever|whom|whose)\b",
    "nobody": r"\b(?:no|some|every|any)body\b",
    "free_relative": SENTENCE_START
    + r"(?:what|who)\s+(?:is|was|are|were|has|have|had|comes|came|goes|may|must"
    r"|can|waits|leaves|stands|begins|ends|asks|takes|it|we|they|one|an?|the)\b",
    "undefined_so": r"\b(?:for|in|after|within|at\s+most)\s+so\s+(?:long|many|much|often)\b"
    r"|\bas\s+(?:many|much|long|often)\s+as\s+(?:may|can|must|do|is)\b",
    "people_verb": r"\btak(?:es?|en|ing)\s+(?:(?:its|their|our|a)\s+)?leave\b"
    r"|\bse(?:en?|es|eing)\s+(?:\w+\s+)?off\b|\bsent\s+away\b|\bsends?\s+(?:\w+\s+)?away\b|\blet\s+in\b"
    r"|\b(?:is|are|was|were)\s+told\b|\btold\s+of\b|\b(?:goes|go|went)\s+on\b",
    "archaic": r"\b(?:lest|besides|but\s+for|save\s+for|whence|thither|thereof|said\s+all|at\s+once"
    r"|of\s+its\s+own|has\s+to\s+say)\b",
    "alone": r"\balone\b",
}
"""The kinds of phrases. Lines of text may wrap within a phrase."""

PHRASES = re.compile("|".join(f"(?P<{kind}>{phrase})" for kind, phrase in KINDS.items()), re.IGNORECASE)

LIMITS = {"seance": 1.0, "docs": 1.0, "tests": 1.5, "deploy": 1.5, "README.md": 1.5}
"""Phrases per 1,000 words that a folder or file may have."""

WORD = re.compile(r"[A-Za-z']+")
FENCE = re.compile(r"^ *(```+|~~~+).*?^ *\1`*$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(`+)(?!`)[^\n]*?(?<!`)\1(?!`)")

QUOTED = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
COMMENT_OR_STRING = re.compile(
    rf"""(?P<comment>#[^\n]*(?:\n[ ]*#[^\n]*)*)|(\"{{3}}|'{{3}})(?:\\.|[^\\])*?\2|{QUOTED}""", re.DOTALL
)
"""Finds the comments of Python code, each with the comments on the lines below. ``ast`` has the strings."""

NO_CODE = {
    (".toml", ".yaml", ".yml", ".service", ".conf", ".sh", ".cfg"): rf"{QUOTED}|#[^\n]*",
    (".js", ".mjs"): rf"{QUOTED}|`(?:\\.|[^`\\])*`|(?<!:)//[^\n]*|/\*.*?\*/",
    (".html",): r"(?<=>)[^<>{}]+(?=<)|<!--.*?-->",
}
"""The text in files that are neither Python nor Markdown, by the suffix of the file."""

TEXT_OF_SUFFIX = {
    suffix: re.compile(pattern, re.DOTALL) for suffixes, pattern in NO_CODE.items() for suffix in suffixes
}

SKIPPED = {"node_modules", "_build", "__pycache__", "build", Path(__file__).name}
"""Names of files and folders. This file has an example of each phrase."""

MAX_LINE_CHARACTERS = 2000
"""A web page with a longer line is the output of a build."""


def without(pattern: re.Pattern[str], text: str) -> str:
    """Return the text with a blank for each character that matches, on the same lines."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def texts_of_python(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value
    for match in COMMENT_OR_STRING.finditer(source):
        if match["comment"]:
            yield source.count("\n", 0, match.start()) + 1, match["comment"]


def texts(suffix: str, source: str) -> Iterator[tuple[int, str]]:
    """Return each text of a file, with the line on which it begins."""
    if suffix == ".py":
        yield from texts_of_python(source)
    elif suffix == ".md":
        yield 1, without(FENCE, source)
    elif suffix in TEXT_OF_SUFFIX and max(map(len, source.splitlines()), default=0) <= MAX_LINE_CHARACTERS:
        for match in TEXT_OF_SUFFIX[suffix].finditer(source):
            if " " in match[0].strip():
                yield source.count("\n", 0, match.start()) + 1, match[0]


def search(suffix: str, source: str) -> tuple[int, list[tuple[int, str, str]]]:
    """Return the number of words, and the line, kind and surroundings of each phrase."""
    words, found = 0, []
    for line, whole in texts(suffix, source):
        text = without(CODE_SPAN, whole)
        words += len(WORD.findall(text))
        for match in PHRASES.finditer(text):
            at = line + text.count("\n", 0, match.end())
            excerpt = " ".join(whole[max(0, match.start() - 40) : match.end() + 40].split())
            found.append((at, str(match.lastgroup), excerpt))
    return words, sorted(found)


def files(name: str) -> list[Path]:
    root = ROOT / name
    paths = [root] if root.is_file() else sorted(root.rglob("*.*"))
    return [path for path in paths if path.is_file() and not SKIPPED & set(path.relative_to(ROOT).parts)]


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_phrases_that_must_be_read_twice_are_rare(name: str, limit: float) -> None:
    words, places = 0, []
    for path in files(name):
        if path.suffix in {".py", ".md", *TEXT_OF_SUFFIX}:
            of_file, found = search(path.suffix, path.read_text("utf-8"))
            words += of_file
            places += [f"{path.relative_to(ROOT)}:{line}: [{kind}] {text}" for line, kind, text in found]
    assert words > 1000
    rate = 1000 * len(places) / words
    assert rate <= limit, f"{rate:.2f} phrases per 1,000 words in {name}:\n" + "\n".join(places)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("whoever", "Whoever connects gets a slot."),
        ("whoever", "A link whose carrier is lost."),
        ("nobody", "It keeps nobody waiting."),
        ("free_relative", "Who has loaded a document leaves."),
        ("free_relative", "First part. What was received is dropped."),
        ("undefined_so", "Kept for so long."),
        ("undefined_so", "Accepts as many\n    as may wait."),
        ("people_verb", "The client is told the reason."),
        ("people_verb", "An agent takes its leave."),
        ("people_verb", "It is sent\naway."),
        ("archaic", "Closed at once."),
        ("archaic", "Bounded, lest it grow."),
        ("alone", "For the relay alone."),
    ],
)
def test_each_kind_is_found_in_a_docstring_a_comment_a_message_and_a_page(kind: str, text: str) -> None:
    comment = "".join(f"# {line.strip()}\n" for line in text.splitlines())
    for suffix, source in [
        (".py", f'"""{text}"""\n'),
        (".py", f"raise ValueError({text!r})\n"),
        (".md", f"# Title\n\n{text}\n"),
    ]:
        _, found = search(suffix, source)
        assert [one for _, one, _ in found] == [kind], source
    if "\n" not in text:
        for suffix in (".py", ".toml", ".yaml"):
            assert [one for _, one, _ in search(suffix, comment)[1]] == [kind]


def test_a_phrase_has_the_line_on_which_it_ends() -> None:
    assert search(".py", '"""A module.\n\nIt is the only one.\nIt stands alone.\n"""\n') == (
        10,
        [(4, "alone", "module. It is the only one. It stands alone.")],
    )


@pytest.mark.parametrize(
    ("suffix", "source"),
    [
        (".py", "whoever = nobody(alone=besides)\n"),
        (".py", '"""Return ``alone``."""\n'),
        (".py", 'key = "alone"\n'),
        (".md", "Set `alone`.\n\n```python\n# Whoever is told at once.\n```\n"),
        (".toml", "alone = 1\n"),
        (".js", "const alone = whoever(nobody);\n"),
        (".html", "<p class='nobody alone'>The relay</p>\n"),
    ],
)
def test_code_is_skipped(suffix: str, source: str) -> None:
    assert search(suffix, source)[1] == []


@pytest.mark.parametrize(
    ("suffix", "source"),
    [
        (".js", "connect(); // Whoever asks.\n"),
        (".js", 'show("Whoever asks.");\n'),
        (".html", "<p>Whoever asks.</p>\n"),
        (".service", "# Whoever asks.\n"),
    ],
)
def test_the_text_of_scripts_and_pages_is_searched(suffix: str, source: str) -> None:
    assert [kind for _, kind, _ in search(suffix, source)[1]] == ["whoever"]


def test_a_relative_clause_with_a_noun_is_no_free_relative() -> None:
    text = "Return what the peer sent.\nAn agent\nwho has a token waits.\n"
    assert search(".md", text)[1] == []
