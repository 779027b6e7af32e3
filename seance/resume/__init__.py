"""State that lets a link continue after its carrier is lost. Pure: bytes and times in, decisions out.

A link is one byte stream in each direction. A carrier is the connection that moves its bytes at present.

* ``Continuity`` keeps what a new carrier has to send again.
* ``Proof`` checks the secret of an agent that resumes a session.
* ``Heartbeat`` detects dead carriers.
* ``AckTimeout`` detects peers that do not acknowledge data.
* ``seance.resume.messages`` has the header fields and control messages.

``seance.carrier`` calls this package and owns the sockets and timers. Wire format: docs/protocol.md,
"Resumption".
"""

from seance.resume.ack_timeout import AckTimeout
from seance.resume.continuity import KEPT_BYTES, Continuity
from seance.resume.heartbeat import CHECK_SECONDS, Heartbeat, HeartbeatAction
from seance.resume.incoming import ACK_AFTER_BYTES, ACK_AFTER_SECONDS, Incoming
from seance.resume.messages import (
    BYE,
    RESUME_FIELD,
    SESSION_FIELD,
    Ack,
    DrainNotice,
    ResumeRequest,
    SessionInfo,
)
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
    "DrainNotice",
    "Heartbeat",
    "HeartbeatAction",
    "Incoming",
    "Outgoing",
    "Proof",
    "ResumeRequest",
    "SessionInfo",
]
