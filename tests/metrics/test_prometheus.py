"""Prometheus scrapes a relay and an agent, and every plot of the dashboard has values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.metrics.test_operators import CONFIG, DASHBOARDS, RULES, expressions, rules
from tests.processes import AgentProcess, Process, RelayProcess, free_port, running_process, until
from tests.tools import require

LOCAL = "tcp:0:interface=127.0.0.1"

NEEDS_EVENTS = re.compile(r"histogram_quantile|seance_(refusals|carrier)")
"""Expressions without a value before the first event."""


def admin_port(process: Process) -> int:
    return int(process.when_line(r"Admin pages: http://localhost:(\d+)/")[1])


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[httpx.Client]:
    """Run Prometheus with the example configuration, other ports and short intervals."""
    require("prometheus")
    with RelayProcess("--admin", LOCAL) as relay:
        of_relay = admin_port(relay)
        with AgentProcess("r", "--relay", relay.url, "--admin", "0") as agent:
            of_agent = admin_port(agent)
            agent.when_connected()
            config: dict[str, Any] = yaml.safe_load(CONFIG.read_text("utf-8"))
            config["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
            config["rule_files"] = [str(RULES)]
            [job] = config["scrape_configs"]
            assert job["job_name"] == "seance-relay"
            job["static_configs"][0]["targets"] = [f"localhost:{of_relay}"]
            targets = [{"targets": [f"localhost:{of_agent}"]}]
            config["scrape_configs"].append({"job_name": "seance-agent", "static_configs": targets})
            file = tmp_path / "prometheus.yml"
            file.write_text(json.dumps(config))
            port = free_port()
            argv = [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ]
            ready = "Server is ready to receive web requests"
            with (
                running_process(argv, name="prometheus", ready=ready, cwd=tmp_path),
                httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client,
            ):
                yield client


def ask(prometheus: httpx.Client, expression: str) -> list[Any]:
    answer = prometheus.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    found: list[Any] = answer["data"]["result"]
    return found


@pytest.mark.slow
def test_prometheus_scrapes_both_and_every_expression_has_a_value(prometheus: httpx.Client) -> None:
    def is_up() -> bool:
        return {one["metric"]["job"]: one["value"][1] for one in ask(prometheus, "up")} == {
            "seance-relay": "1",
            "seance-agent": "1",
        }

    until("both are up", is_up, deadline_seconds=60)
    until("two samples for rates", lambda: bool(ask(prometheus, "rate(seance_streams_opened_total[1m])")))
    [agents] = ask(prometheus, 'seance_agents{job="seance-relay"}')
    assert agents["value"][1] == "1"
    board = DASHBOARDS[0].read_text("utf-8")
    shown = [one for one in expressions() if json.dumps(one)[1:-1] in board]
    assert len(shown) > 30
    for expression in shown:
        plain = expression.replace("$__rate_interval", "1m").replace("$instance", ".+")
        found = ask(prometheus, plain)
        assert found or NEEDS_EVENTS.search(plain), plain
    loaded = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    state = {rule["name"]: (rule["health"], rule["state"]) for group in loaded for rule in group["rules"]}
    assert state == {rule["alert"]: ("ok", "inactive") for rule in rules()}
