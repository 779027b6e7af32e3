"""Agents that return to the relay while another agent has their room, or their old session is kept."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from seance.agent.service import AgentState, AgentStatus
from tests.agent.test_identity import ALICE, IdentityRig, status_of
from tests.relay.rig import until


@ensureDeferred
async def test_a_replaced_process_that_resumes_gets_room_replaced() -> None:
    """It has not read the reason of the close: it was suspended, or the carrier was dead by then."""
    async with IdentityRig() as rig:
        wishes = []
        for _ in range(3):
            agent = await rig.attach_as(ALICE)
            relay_link = agent.relay_link
            assert relay_link is not None
            resume_request = relay_link.resume_request()
            assert resume_request is not None
            wishes.append(resume_request)
        link = rig.relay.rooms._table.find("r")
        protocol = "Sec-WebSocket-Protocol: seance.resume.v1"
        for resume_request in wishes[:2]:
            claim = ALICE.prove(rig.nonce(), "r", rig.host)
            late = await rig.ask(claim, protocol, f"Seance-Resume: {resume_request.written()}")
            assert status_of(late) == 409
            assert b"\r\nSeance-Replace: no\r\n" in late.received
            assert b"Another process with this agent's key" in late.received
        assert rig.relay.rooms._table.find("r") is link
        assert link.is_attached


@ensureDeferred
async def test_a_replaced_agent_waits_until_the_other_has_disconnected() -> None:
    async with IdentityRig() as rig:
        first = await rig.attach_as(ALICE)
        news: list[AgentStatus] = []
        first.on_status(news.append)
        second = rig.make_agent_as(ALICE)
        rig.relay.rooms._table.find("r").on_change = lambda link: link.is_resuming and second.startService()  # type: ignore[func-returns-value]
        first._waits.quick._cap_seconds = first._waits.quick._bound_seconds = 60.0
        first._waits.quick._random = lambda: 1.0
        assert first.relay_link is not None
        first.relay_link.drop_carrier()
        await second.when_connected()
        first.check_now()
        await until(
            lambda: any(
                status.code == "room_replaced" or "Another process" in status.sentence for status in news
            )
        )
        assert second.status.state is AgentState.CONNECTED
        await second.stopService()
        await first.when_connected()


@ensureDeferred
async def test_an_agent_without_identity_is_refused_while_its_old_session_is_kept() -> None:
    async with IdentityRig(relay={"resume_seconds": 1.0}) as rig:
        agent = await rig.attach_as(None, backoff_base_seconds=60.0, resume_backoff_cap_seconds=60.0)
        assert agent.relay_link is not None
        agent.relay_link.drop_carrier()
        await until(lambda: rig.relay.rooms._table.find("r").is_resuming)
        await agent.stopService()
        late = await rig.ask()
        assert status_of(late) == 409
        assert b"Retry-After: 1\r\n" in late.received
        assert b"whose connection was lost" in late.received
        await until(lambda: rig.relay.rooms.room_count == 0)
        await rig.attach_as(None)
