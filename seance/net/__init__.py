"""Sockets, TLS, endpoints and watched files: what Seance adds to Twisted's transports.

Another transport may be used as well if it passes ``tests/contract.py``.
"""

from seance.net.cached_endpoint import CachedEndpoint
from seance.net.client_tls import ClientTls, TlsEndpoint, is_loopback_host
from seance.net.descriptors import (
    agent_stream_limit,
    descriptor_limit,
    limit_reached,
    log_lowered,
    raise_descriptor_limit,
)
from seance.net.file_reads import StillRunning, ThreadRunner, is_pipe, plain_text, read_bounded
from seance.net.files import FileWatcher, WatchedFiles
from seance.net.immediate_write import accept_immediately
from seance.net.legs import Leg, end, is_orderly, round_trip_seconds, take_undelivered, unsent_bytes
from seance.net.lingering_reset import LingeringReset
from seance.net.listening import LOOPBACK_HOSTS, has_no_such_address, server_endpoint, why_not_listening
from seance.net.log_limiter import LogLimiter
from seance.net.lookups import resolve_interface, use_daemon_lookups
from seance.net.one_shot_event import OneShotEvent
from seance.net.peer import PeerCertificate, peer_certificate
from seance.net.protocol_switch import ProtocolSwitch, switch_protocol
from seance.net.proxy_protocol import host_of
from seance.net.server_tls import HandshakeLog, ServerTls
from seance.net.sockets import tune
from seance.net.staggered import StaggeredEndpoint, retrying_endpoint

__all__ = [
    "LOOPBACK_HOSTS",
    "CachedEndpoint",
    "ClientTls",
    "FileWatcher",
    "HandshakeLog",
    "Leg",
    "LingeringReset",
    "LogLimiter",
    "OneShotEvent",
    "PeerCertificate",
    "ProtocolSwitch",
    "ServerTls",
    "StaggeredEndpoint",
    "StillRunning",
    "ThreadRunner",
    "TlsEndpoint",
    "WatchedFiles",
    "accept_immediately",
    "agent_stream_limit",
    "descriptor_limit",
    "end",
    "has_no_such_address",
    "host_of",
    "is_loopback_host",
    "is_orderly",
    "is_pipe",
    "limit_reached",
    "log_lowered",
    "peer_certificate",
    "plain_text",
    "raise_descriptor_limit",
    "read_bounded",
    "resolve_interface",
    "retrying_endpoint",
    "round_trip_seconds",
    "server_endpoint",
    "switch_protocol",
    "take_undelivered",
    "tune",
    "unsent_bytes",
    "use_daemon_lookups",
    "why_not_listening",
]
