"""The agent's identity key: created at the first start, and used for a proof at each connection.

The key lets a relay recognize an agent that reconnects (``seance.auth.identity`` is the relay's side). By
default it is stored in the user's state folder, without any configuration. All agents of one user share it.

The file contains a root secret. The signing key for a relay is derived from it and from the relay's host and
port. So two relays cannot correlate an agent, and a hostile relay cannot use a proof at another relay, even
if it forwards the proof immediately.

``seance.agent_tap`` calls ``agent_identity``; so does a program that embeds an agent. Reading and writing
the file blocks.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
import sys
import tempfile
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.logger import Logger

from seance.auth.identity import VERSION, base64url, framed, proof_message, thumbprint
from seance.errors import ConfigError
from seance.net import read_bounded

__all__ = ["AUTO", "NONE", "AgentKey", "agent_identity", "key_from_file", "state_folder"]

AUTO = "auto"
NONE = "none"

FILE_NAME = "agent-key"
MAX_FILE_BYTES = 256

_ROOT_BYTES = 32
_LINE = re.compile(rb"seance-agent-key-v1 ([\w-]{43})\r?\n?", re.ASCII)

_log = Logger()


class AgentKey:
    """The identity of an agent; implements ``AgentIdentity`` of ``seance.core.interfaces``.

    Create it with ``agent_identity`` or ``key_from_file``.

    Args:
        root: 32 random bytes.
    """

    __slots__ = ("_root",)

    def __init__(self, root: bytes) -> None:
        if len(root) != _ROOT_BYTES:
            msg = f"the root of a key has {_ROOT_BYTES} bytes, not {len(root)}"
            raise ValueError(msg)
        self._root = root

    def announce(self, host: str) -> str:
        """Return the value of ``Seance-Agent`` that names the identity without a proof."""
        return f"{VERSION}.{base64url(self._public(host))}"

    def prove(self, nonce: str, room: str, host: str) -> str:
        """Return the value of ``Seance-Agent`` that proves the identity.

        Args:
            nonce: The nonce from the relay.
            room: The room.
            host: Host and port of the relay, as dialled. Use the same for each connection, because
                each host has its own key.
        """
        signature = self._key(host).sign(proof_message(nonce, room, host))
        return f"{self.announce(host)}.{nonce}.{base64url(signature)}"

    def identity(self, host: str) -> str:
        """Return the name of this agent at the relay ``host``."""
        return thumbprint(self._public(host))

    def _key(self, host: str) -> Ed25519PrivateKey:
        # One block of HKDF-Expand (RFC 5869); HKDF-Extract is not needed for a uniform root.
        seed = hmac.digest(self._root, framed("seance agent key v1", host.lower()) + b"\x01", "sha256")
        return Ed25519PrivateKey.from_private_bytes(seed)

    def _public(self, host: str) -> bytes:
        return self._key(host).public_key().public_bytes_raw()


def agent_identity(
    text: str = AUTO, environment: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> AgentKey | None:
    """Return the identity of an agent.

    Args:
        text: The option's value: a file, ``auto`` for the file in the state folder, or ``none``.
        environment: The environment variables.
        platform: The value of ``sys.platform``.

    Returns:
        The key, which is created if the file does not exist; None for ``none``. If the state folder of
        ``auto`` is not writable, a temporary key, with a warning in the log.

    Raises:
        ConfigError: The file belongs to another user, others can read it, or it does not contain a key;
            or the named file cannot be read or created.
    """
    if text == NONE:
        return None
    if text != AUTO:
        try:
            return key_from_file(Path(text))
        except OSError as error:
            msg = f"The agent's key {text} cannot be read or created ({error.strerror}); name another file."
            raise ConfigError(msg, code="identity") from error
    try:
        folder = state_folder(environment, platform)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return key_from_file(folder / FILE_NAME)
    except (OSError, RuntimeError) as error:
        _log.warn(
            "The agent's key cannot be stored ({reason}). After a restart this agent is a different one, and "
            "its room may be reserved for a minute. Name a writable file with --identity FILE.",
            reason=getattr(error, "strerror", None) or str(error),
            event="identity.not_kept",
        )
        return AgentKey(secrets.token_bytes(_ROOT_BYTES))


def state_folder(environment: Mapping[str, str], platform: str) -> Path:
    """Return the state folder on this platform.

    Raises:
        RuntimeError: The user's home folder is unknown.
    """
    if platform == "win32":
        local = environment.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "Seance"
    home = Path(environment.get("HOME") or Path.home())
    if platform == "darwin":
        return home / "Library" / "Application Support" / "Seance"
    # XDG Base Directory Specification: a relative path must be ignored.
    state = environment.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else home / ".local" / "state") / "seance"


def key_from_file(path: Path) -> AgentKey:
    """Return the key in a file, which is created with mode 0600 if it does not exist.

    Raises:
        ConfigError: The file belongs to another user, others can read it, or it does not contain a key.
        OSError: The file cannot be read or created.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        _create(path)
    return _read(path)


def _read(path: Path) -> AgentKey:
    remedy = "name another file with --identity, or remove this one to get a new key"
    try:
        content, status = read_bounded(path, MAX_FILE_BYTES)
    except ValueError as error:
        msg = f"The agent's key {path} {error}; {remedy}."
        raise ConfigError(msg, code="identity") from error
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        msg = f"The agent's key {path} belongs to another user; {remedy}."
        raise ConfigError(msg, code="identity")
    if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
        msg = (
            f"The agent's key {path} can be read by others, who could impersonate this agent. Remove it to"
            f" get a new key, or run chmod 600 {path} if it has not been copied."
        )
        raise ConfigError(msg, code="identity")
    match = _LINE.fullmatch(content)
    root = urlsafe_b64decode(match[1] + b"=") if match else b""
    if match is None or base64url(root).encode() != match[1]:
        msg = f"The file {path} does not contain the key of an agent; {remedy}."
        raise ConfigError(msg, code="identity")
    return AgentKey(root)


def _create(path: Path) -> None:
    """Create the file atomically. If another agent has created it meanwhile, keep that key."""
    descriptor, name = tempfile.mkstemp(prefix=f".{FILE_NAME}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"seance-agent-key-v1 %s\n" % base64url(secrets.token_bytes(_ROOT_BYTES)).encode())
            file.flush()
            os.fsync(descriptor)
        # Unlike a rename, a link never replaces an existing file.
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)
