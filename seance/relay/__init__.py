"""The public process: the service, its public connections (``edge``), and who serves a room (``rooms``)."""
