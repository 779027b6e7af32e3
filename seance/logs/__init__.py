"""How programs write their log, and how secrets are taken out of it."""
