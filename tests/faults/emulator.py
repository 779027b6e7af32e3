"""A line between two machines, in user space: it loses, delays and cuts packets as ``tc netem`` does.

Each machine is a network namespace with a TUN device. A thread reads IP packets from one device and writes
them to the other, or drops them. It does not need the netem module, which the kernels of many CI machines
lack. The faults are below TCP, so both kernels retransmit, probe and time out as on a bad network.
"""

from __future__ import annotations

import heapq
import os
import random
import select
import threading
import time
from collections import deque
from typing import Self

__all__ = ["Bottleneck", "Line"]

PACKET_BYTES = 16384
MAX_WAIT_SECONDS = 0.05


class Bottleneck:
    """A limited rate with a FIFO queue in front of it. A packet that does not fit into the queue is lost.

    Attributes:
        bytes_per_second: The rate; 0 for no limit. A new rate applies from the next packet on.
        queue_bytes: Limit of the packets that wait; the packet on the wire is not counted.
    """

    def __init__(self, bytes_per_second: float = 0.0, queue_bytes: int = 64 * 1024) -> None:
        self.bytes_per_second = bytes_per_second
        self.queue_bytes = queue_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._free_at = 0.0

    @property
    def next_at(self) -> float | None:
        """The time at which the next packet leaves the queue; None if the queue is empty."""
        return self._free_at if self._waiting else None

    def put(self, packet: bytes, now: float) -> bool:
        """Queue a packet; return whether there was space. Call ``take`` first."""
        if not self._waiting:
            self._free_at = max(self._free_at, now)
        if self._free_at > now and self._waiting_bytes + len(packet) > self.queue_bytes:
            return False
        self._waiting.append(packet)
        self._waiting_bytes += len(packet)
        return True

    def take(self, now: float) -> list[tuple[float, bytes]]:
        """Remove the packets that have left the queue; return each with the time at its end on the wire."""
        taken = []
        while self._waiting and self._free_at <= now:
            packet = self._waiting.popleft()
            self._waiting_bytes -= len(packet)
            if self.bytes_per_second:
                self._free_at += len(packet) / self.bytes_per_second
            taken.append((self._free_at, packet))
        return taken


class Line:
    """Carries packets between two TUN devices during a ``with`` block.

    Args:
        near: The device of the dialling side.
        far: The other device.
        seed: Seed of the losses.

    Attributes:
        cuts_up: Whether packets from near to far are lost.
        cuts_down: Whether packets from far to near are lost.
        delay_seconds: Delay of each packet.
        up: Rate and queue from near to far.
        down: Rate and queue from far to near.
        loss: Share of lost packets, from 0 to 1.
        lost: Number of lost packets.
    """

    def __init__(self, near: int, far: int, *, seed: int = 1) -> None:
        self._near, self._far = near, far
        self._dice = random.Random(seed)
        self._is_over = False
        self._on_the_way: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._thread = threading.Thread(target=self.run, daemon=True)
        self.cuts_up = False
        self.cuts_down = False
        self.delay_seconds = 0.0
        self.up = Bottleneck()
        self.down = Bottleneck()
        self.loss = 0.0
        self.lost = 0

    def cut(self) -> None:
        """Lose every packet, in both directions."""
        self.cuts_up = self.cuts_down = True

    def heal(self) -> None:
        """Pass every packet again."""
        self.cuts_up = self.cuts_down = False
        self.loss = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()

    def run(self) -> None:
        """Carry packets until the block ends; runs in a thread or a process."""
        poll = select.epoll()
        for device in (self._near, self._far):
            poll.register(device, select.EPOLLIN)
        with poll:
            while not self._is_over:
                for device, _ in poll.poll(self._wait_seconds()):
                    self._read(device)
                self._deliver()

    def _wait_seconds(self) -> float:
        now = time.monotonic()
        due = [at for at in (self.up.next_at, self.down.next_at) if at is not None]
        due += [packet[0] for packet in self._on_the_way[:1]]
        return max(0.0, min([*due, now + MAX_WAIT_SECONDS]) - now)

    def _read(self, device: int) -> None:
        is_cut, bottleneck = (self.cuts_up, self.up) if device == self._near else (self.cuts_down, self.down)
        while True:
            try:
                packet = os.read(device, PACKET_BYTES)
            except BlockingIOError:
                return
            self._forward()
            is_lost = is_cut or (self.loss and self._dice.random() < self.loss)
            if is_lost or not bottleneck.put(packet, time.monotonic()):
                self.lost += 1

    def _forward(self) -> None:
        """Move packets from the queues onto the wire."""
        now = time.monotonic()
        for bottleneck, device in ((self.up, self._far), (self.down, self._near)):
            for sent_at, packet in bottleneck.take(now):
                self._count += 1
                due = sent_at + self.delay_seconds
                heapq.heappush(self._on_the_way, (due, self._count, device, packet))

    def _deliver(self) -> None:
        self._forward()
        now = time.monotonic()
        while self._on_the_way and self._on_the_way[0][0] <= now:
            _, _, device, packet = heapq.heappop(self._on_the_way)
            try:
                os.write(device, packet)
            except OSError:  # the queue is full, or the address was just removed
                self.lost += 1
