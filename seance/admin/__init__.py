"""The admin port: health, metrics, rooms and their clients, disconnecting them, and an event stream.

``port`` assembles it, ``service`` listens, ``site`` and ``routes`` handle requests, ``access_control``
authorises them. ``room_registry`` has the rooms, ``event_stream`` sends events. The public port serves none
of this. docs/admin-port.md is the operator's page.
"""
