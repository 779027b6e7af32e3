"""One public connection, from accept to splice or refusal."""
