"""The hops behind the relay: token, agent, local server, the tunnel as a whole, and what is spoken in it.

As in ``seance.doctor.network_checks``, each function looks at one. What the tunnel says about the agent or
the local server is told as theirs.
"""

from __future__ import annotations

import json
import time
from urllib.parse import quote

from seance.core.interfaces import TokenRole
from seance.doctor.asking import Answer, Way, ask, open_websocket
from seance.doctor.context import Context, well
from seance.doctor.findings import Finding, Hop, Mark, Trouble
from seance.doctor.probe import Speech, Spoken, converse
from seance.doctor.tokens import Paper, age, read_papers
from seance.errors import Gone
from seance.net import ClientTls, is_loopback_host

__all__ = ["agent", "local", "sync", "token", "tunnel"]

ASK_WITH_CLIENTS = (
    "Only a client's token may ask after a room: give one as well, with a second --token-file (seance token "
    "--key FILE --room {room} --role client)."
)

SAFE = "/~!$&'()*+,;=:@%"
"""What stays as it is in a document's name (RFC 3986, 3.3); a "%" is of what is quoted."""

NOT_ABOUT_ORIGIN = (429, 502, 503, 504)
"""What a relay, an agent or a proxy answers for reasons of its own, or of the moment."""

ORIGIN_LIST = b"its Origin is not on the list"
"""What the relay says of an Origin that its own list, or the token's, does not hold."""

START_THE_AGENT = "seance agent --room {room} --relay {relay}"


async def token(ground: Context) -> Finding:
    """Read the tokens, and ask the relay whether it takes one."""
    room = str(ground.orders.room)
    now = time.time() - (ground.report.clock_ahead_seconds or 0.0)
    ground.papers = read_papers(list(ground.orders.token_files), room, now)
    paper = ground.papers.get(TokenRole.CLIENT) or next(iter(ground.papers.values()), None)
    target = f"{ground.its_relay.base_path}/c/{room}/status"
    try:
        status = await ask(
            ground.reactor, ground.its_way, target, _authorization(paper), ground.timeout_seconds
        )
    except Gone as gone:
        raise Trouble(
            f"The relay has answered before, and does not say whether the token is good: {gone}.",
            "If its keys come from a URL (--auth-jwks), see whether it reaches that; its log says so.",
        ) from gone
    shown = "" if paper is None else f"it is {paper}"
    if status.status == 403 and paper is not None and paper.role is not TokenRole.CLIENT:
        # Only of a token whose signature it has found good does a relay say that it is for another role.
        return well(Hop.TOKEN, f"the relay knows its key; {shown}", status.seconds)
    if status.status in (401, 403):
        raise _refused(status, paper, room)
    if status.status in (429, 503):
        raise Trouble(
            f"The relay does not answer for the room {room} now: {status.words}.",
            "Wait a little, and try again. If it stays so: 429 is a limit of the relay's (docs/security.md, "
            "Limits); 503 is a relay that stops, or cannot reach its keys (--auth-jwks), which its log says.",
        )
    ground.status = status
    if paper is None:
        return Finding(Hop.TOKEN, Mark.NOT_NEEDED, "this relay asks for none", seconds=status.seconds)
    return well(Hop.TOKEN, f"the relay lets it in; {shown}", status.seconds)


def _refused(status: Answer, paper: Paper | None, room: str) -> Trouble:
    if status.status == 403:
        return Trouble(
            f"The relay takes the token, and keeps it out of the room {room}: {status.words}.",
            "The room is on the relay's deny list (--deny), or the token is for web pages alone.",
        )
    if paper is None:
        return Trouble(
            "This relay asks for a token, and none was given.",
            "Name a file that holds one with --token-file: what the agent has, or better a client's "
            f"(seance token --key FILE --room {room} --role client).",
        )
    key = "it names none" if paper.key_id is None else f"it names {paper.key_id}"
    return Trouble(
        f"The relay does not take the token in {paper.path}, although it is in time and for this room: it "
        f"is {paper}.",
        f"It was signed with a key that the relay does not have ({key}): compare that with the relay's "
        "--auth-key or --auth-jwks. Or it was taken back, with --deny. The relay tells nobody which; it "
        "counts them apart in seance_refusals_total at its admin address.",
    )


