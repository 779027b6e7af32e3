"""Parts that relay and agent share: splice, flow control, limits, settings, interfaces, observers."""
