"""The command ``seance bench``."""

from __future__ import annotations

import json
import signal
from argparse import Namespace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from seance.bench import main
from seance.bench.command import _write
from seance.errors import ConfigError
from tests.bench.test_output import comparison
from tests.commands import check_one_sentence, started
from tests.processes import running_agent, running_relay


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--loads", "echo,nonsense"], "'nonsense' is not a load; write some of connect,"),
        (["--seconds", "0"], "'0' is not a time"),
        (["--seconds", "soon"], "'soon' is not a time"),
        (["--rounds", "0"], "'0' is not a number of rounds"),
        (["--plot", "missing/plot.svg"], "'missing/plot.svg' cannot be written: 'missing' is not a folder"),
        (["--plot", "."], "'.' is a folder"),
        (["--serve", "x"], "'x' is not a port"),
        (["--direct-url", "ws://h/"], "--direct-url has no effect without --url"),
        (["here"], "unrecognized arguments: here"),
    ],
)
def test_a_wrong_option_is_one_line_on_stderr(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check_one_sentence(main, "bench", options, sentence, capsys)


def test_the_report_is_written_before_a_plot_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone" / "plot.svg"
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        _write(comparison(), Namespace(plot=gone, json=True))
    assert json.loads(capsys.readouterr().out)["loads"]


@pytest.mark.slow
def test_it_starts_and_measures_a_tunnel(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    options = ("--quick", "--seconds", "0.1", "--json", "--quiet", "--plot", str(plot))
    # The subprocesses must not inherit the options of the user's own relay or agent.
    with started("bench", *options, SEANCE_LISTEN="nonsense", SEANCE_ROOM="nonsense") as process:
        assert process.when_exited(deadline_seconds=120) == 0, process.output
        found = json.loads(process.output)
    assert set(found["sides"]) == {"direct", "tunnel"}
    for load in found["loads"]:
        for side in ("direct", "tunnel"):
            assert any(load[side].values()), load
    assert found["loads"][1]["tunnel"]["relay_cpu_seconds"] is not None
    assert found["loads"][1]["direct"]["relay_cpu_seconds"] is None
    assert found["idle"]["clients"] == 200
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


@pytest.mark.slow
def test_it_measures_an_existing_tunnel() -> None:
    with started("bench", "--serve", "0") as server:
        port = int(server.when_line(r"port (\d+)")[1])
        with running_relay() as relay, running_agent(relay, "r", local_port=port):
            url = f"{relay.url}/client?room=r"
            options = ("--url", url, "--direct-url", f"ws://127.0.0.1:{port}", "--quick", "--seconds", "0.1")
            with started("bench", *options) as process:
                assert process.when_exited(deadline_seconds=120) == 0, process.output
                assert "fan" not in process.output
                assert "1 sends to 50" in process.output
                assert "CPU" not in process.output, "the processes are not ours"


@pytest.mark.slow
def test_a_room_without_an_agent_is_one_line_on_stderr() -> None:
    with running_relay() as relay, started("bench", "--url", f"{relay.url}/c/nobody", "--quick") as process:
        assert process.when_exited() == 1
        [line] = process.output.splitlines()
    assert line == "seance bench: Room not found (agent not connected)"


@pytest.mark.slow
def test_an_interrupted_run_stops_its_subprocesses() -> None:
    with started("bench", "--quick", "--seconds", "30") as process:
        process.when_line(r"idle clients|connecting", deadline_seconds=60)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 3
        process.signal(signal.SIGINT)
        assert process.when_exited() == 1
        assert process.output.splitlines()[-1] == "seance bench: interrupted."
        process.check_quiet()
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