async def agent(ground: Context) -> Finding:
    """See what the relay says of the room's agent."""
    status, room = ground.status, str(ground.orders.room)
    if status is None:
        return _not_tried(Hop.AGENT, ground)
    state, since = _state(status)
    start = START_THE_AGENT.format(room=room, relay=ground.orders.relay)
    if state == "online":
        return well(Hop.AGENT, f"one serves the room {room}, for {since} now")
    if state == "resuming":
        raise Trouble(
            f"The relay lost the connection of the room's agent {since} ago, and waits for it to come back.",
            "The agent's machine has lost its network, sleeps, or the agent has crashed: see there, "
            "and run seance doctor there. Until then its clients stay connected, for 45 s by default.",
        )
    if state == "away":
        raise Trouble(
            f"The agent of the room {room} has gone, {since} ago.",
            f"See whether it runs and what it logs, and start it again: {start}. If it runs, its machine "
            "does not reach the relay: run seance doctor there.",
        )
    if state == "unknown":
        raise Trouble(
            f"No agent serves the room {room}, nor has one lately.",
            "See whether the name is spelled as the agent's --room (capitals count), and start the agent: "
            f"{start}. If it runs, its log says why the relay does not take it: 401 or 403 its token, 409 "
            "that another agent has the name.",
        )
    said = f"the relay does not say: {status.words}"
    return Finding(Hop.AGENT, Mark.WARNING, said, "It may be an older one.")


def _state(status: Answer) -> tuple[str, str]:
    """Return what the relay says of a room, and since when."""
    try:
        said = json.loads(status.body) if status.status == 200 else {}
        return str(said.get("state", "")), age(float(said.get("since") or 0))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return "", ""


async def local(ground: Context) -> Finding:
    """Ask the local server directly, or else through the tunnel."""
    if ground.local is not None:
        return await _direct(ground)
    if ground.status is None:
        return _not_tried(Hop.LOCAL, ground)
    await _open(ground)
    return well(Hop.LOCAL, "it answers through the tunnel")


async def _direct(ground: Context) -> Finding:
    server = ground.local
    assert server is not None, "the caller has looked"
    trust = None
    if server.kind == "tls" and is_loopback_host(server.host):
        # Whose certificate it is does not matter on this machine; --local-ca is the agent's.
        trust = ClientTls(server.host, insecure=True)
    endpoint = server.endpoint(ground.reactor, ground.timeout_seconds, trust)
    way = Way(endpoint, server.host_header.decode(), f"The local server {server}")
    target = _document_target(ground)
    began = time.perf_counter()
    try:
        opened = await open_websocket(ground.reactor, way, target, {}, ground.timeout_seconds)
    except Gone as gone:
        raise _local_is_gone(gone, str(server)) from gone
    seconds = time.perf_counter() - began
    if isinstance(opened, Answer):
        raise _no_websocket(opened, f"The local server {server}", target)
    try:
        spoken = await converse(ground.reactor, opened, ground.timeout_seconds)
    except Gone as gone:
        raise Trouble(
            f"The local server {server} opens a WebSocket, but {gone}.", _after_opening(target)
        ) from gone
    if spoken.round_trip_seconds is not None:
        ground.report.round_trips["local"] = spoken.round_trip_seconds
    return well(Hop.LOCAL, f"{server} {_speech(spoken)}", seconds)


def _local_is_gone(gone: Gone, server: str) -> Trouble:
    if gone.code == "unreachable":
        return Trouble(
            f"{gone.sentence}.",
            "Start the document server, or correct --local, here and for the agent. A server in a "
            "container has to publish its port.",
        )
    if gone.code.startswith(("certificate", "tls")):
        return Trouble(
            gone.sentence, "See --local-ca of the agent; or drop tls:// if the server speaks none."
        )
    advice = f"Something listens at {server}, and it is no WebSocket server, or it hangs: see its log."
    if server.startswith("tls://"):
        advice += " Or it speaks no TLS: then drop tls://."
    return Trouble(f"{gone.sentence.rstrip('.')}.", advice)


async def tunnel(ground: Context) -> Finding:
    """Open a WebSocket, through relay and agent, to the local server."""
    if ground.status is None:
        return _not_tried(Hop.TUNNEL, ground)
    if ground.talk is None:
        await _open(ground)
    opens = "a WebSocket opens, from here to the local server and back"
    refused = await _refused_with_origin(ground)
    if refused is None:
        return well(Hop.TUNNEL, opens, ground.opened_seconds)
    origin = _public_origin(ground)
    return Finding(
        Hop.TUNNEL,
        Mark.WARNING,
        f"{opens}; but to a page with the Origin {origin} the local server answers {refused.words}",
        "It compares Origin with Host, as gorilla/websocket, coder/websocket and tornado do: start the agent "
        "with --rewrite-origin, or with --keep-host. Programs, which send no Origin, are not affected.",
        ground.opened_seconds,
    )


async def _refused_with_origin(ground: Context) -> Answer | None:
    """Ask as a browser would, with an Origin; returns the answer if the local server refuses that."""
    headers = {**_authorization(ground.papers.get(TokenRole.CLIENT)), "Origin": _public_origin(ground)}
    try:
        opened = await open_websocket(
            ground.reactor, ground.its_way, _client_target(ground), headers, ground.timeout_seconds
        )
    except Gone:
        return None  # Without an Origin it has just opened, so this tells nothing about the Origin.
    if not isinstance(opened, Answer):
        opened.close()
        return None
    if opened.status in NOT_ABOUT_ORIGIN or ORIGIN_LIST in opened.body:
        # The relay's own list may leave its own pages out; what it lists is then asked with another Origin.
        return None
    return opened


