"""``python -m seance.options`` writes ``docs/options.md``.

With ``relay`` or ``agent`` behind it, it writes the example of a config file that is in ``deploy/``.
"""

from __future__ import annotations

import sys

from seance.options import Program, reference
from seance.options.example import example

if __name__ == "__main__":
    sys.stdout.write(example(Program(sys.argv[1])) if sys.argv[1:] else reference())
