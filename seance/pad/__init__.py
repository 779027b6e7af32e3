"""The shared editor that a relay with ``--pad`` serves at a share link.

``seance.pad.page`` reads ``pad.html``, which is built from ``src/`` (``npm ci && node build.mjs``) and
committed, so that the demo runs without Node.
"""
