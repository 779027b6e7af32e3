"""Configuration of Sphinx: ``make docs``, or ``sphinx-build -W docs docs/_build/html``.

The pages load no fonts, scripts or images from other hosts.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Describe this checkout and not an installed version.
sys.path.insert(0, str(Path(__file__).parent.parent))

from seance import __version__

project = "Seance Tunnel"
author = "the Seance Tunnel authors"
project_copyright = "the Seance Tunnel authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "newsfragments", "examples"]
nitpicky = False

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "exclude-members": "__new__"}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"Seance Tunnel {release}"
html_copy_source = False
html_show_sourcelink = False
