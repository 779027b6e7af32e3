"""The agent's own key: made at its first start, kept for its owner alone, proven at each dial.

It is what makes an agent that returns the same agent (``seance.auth.identity`` is the relay's
side). Nobody has to know of it: without a word from a person it lies in the folder where programs
keep their state. Several agents of one person share it, and so do two that start at once.

The file holds no signing key but the root of one for each relay, which is made of it and the
relay's host and port. So two relays see two agents that have nothing in common, and what an agent
proves to a hostile relay is of no use at any other, be it ever so quick to pass it on.

Called by ``seance.agent_tap``; a program that embeds an agent calls ``agent_identity`` itself.
Reading and writing block, once, for a file of one line.
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
LONGEST_FILE = 256

_ROOT_BYTES = 32
_LINE = re.compile(rb"seance-agent-key-v1 ([\w-]{43})\r?\n?", re.ASCII)

_log = Logger()


class AgentKey:
    """Who an agent is; implements ``AgentIdentity`` of ``seance.core.interfaces``.

    Make one with ``agent_identity`` or ``key_from_file``.

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
        """Return the ``Seance-Agent`` that says who we are and proves nothing."""
        return f"{VERSION}.{base64url(self._public(host))}"

    def prove(self, nonce: str, room: str, host: str) -> str:
        """Return the ``Seance-Agent`` that proves it.

        Args:
            nonce: From the relay.
            room: The room.
            host: Host and port of the relay as they were dialled; the same each time, because
                another host has another key.
        """
        signature = self._key(host).sign(proof_message(nonce, room, host))
        return f"{self.announce(host)}.{nonce}.{base64url(signature)}"

    def identity(self, host: str) -> str:
        """Return what the relay at ``host`` calls us."""
        return thumbprint(self._public(host))

    def _key(self, host: str) -> Ed25519PrivateKey:
        # One block of HKDF-Expand (RFC 5869); the root is uniform as it is.
        seed = hmac.digest(self._root, framed("seance agent key v1", host.lower()) + b"\x01", "sha256")
        return Ed25519PrivateKey.from_private_bytes(seed)

    def _public(self, host: str) -> bytes:
        return self._key(host).public_key().public_bytes_raw()


def agent_identity(
    text: str = AUTO, environment: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> AgentKey | None:
    """Return who an agent is to be.

    Args:
        text: What a person said: a file, ``auto`` for the one in the state folder, or ``none``.
        environment: The environment variables.
        platform: As ``sys.platform`` has it.

    Returns:
        The key, made if there was none. None for ``none``. For ``auto`` on a machine where
        nothing can be kept, one that lasts as long as the process, and a line in the log.

    Raises:
        ConfigError: There is a key, but others can read it, it is not ours, or it is no key; or
            the file that was named cannot be read or made.
    """
    if text == NONE:
        return None
    if text != AUTO:
        try:
            return key_from_file(Path(text))
        except OSError as error:
            msg = f"The agent's key {text} cannot be read or made ({error.strerror}); name another file."
            raise ConfigError(msg, code="identity") from error
    try:
        folder = state_folder(environment, platform)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return key_from_file(folder / FILE_NAME)
    except (OSError, RuntimeError) as error:
        _log.warn(
            "The agent's key cannot be kept ({reason}): after a restart this agent counts as another one, "
            "for which its room may stay closed a minute; --identity FILE names a place",
            reason=getattr(error, "strerror", None) or str(error),
            event="identity.not_kept",
        )
        return AgentKey(secrets.token_bytes(_ROOT_BYTES))


def state_folder(environment: Mapping[str, str], platform: str) -> Path:
    """Return where programs of ours keep their state on this platform.

    Raises:
        RuntimeError: Nobody knows the person's home.
    """
    if platform == "win32":
        local = environment.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "Seance"
    home = Path(environment.get("HOME") or Path.home())
    if platform == "darwin":
        return home / "Library" / "Application Support" / "Seance"
    # XDG Base Directory Specification: a relative path is to be ignored.
    state = environment.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else home / ".local" / "state") / "seance"


def key_from_file(path: Path) -> AgentKey:
    """Return the key in a file, which is made with mode 0600 if it is not there.

    Raises:
        ConfigError: Others can read it, it is not ours, or it is no key.
        OSError: It cannot be read or made.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        _make(path)
    return _read(path)


def _read(path: Path) -> AgentKey:
    remedy = "name another file with --identity, or remove this one, and a new key is made"
    try:
        content, status = read_bounded(path, LONGEST_FILE)
    except ValueError as error:
        msg = f"The agent's key {path} {error}; {remedy}."
        raise ConfigError(msg, code="identity") from error
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        msg = f"The agent's key {path} belongs to another user; {remedy}."
        raise ConfigError(msg, code="identity")
    if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
        msg = (
            f"The agent's key {path} can be read by others, who could pass for this agent; remove it, and a "
            f"new key is made, or say chmod 600 {path} if you know that nobody has."
        )
        raise ConfigError(msg, code="identity")
    match = _LINE.fullmatch(content)
    root = urlsafe_b64decode(match[1] + b"=") if match else b""
    if match is None or base64url(root).encode() != match[1]:
        msg = f"The agent's key {path} holds something else than a key of an agent; {remedy}."
        raise ConfigError(msg, code="identity")
    return AgentKey(root)


def _make(path: Path) -> None:
    """Make the file, whole or not at all. If another agent was first, its key stays."""
    descriptor, name = tempfile.mkstemp(prefix=f".{FILE_NAME}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"seance-agent-key-v1 %s\n" % base64url(secrets.token_bytes(_ROOT_BYTES)).encode())
            file.flush()
            os.fsync(descriptor)
        # Unlike a rename, a link never replaces what is there.
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)
