"""A small Y-WebSocket server for one machine: `seance demo` and `seance check` embed it.

Stock y-websocket clients connect to ``ws://127.0.0.1:PORT/NAME`` and edit the document NAME. To an agent
it is a local server like any other. ``service`` has the Twisted service and the WebSocket connections (on
Autobahn), ``document`` one shared document (on pycrdt), ``store`` the SQLite file, ``messages`` the
messages of y-protocols. All but ``messages`` need the extra ``seance-tunnel[demo]``. Nothing is imported
here.
"""
