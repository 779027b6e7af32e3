"""``python -m seance`` runs the ``seance`` command if it is not on the PATH."""

from __future__ import annotations

import sys

from seance.cli import main

if __name__ == "__main__":
    sys.exit(main())
