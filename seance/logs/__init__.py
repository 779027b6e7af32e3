"""Log formats, log files, and the redaction of secrets."""
