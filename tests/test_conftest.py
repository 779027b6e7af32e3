"""``tests/conftest.py`` finds every fault that its docstring names.

A small test file with every fault runs in a separate pytest, under the same ``conftest.py``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import ROOT

pytestmark = pytest.mark.slow

CONFTEST = """
import tests.conftest
from tests.conftest import *

tests.conftest.SETTLE_SECONDS = 0.2
"""

FAULTS = """
import pytest
import pytest_twisted
from twisted.internet import defer, endpoints, protocol, reactor, task
from twisted.logger import Logger

log = Logger()
kept = []
nothing = protocol.Factory.forProtocol(protocol.Protocol)


async def connect(end):
    port = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(nothing)
    dial = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    connection = await endpoints.connectProtocol(dial, protocol.Protocol())
    kept.append(connection)
    end(connection)
    await port.stopListening()


def test_good_plain(): pass
async def test_good_wait(): await task.deferLater(reactor, 0.001)
async def test_good_connection(): await connect(lambda one: one.transport.loseConnection())
async def test_bad_assertion_in_a_coroutine(): assert await task.deferLater(reactor, 0, int)
def test_bad_logged_error(): log.error("no {good}", good=1)
def test_good_logged_warning(): log.warn("not {good}", good=1)


def test_bad_logged_failure():
    try:
        1 / 0
    except ZeroDivisionError:
        log.failure("it broke")


def test_good_taken_failure(watch):
    test_bad_logged_failure()
    [event] = watch.take(ZeroDivisionError)
    assert event["log_format"] == "it broke"


def test_bad_nothing_to_take(watch): watch.take(ZeroDivisionError)


def test_bad_other_failure_taken(watch):
    test_bad_logged_failure()
    watch.take(KeyError)


def test_bad_lost_error(): defer.fail(KeyError("lost"))


def test_bad_lost_error_in_a_cycle():
    lost = defer.fail(KeyError("lost"))
    lost.itself = lost


def test_bad_delayed_call(): reactor.callLater(1000, print)
def test_good_delayed_call_that_ends(): reactor.callLater(0.05, int)
def test_bad_listening_port(): reactor.listenTCP(0, nothing, interface="127.0.0.1")
async def test_bad_open_connection(): await connect(lambda one: None)
async def test_bad_paused_connection(): await connect(lambda one: one.transport.pauseProducing())


@pytest.mark.leaves_running("its own reasons")
def test_good_allowed_leftover(): reactor.callLater(0.01, int)


@pytest.mark.leaves_running
def test_bad_leftover_without_a_reason(): pass


@pytest.mark.timeout(4)
async def test_bad_endless_wait(): await defer.Deferred()


@pytest_twisted.async_fixture
async def endless(): await defer.Deferred()


@pytest.mark.timeout(4)
def test_bad_endless_fixture(endless): pass


async def forgotten(): pass
def test_bad_coroutine_that_nobody_awaits(): forgotten()
def test_skip(): pytest.skip("it wants to")


@pytest.mark.xfail(reason="known")
def test_known(): raise AssertionError


@pytest.mark.slow
def test_slow(): pass


def test_good_after_all_that(): pass
"""


def run_pytest(folder: Path, *flags: str) -> dict[str, str]:
    """Run the file of faults; return the worst verdict on each test."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_faults.py").write_text(FAULTS)
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *config,
        "-v",
        "--color=no",
        *flags,
        str(folder / "test_faults.py"),
    ]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    said = re.findall(r"test_faults\.py::(\w+) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)", finished.stdout)
    assert said, finished.stdout + finished.stderr
    order = ["PASSED", "XFAIL", "SKIPPED", "ERROR", "FAILED"]
    verdicts: dict[str, str] = {}
    for name, verdict in said:
        verdicts[name] = max(verdicts.get(name, "PASSED"), verdict, key=order.index)
    return verdicts


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_pytest(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def strict_verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    flags = ("--slow", "--forbid-skips", "-k", "skip or slow or known or plain")
    return run_pytest(tmp_path_factory.mktemp("strict"), *flags)


NAMES = re.findall(r"def (test_\w+)", FAULTS)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("test_bad")])
def test_a_fault_fails_its_test(name: str, verdicts: dict[str, str]) -> None:
    assert verdicts[name] in ("FAILED", "ERROR")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("test_good")])
def test_a_test_without_a_fault_passes(name: str, verdicts: dict[str, str]) -> None:
    assert verdicts[name] == "PASSED"


def test_without_flags_slow_tests_are_deselected_and_skips_allowed(verdicts: dict[str, str]) -> None:
    assert (verdicts["test_skip"], verdicts["test_known"]) == ("SKIPPED", "XFAIL")
    assert "test_slow" not in verdicts


def test_with_the_flags_slow_tests_run_and_a_skip_fails(strict_verdicts: dict[str, str]) -> None:
    assert strict_verdicts["test_skip"] == "FAILED"
    assert strict_verdicts["test_slow"] == strict_verdicts["test_good_plain"] == "PASSED"
    assert strict_verdicts["test_known"] == "XFAIL"
