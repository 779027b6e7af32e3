"""What lets a link outlive its carriers: counts, checks and proofs. Pure: bytes and times in, decisions out.

A link is a byte stream in each direction, and a carrier is whatever moves its bytes at the moment.
``Continuity`` knows what has to be sent again when the next carrier comes, ``Proof`` whether
whoever brings it is the one who left, ``Heartbeat`` when a carrier must be taken for dead, ``AckTimeout``
when a peer must. The words that the two sides exchange about it are in ``seance.resume.messages``. Wire
format: docs/protocol.md, "Resumption". Whoever owns sockets and timers calls this: ``seance.carrier``.
"""

from seance.resume.ack_timeout import AckTimeout
from seance.resume.continuity import KEPT_BYTES, Continuity
from seance.resume.heartbeat import CHECK_SECONDS, Heartbeat, HeartbeatAction
from seance.resume.incoming import ACK_AFTER_BYTES, ACK_AFTER_SECONDS, Incoming
from seance.resume.messages import BYE, RESUME_FIELD, SESSION_FIELD, Ack, Drain, ResumeRequest, SessionInfo
from seance.resume.outgoing import Outgoing
from seance.resume.proof import Proof

__all__ = [
    "ACK_AFTER_BYTES",
    "ACK_AFTER_SECONDS",
    "BYE",
    "CHECK_SECONDS",
    "KEPT_BYTES",
    "RESUME_FIELD",
    "SESSION_FIELD",
    "Ack",
    "AckTimeout",
    "Continuity",
    "Drain",
    "Heartbeat",
    "HeartbeatAction",
    "Incoming",
    "Outgoing",
    "Proof",
    "ResumeRequest",
    "SessionInfo",
]
