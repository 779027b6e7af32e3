"""``python -m seance.options`` writes ``docs/options.md``."""

from __future__ import annotations

import sys

from seance.options import reference

sys.stdout.write(reference())
