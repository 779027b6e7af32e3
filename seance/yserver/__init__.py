"""A small Y-WebSocket server to embed: what the demo shares, and what an app may share.

Stock y-websocket clients connect to ``ws://127.0.0.1:PORT/NAME`` and edit the document NAME. Start
with ``seance.yserver.service.YServer``. The tunnel knows nothing of this room: to an agent it is a
local server like any other.

From the network inwards: ``service`` (listens), ``websocket`` (Autobahn), ``documents`` (who edits
what), ``document`` (one of them, on pycrdt), ``awareness`` and ``messages`` (pure), ``store``
(SQLite). It needs the extra ``seance-tunnel[demo]``; nothing is imported here.
"""
