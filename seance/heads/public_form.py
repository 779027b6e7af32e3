"""Maps addresses in the local server's response back to the form in which the client addressed the room.

The local server uses its own paths and the ``Host`` that it received. Without the mapping, its redirects
would lead out of the tunnel: ``/doc/`` is not an address of a relay, and ``http://localhost:1234/doc/`` is
on the client's own machine. Apache calls this ProxyPassReverse.

Every mapped address is a path on the relay's own origin, without scheme and host, because the relay cannot
tell whether a proxy in front of it speaks TLS. Addresses of other servers are not changed. Bytes are never
decoded or encoded. Dot segments are resolved here, because a client that resolves ``/c/ID/../OTHER`` would
leave the room (RFC 3986, 5.2.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from seance.errors import Refusal
from seance.heads.targets import Route, RouteKind, resolve_target

__all__ = ["PublicForm"]

_REFERENCE = re.compile(
    rb"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?P<authority>[^/\\?#]*))?"
    rb"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?",
    re.DOTALL,
)
"""RFC 3986, appendix B. A backslash ends the authority too, as in browsers (WHATWG URL, 4.4)."""

_SCHEME_PORTS = {b"http": b"80", b"ws": b"80", b"https": b"443", b"wss": b"443"}
_AUTHORITY = re.compile(rb"([0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]*))?")
_SEPARATORS = re.compile(rb"([/\\])")
_LOOPBACK_NAMES = (b"localhost", b"127.0.0.1", b"[::1]")
_DOTS = {b".": 1, b"%2e": 1, b"..": 2, b".%2e": 2, b"%2e.": 2, b"%2e%2e": 2}
"""Dot segments, with percent escapes, as in browsers."""


@dataclass(frozen=True, slots=True)
class PublicForm:
    """How one client addressed its room.

    Attributes:
        prefix: ``/c/ID`` as the client spelled it, or ``/client``.
        room: The room's name as the client spelled it.
        name: The room's name, decoded.
        is_pasted: Whether the form is ``/client?room=ID/REST``.
        base: The local target of the request, without a Seance token; base of relative addresses.
        own_hosts: Values of ``Host`` that the local server may use for itself.
        public_host: The ``Host`` that the client sent.
        token: The token in the query of the request; a redirect must contain it too.
    """

    prefix: bytes
    room: bytes
    name: str
    is_pasted: bool
    base: bytes
    own_hosts: tuple[bytes, ...] = ()
    public_host: bytes = b""
    token: bytes = b""

    @classmethod
    def of(
        cls,
        target: bytes,
        route: Route,
        own_hosts: Iterable[bytes] = (),
        public_host: bytes = b"",
        token: bytes = b"",
    ) -> PublicForm:
        """Return the form of a request target.

        Args:
            target: The request target of a client, accepted by `resolve_target`.
            route: Its route, without a Seance token.
            own_hosts: See the attribute; ``localhost`` is always included.
            public_host: See the attribute.
            token: See the attribute; empty if the query has none.
        """
        name, local = route.room, route.local
        hosts = (b"localhost", *own_hosts)
        path, _, query = target.partition(b"?")
        if path.startswith(b"/c/"):
            room = path.split(b"/", 3)[2]
            return cls(b"/c/" + room, room, name, False, local, hosts, public_host, token)
        first, slash, _ = query.partition(b"/")
        last = first.rpartition(b"&")[2]
        is_pasted = bool(slash) and path in (b"/client", b"/client/") and last.startswith(b"room=")
        return cls(b"/client", name.encode(), name, is_pasted, local, hosts, public_host, token)

    @property
    def is_share_link(self) -> bool:
        """Whether the client used ``/c/ID``. Cookies can be limited to this path of one room."""
        return self.prefix != b"/client"

    def public(self, local: bytes, *, with_token: bool = False) -> bytes:
        """Return the public target for a local target.

        It has the client's own form if that can express the target, and otherwise the form of the share
        link, which can express any. A local ``room`` parameter would collide with the relay's.

        Args:
            local: The local target; starts with a slash.
            with_token: Whether to add the client's token, for a target that the client will request.
        """
        if with_token and self.token:
            path, _, query = local.partition(b"?")
            with_it = path + b"?" + b"&".join((*([query] if query else ()), b"access_token=" + self.token))
            return self._spelled(with_it)
        return self._spelled(local)

    def map_reference(self, reference: bytes, *, is_redirect: bool = False) -> bytes:
        """Return the public form of a URI reference in a response.

        Args:
            reference: The reference as the local server wrote it.
            is_redirect: Whether the client will follow it and needs its token in it.

        Returns:
            A path on the relay's origin, or the reference itself if it refers to another server or
            already to a public address of this room.
        """
        # Browsers remove tabs from addresses, so "/.<TAB>./x" has a dot segment.
        parts = _REFERENCE.fullmatch(reference.replace(b"\t", b""))
        if parts is None:
            return reference
        scheme, authority, path, query, fragment = parts.groups()
        is_public = authority is None or self._is_public(scheme, authority)
        if authority is None:
            if scheme is not None or not (path or query is not None):
                return reference
        elif not is_public and not self._is_own(scheme, authority):
            return reference
        is_absolute = authority is not None or path.startswith(b"/")
        base_path, question_mark, base_query = self.base.partition(b"?")
        if path or authority is not None:
            path = path or b"/"
        else:
            path = base_path
            query = query if query is not None else base_query if question_mark else None
        if not path.startswith((b"/", b"\\")):
            path = base_path[: base_path.rindex(b"/") + 1] + path
        elif not path.startswith(b"/"):
            path = b"/" + path
        local = _without_dots(path) + (b"" if query is None else b"?" + query)
        if is_absolute and is_public and self._leads_here(local):
            return reference
        return self.public(local, with_token=is_redirect) + (fragment or b"")

    def _spelled(self, local: bytes) -> bytes:
        if self.is_share_link:
            return self.prefix + local
        path, question_mark, query = local.partition(b"?")
        if self.is_pasted:
            candidate = b"/client?room=" + self.room + local
        else:
            start = b"/client" + (b"" if path == b"/" else path) + b"?room=" + self.room
            candidate = start + (b"&" + query if question_mark else b"")
        if self._leads_here(candidate, local):
            return candidate
        return b"/c/" + self.room + local

    def _leads_here(self, target: bytes, local: bytes | None = None) -> bool:
        try:
            route = resolve_target(target)
        except Refusal:
            return False
        is_here = route.kind is RouteKind.CLIENT and route.room == self.name
        return is_here and (local is None or route.local == local)

    def _is_own(self, scheme: bytes | None, authority: bytes) -> bool:
        match = _AUTHORITY.fullmatch(authority.lower())
        ports = _ports(scheme)
        if match is None or not ports:
            return False
        host, port = match.groups()
        for own in self.own_hosts:
            its = _AUTHORITY.fullmatch(own.lower())
            if its is None:
                continue
            its_host, its_port = its.groups()
            if its_host in _LOOPBACK_NAMES and host in _LOOPBACK_NAMES:
                # A server may leave its port out. For the client, every loopback address would
                # lead to its own machine.
                if not port or port == its_port or (not its_port and port in ports):
                    return True
            elif host == its_host and _same_port(port, its_port, ports):
                return True
        return False

    def _is_public(self, scheme: bytes | None, authority: bytes) -> bool:
        match = _AUTHORITY.fullmatch(authority.lower())
        ours = _AUTHORITY.fullmatch(self.public_host.lower())
        if match is None or ours is None:
            return False
        return match[1] == ours[1] and _same_port(match[2], ours[2], _ports(scheme))


def _ports(scheme: bytes | None) -> tuple[bytes, ...]:
    """Return the default ports of a scheme; empty for a scheme that is not HTTP or WebSocket."""
    if scheme is None:
        return (b"80", b"443")
    port = _SCHEME_PORTS.get(scheme.lower())
    return () if port is None else (port,)


def _same_port(one: bytes | None, other: bytes | None, defaults: tuple[bytes, ...]) -> bool:
    if not defaults:
        return False
    return (one or b"") == (other or b"") or (
        # One has the port, and the other leaves it out because it is the default.
        (not one or not other) and (one or other) in defaults
    )


def _without_dots(path: bytes) -> bytes:
    """Return a path, which starts with a slash, with its dot segments resolved and no other change."""
    _, *rest = _SEPARATORS.split(path)
    kept: list[bytes] = []
    for separator, segment in zip(rest[::2], rest[1::2], strict=True):
        dots = _DOTS.get(segment.lower(), 0)
        if not dots:
            kept.append(separator + segment)
        elif dots == 2 and kept:
            kept.pop()
    ends_in_dots = _DOTS.get(rest[-1].lower(), 0) > 0
    path = b"".join(kept) + (b"/" if ends_in_dots or not kept else b"")
    # The first separator may now be a backslash, but after the room only a slash is a separator.
    return b"/" + path[1:]
