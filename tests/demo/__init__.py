"""The demo: the three services together, what it says, and the command."""
