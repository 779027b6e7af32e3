"""What a relay or an agent has seen, as figures in the format of Prometheus.

``catalogue`` lists every metric, ``relay`` and ``agent`` are witnesses that count, ``exposition`` writes
the page. Nothing of the tunnel knows this room.
"""
