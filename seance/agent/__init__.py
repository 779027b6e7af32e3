"""The process, or the service in an app, that dials out to a relay and forwards to a local server."""
