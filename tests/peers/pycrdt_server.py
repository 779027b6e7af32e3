"""A stock pycrdt-websocket server on hypercorn, on HOST and PORT, documents in memory."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, cast

from hypercorn import Config
from hypercorn.asyncio import serve
from pycrdt.websocket import ASGIServer, WebsocketServer
from pycrdt.websocket.yroom import YRoom

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework


class RoomTable(WebsocketServer):
    """The original class with one more lock.

    Two clients that ask for a new room in the same turn make pycrdt-websocket 0.16.5 start it twice,
    and the second start waits for the end of the first: one of the two clients never receives anything.
    """

    def __init__(self) -> None:
        super().__init__(auto_clean_rooms=False)
        self._one_at_a_time = asyncio.Lock()

    async def start_room(self, room: YRoom) -> None:
        """Start a room, if not already started."""
        async with self._one_at_a_time:
            await super().start_room(room)


async def main() -> None:
    """Serve until killed; hypercorn itself logs the line that shows that it is ready."""
    config = Config()
    config.bind = [f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ['PORT']}"]
    async with RoomTable() as rooms:
        await serve(cast("ASGIFramework", ASGIServer(rooms)), config, mode="asgi")


if __name__ == "__main__":
    asyncio.run(main())
