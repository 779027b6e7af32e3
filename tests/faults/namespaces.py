"""Two machines for a test: network namespaces, joined by a ``Line``. Needs root and ``ip``.

Addresses are from 192.0.2.0/24, which RFC 5737 reserves for documentation, and the namespaces have no route
to the outside. Their names contain the test's process id; they are removed at the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.faults.emulator import Line
from tests.tools import require

__all__ = ["AGENT_ADDRESS", "RELAY_ADDRESS", "Machines", "Namespace", "two_machines"]

RELAY_ADDRESS = "192.0.2.1"
AGENT_ADDRESS = "192.0.2.2"
DEVICE = "line0"

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


class Namespace:
    """One machine."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        ip("netns", "add", name)
        self.device = self._add_device()
        self.ip("link", "set", "lo", "up")
        self.ip("addr", "add", f"{address}/24", "dev", DEVICE)
        self.ip("link", "set", DEVICE, "up", "mtu", "1500")

    def _add_device(self) -> int:
        with open("/proc/thread-self/ns/net", "rb") as home:
            self.enter()
            try:
                device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                request = struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI)
                fcntl.ioctl(device, TUNSETIFF, request)
            finally:
                _set_namespace(home.fileno())
        return device

    def enter(self) -> None:
        """Move the calling thread to this machine, with all sockets that it makes from then on."""
        with open(f"/run/netns/{self.name}", "rb") as place:
            _set_namespace(place.fileno())

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command on this machine."""
        return ["ip", "netns", "exec", self.name, *command]

    def ip(self, *words: str) -> None:
        """Run ``ip`` on this machine."""
        ip("-n", self.name, *words)

    def move_to(self, address: str) -> None:
        """Replace its address, as when a laptop changes networks."""
        self.ip("addr", "flush", "dev", DEVICE)
        self.ip("addr", "add", f"{address}/24", "dev", DEVICE)
        self.address = address

    def remove(self) -> None:
        """Remove it. Processes that still run in it are not ended."""
        os.close(self.device)
        ip("netns", "del", self.name)


@dataclass(frozen=True, slots=True)
class Machines:
    """The agent's machine, the relay's machine, and the line between them."""

    home: Namespace
    relay: Namespace
    line: Line


@contextlib.contextmanager
def two_machines() -> Iterator[Machines]:
    """Make both machines; skip the test if that is not allowed."""
    require("ip")
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    number = next(_numbers)
    with contextlib.ExitStack() as stack:
        made = []
        for role, address in (("home", AGENT_ADDRESS), ("relay", RELAY_ADDRESS)):
            try:
                namespace = Namespace(f"seance-{os.getpid()}-{number}-{role}", address)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"needs to be allowed to make network namespaces: {error}")
            stack.callback(namespace.remove)
            made.append(namespace)
        home, relay = made
        yield Machines(home, relay, stack.enter_context(Line(home.device, relay.device)))


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
