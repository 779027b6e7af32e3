"""The shared editor that a relay shows at a share link, if it was told to.

``seance.pad.page`` reads ``pad.html``, which is built from ``src/`` (``npm ci && node build.mjs``)
and committed, so that nobody needs Node to run the demo.
"""
