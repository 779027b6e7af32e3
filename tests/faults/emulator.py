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
from typing import Self

__all__ = ["Line"]

PACKET_BYTES = 16384
LOOK_SECONDS = 0.05


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
        up_bytes_per_second: Rate limit from near to far; 0 for none.
        down_bytes_per_second: Rate limit from far to near; 0 for none.
        queue_bytes: Limit of the queue before a rate limit, in each direction; packets beyond it are lost.
        loss: Share of lost packets, from 0 to 1.
        lost: Number of lost packets.
    """

    def __init__(self, near: int, far: int, *, seed: int = 1) -> None:
        self._near, self._far = near, far
        self._dice = random.Random(seed)
        self._is_over = False
        self._on_the_way: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._free_at = {near: 0.0, far: 0.0}
        self._thread = threading.Thread(target=self.run, daemon=True)
        self.cuts_up = False
        self.cuts_down = False
        self.delay_seconds = 0.0
        self.up_bytes_per_second = 0.0
        self.down_bytes_per_second = 0.0
        self.queue_bytes = 64 * 1024
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
                wait = self._on_the_way[0][0] - time.monotonic() if self._on_the_way else LOOK_SECONDS
                for device, _ in poll.poll(min(max(wait, 0.0), LOOK_SECONDS)):
                    self._take(device)
                self._deliver()

    def _take(self, device: int) -> None:
        is_cut = self.cuts_up if device == self._near else self.cuts_down
        out = self._far if device == self._near else self._near
        rate = self.up_bytes_per_second if device == self._near else self.down_bytes_per_second
        while True:
            try:
                packet = os.read(device, PACKET_BYTES)
            except BlockingIOError:
                return
            if is_cut or (self.loss and self._dice.random() < self.loss):
                self.lost += 1
                continue
            self._count += 1
            due = time.monotonic()
            if rate:
                free_at = max(self._free_at[device], due)
                if (free_at - due) * rate > self.queue_bytes:
                    self.lost += 1
                    continue
                due = self._free_at[device] = free_at + len(packet) / rate
            due += self.delay_seconds
            heapq.heappush(self._on_the_way, (due, self._count, out, packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._on_the_way and self._on_the_way[0][0] <= now:
            _, _, device, packet = heapq.heappop(self._on_the_way)
            try:
                os.write(device, packet)
            except OSError:  # the queue is full, or the address was just removed
                self.lost += 1
