"""Who may enter: tokens, the keys that sign them, and the list of those taken back.

``service.AuthService`` is what a relay is given; it implements ``Verifier`` of
``seance.core.interfaces``. ``mint`` and ``key_files`` are for whoever makes tokens and need no
Twisted. Nothing is imported here, so that ``seance token`` starts without a web client.
"""
