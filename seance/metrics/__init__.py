"""Metrics of a relay or an agent in the format of Prometheus.

``catalogue`` lists every metric, ``relay`` and ``agent`` are observers that count events, ``exposition``
writes the page. The tunnel does not import this package.
"""
