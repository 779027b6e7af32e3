"""``python -m seance``: the ``seance`` command where it is not on the PATH."""

from __future__ import annotations

import sys

from seance.cli import main

if __name__ == "__main__":
    sys.exit(main())
