"""The port for operators: health, metrics, what there is, and taking it away.

``service`` listens, ``site`` answers, ``guard`` says who may ask, ``registry`` knows who is there, ``feed``
tells what happens. Nothing of it is reachable through the public port. docs/admin-port.md is its page.
"""
