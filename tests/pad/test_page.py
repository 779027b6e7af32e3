"""The page as a relay serves it: one file, one policy, and the result of its sources."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess

import pytest

from seance.pad.page import make_pad_page
from tests.pad.browser import SOURCES, pad_packages

PAGE = make_pad_page()
HTML = PAGE.body.decode()
HEADERS = dict(PAGE.headers)
POLICY = dict(
    directive.split(" ", 1) for directive in HEADERS[b"Content-Security-Policy"].decode().split("; ")
)


def test_policy_allows_one_script_and_one_style() -> None:
    for element, directive in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{element}[^>]*>(.*?)</{element}>", HTML, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert POLICY[directive] == f"'sha256-{digest}'"


def test_policy_forbids_everything_else() -> None:
    assert POLICY["default-src"] == "'none'"
    assert POLICY["connect-src"] == "'self'"
    assert POLICY["img-src"] == "data:"
    for directive in ("base-uri", "form-action", "frame-ancestors"):
        assert POLICY[directive] == "'none'"
    assert "unsafe" not in HEADERS[b"Content-Security-Policy"].decode()


def test_address_is_not_sent_to_other_sites() -> None:
    assert HEADERS[b"Referrer-Policy"] == b"no-referrer"


def test_page_has_no_reference_to_another_file() -> None:
    markup = re.sub(r"<(script|style)>.*?</\1>|<!--.*?-->", "", HTML, flags=re.DOTALL)
    references = re.findall(r"(?:src|href|action|data|poster|srcset)\s*=\s*[\"']?([^\"' >]+)", markup)
    assert references
    assert all(reference.startswith("data:") for reference in references)
    (style,) = re.findall(r"<style>(.*?)</style>", HTML, re.DOTALL)
    assert not re.search(r"url\(|@import", style)


def test_page_has_no_attribute_that_the_policy_would_block() -> None:
    markup = re.sub(r"<(script|style)>.*?</\1>|<!--.*?-->", "", HTML, flags=re.DOTALL)
    assert not re.search(r"\s(?:style|on[a-z]+)\s*=", markup)


def test_every_field_and_button_has_a_name() -> None:
    assert re.search(r"<label[^>]*>.*?<input id=\"?name|<label.*Your name.*<input", HTML, re.DOTALL)
    assert 'role="status"' in HTML
    assert '<html lang="en"' in HTML


def test_page_is_small_and_names_the_authors_of_its_code() -> None:
    assert len(PAGE.body) < 600_000
    for package in ("yjs", "y-websocket", "@codemirror/view", "lib0"):
        assert re.search(rf"^{package} \d+\.\d+\.\d+: Copyright", HTML, re.MULTILINE)
    assert "Permission is hereby granted" in HTML


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def themes() -> dict[str, dict[str, str]]:
    """The colours of the light and the dark page, by name."""
    css = (SOURCES / "pad.css").read_text("utf-8")
    light, dark = (
        dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    )
    return {"light": light, "dark": light | dark}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_enough_contrast(theme: str) -> None:
    """4.5 to 1, the AA of WCAG 2.2 for text."""
    colours = themes()[theme]
    pairs = [(name, "paper") for name in ("ink", "soft", "faint", "accent")]
    pairs += [("accent", "accent-soft"), ("ink", "wait-soft"), ("ink", "raised"), ("ink", "line")]
    pairs += [("on-hue", f"hue-{number}") for number in range(8)]
    assert {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs} == {
        pair: pytest.approx(21, abs=16.5) for pair in pairs
    }


def test_lock_file_has_versions_and_no_addresses() -> None:
    lock = json.loads((SOURCES / "package-lock.json").read_text("utf-8"))
    packages = {path: entry for path, entry in lock["packages"].items() if path}
    assert all("resolved" not in entry and "integrity" in entry for entry in packages.values())
    wanted = json.loads((SOURCES / "package.json").read_text("utf-8"))
    versions = (wanted["dependencies"] | wanted["devDependencies"]).values()
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions)


@pytest.mark.slow
def test_page_is_the_result_of_its_sources() -> None:
    pad_packages()
    argv = ["node", "build.mjs", "--check"]
    result = subprocess.run(argv, cwd=SOURCES, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
