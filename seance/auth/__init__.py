"""Access control: tokens, the keys that sign them, and the deny list of revoked tokens.

A relay uses ``service.AuthService``, which implements ``Verifier`` of ``seance.core.interfaces``.
Programs that make tokens use ``mint`` and ``key_files``, which do not import Twisted. Nothing is imported
here, so that ``seance token`` starts without loading a web client.
"""
