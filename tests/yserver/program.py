"""Run the document server as a process: ``python -m tests.yserver.program [FILE]``."""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.interfaces import IListeningPort

from seance.yserver.service import YServer


def main() -> None:
    server = YServer(reactor, store=Path(sys.argv[1]) if sys.argv[1:] else None)
    server.when_listening().addCallback(say)
    server.startService()
    reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
    reactor.run()


def say(port: IListeningPort) -> None:
    print("serving documents on port", port.getHost().port, flush=True)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