def _public_origin(ground: Context) -> str:
    relay = ground.its_relay
    return f"{'https' if relay.is_secure else 'http'}://{relay.host_header}"


def _client_target(ground: Context) -> str:
    return f"{ground.its_relay.base_path}/c/{ground.orders.room}{_document_target(ground)}"


async def _open(ground: Context) -> None:
    target = _client_target(ground)
    headers = _authorization(ground.papers.get(TokenRole.CLIENT))
    began = time.perf_counter()
    try:
        opened = await open_websocket(ground.reactor, ground.its_way, target, headers, ground.timeout_seconds)
    except Gone as gone:
        raise Trouble(
            f"A WebSocket through the tunnel does not open, although the agent counts as attached: {gone}.",
            "The agent's machine has just lost its network or sleeps, or the agent hangs: see there. With "
            "a slow local server, try a longer --timeout.",
            Hop.TUNNEL,
        ) from gone
    if isinstance(opened, Answer):
        raise _not_through(opened, ground)
    ground.talk, ground.opened_seconds = opened, time.perf_counter() - began


def _not_through(answer: Answer, ground: Context) -> Trouble:
    room = ground.orders.room
    is_relays = answer.is_plain_text and (answer.status == 503 or b"Room not found" in answer.body)
    if is_relays:
        return Trouble(
            f"The agent of the room {room} has gone in this moment: {answer.words}.",
            "Try again. If it comes and goes, the network of its machine does: see its log.",
            Hop.AGENT,
        )
    if answer.status == 429:
        return Trouble(
            f"The relay takes no further client: {answer.words}.",
            "A limit of the relay, the room or the token is reached: see docs/security.md, Limits.",
            Hop.TUNNEL,
        )
    if answer.status == 502 and answer.is_plain_text:
        sentence = f"The agent does not get through to its local server: {answer.words}."
        if ground.local is not None:
            return Trouble(
                f"{sentence} {ground.local} answers here, so the agent asks somewhere else.",
                "Compare the agent's --local with it; and see whether the agent that serves this room is the "
                "one on this machine, or a second one elsewhere.",
                Hop.LOCAL,
            )
        return Trouble(
            sentence,
            "On the agent's machine, see whether the document server runs, and whether the agent's --local "
            "is its address: seance doctor --local HOST:PORT tells. The agent's log has the reason.",
            Hop.LOCAL,
        )
    if answer.status in (502, 504):
        sentence = f"A proxy between here and the relay answers in its place: {answer.words}."
        return Trouble(
            sentence, "It gave up waiting for the relay: see its time-outs and its log.", Hop.TUNNEL
        )
    return _no_websocket(answer, "The local server", _document_target(ground))


def _no_websocket(answer: Answer, name: str, target: str) -> Trouble:
    return Trouble(
        f"{name} answers a WebSocket upgrade for {target} with {answer.words}.",
        "If it asks for a login, or knows only documents that exist, name one with --document NAME (with "
        "its query, if it needs one). If not, it is no document server: correct the agent's --local.",
        Hop.LOCAL,
    )


async def sync(ground: Context) -> Finding:
    """Speak Yjs with the local server, or whatever it speaks."""
    talk, ground.talk = ground.talk, None
    if talk is None:
        return _not_tried(Hop.SYNC, ground)
    try:
        spoken = await converse(ground.reactor, talk, ground.timeout_seconds)
    except Gone as gone:
        raise Trouble(
            f"The WebSocket through the tunnel opens, but {gone}.", _after_opening(_document_target(ground))
        ) from gone
    if spoken.round_trip_seconds is not None:
        ground.report.round_trips["tunnel"] = spoken.round_trip_seconds
    return well(Hop.SYNC, f"the local server {_speech(spoken)}", spoken.seconds)


def _after_opening(target: str) -> str:
    return (
        f"Look into the log of the document server for {target}. One that wants a login, or a document that "
        "is there, may be asked for another with --document NAME."
    )


def _speech(spoken: Spoken) -> str:
    if spoken.speech is Speech.YJS:
        return f"answers a Yjs sync ({spoken.update_bytes} bytes)"
    if spoken.speech is Speech.ECHO:
        return "echoes"
    return "answers pings; a Yjs sync it does not answer, as is usual where a login comes first (Hocuspocus)"


def _not_tried(hop: Hop, ground: Context) -> Finding:
    return Finding(hop, Mark.NOT_TRIED, "not tried", ASK_WITH_CLIENTS.format(room=ground.orders.room))


def _authorization(paper: Paper | None) -> dict[str, str]:
    return {} if paper is None else {"Authorization": f"Bearer {paper.text}"}


def _document_target(ground: Context) -> str:
    name, question, query = ground.orders.document.partition("?")
    return f"/{quote(name.lstrip('/'), safe=SAFE)}{question}{quote(query, safe=SAFE + '?')}"
