"""``python -m seance.options`` writes ``docs/options.md``."""

from __future__ import annotations

import sys

from seance.options import reference

if __name__ == "__main__":
    sys.stdout.write(reference())
