"""``python -m seance.options`` prints ``docs/options.md``; with ``relay`` or ``agent`` a config template.

``--write`` writes all three files into the checkout.
"""

from __future__ import annotations

import sys
from pathlib import Path

from seance.options import Program
from seance.options.documents import config_template, reference_page


def _write_all() -> None:
    root = Path(__file__).parents[2]
    documents = {f"deploy/{program.value}.toml": config_template(program) for program in Program}
    documents["docs/options.md"] = reference_page()
    for name, text in documents.items():
        (root / name).write_text(text, "utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        _write_all()
    else:
        sys.stdout.write(config_template(Program(sys.argv[1])) if sys.argv[1:] else reference_page())
