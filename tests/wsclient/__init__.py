"""The WebSocket client: frames, dialling, connections."""
