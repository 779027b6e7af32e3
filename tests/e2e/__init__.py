"""Tests with real processes: twistd relay, twistd agent, stock clients and servers."""
