"""The pages build without a warning, and make no request to another host."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_without_external_files(tmp_path: Path) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")):
        pytest.skip("needs the extra: pip install seance-tunnel[docs]")
    argv = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-d", str(tmp_path / "trees")]
    site = tmp_path / "site"
    built = subprocess.run([*argv, str(DOCS), str(site)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    fetched = re.compile(r"""<(?:script|img|iframe|link)[^>]+(?:src|href)=["'](?:https?:)?//[^"']+""")
    for page in site.rglob("*.html"):
        assert fetched.findall(page.read_text("utf-8")) == [], page.name
    assert (site / "protocol.html").exists()
