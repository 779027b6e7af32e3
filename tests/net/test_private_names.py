"""The private names of Twisted and Autobahn that ``seance`` overrides or calls still exist.

A new version may drop or rename them without notice, so setup.cfg has upper bounds. When this test fails
after an upgrade, look at how ``seance/net`` and ``seance/carrier`` use the names that it lists.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from autobahn.twisted.websocket import WebSocketAdapterProtocol, WebSocketServerProtocol
from twisted.internet import tcp
from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock

from tests.tools import ROOT

CONNECTION = (
    "_aborting",
    "_addressType",
    "_isSendBufferFull",
    "_tempDataBuffer",
    "_tempDataLen",
    "_writeDisconnected",
    "bufferSize",
    "dataBuffer",
    "offset",
    "producerPaused",
    "streamingProducer",
)
REACTOR = (
    "_cancelCallLater",
    "_disconnectSelectable",
    "_doReadOrWrite",
    "_justStopped",
    "_moveCallLaterSooner",
    "_newTimedCalls",
    "_poller",
    "_selectables",
    "_started",
    "threadCallQueue",
)


def test_a_connection_of_twisted_has_the_names_that_we_override() -> None:
    with socket.socket() as unconnected:
        connection = tcp.Connection(unconnected, None, Clock())  # type: ignore[arg-type]  # not used here
    names = {*vars(connection), *dir(tcp.Connection), *dir(tcp.Server)}
    assert set(CONNECTION) - names == set()
    assert hasattr(tcp.Connector, "_makeTransport")
    assert tcp.Port.transport is tcp.Server


def test_a_reactor_of_twisted_has_the_names_that_we_override() -> None:
    epollreactor = pytest.importorskip("twisted.internet.epollreactor")
    source = Path(epollreactor.__file__).with_name("base.py").read_text("utf-8")
    names = {*dir(epollreactor.EPollReactor), *(name for name in REACTOR if f"self.{name}" in source)}
    names |= {name for name in REACTOR if f"self.{name}" in Path(epollreactor.__file__).read_text("utf-8")}
    assert set(REACTOR) - names == set()
    assert {"canceller", "resetter", "delayed_time"} <= {
        *vars(DelayedCall(0, print, (), {}, print, print)),
    }


def test_autobahn_has_the_names_that_we_override() -> None:
    assert hasattr(WebSocketAdapterProtocol, "_dataReceived") or hasattr(
        WebSocketServerProtocol, "_dataReceived"
    )
    assert hasattr(WebSocketServerProtocol, "consumeData")
    assert hasattr(WebSocketServerProtocol, "_connectionMade")


def test_setup_cfg_bounds_the_versions_whose_private_names_we_use() -> None:
    text = (ROOT / "setup.cfg").read_text("utf-8")
    assert "Twisted[tls] >= 24.11, < 27" in text
    assert "autobahn >= 26.7.1, < 27" in text


def test_the_masking_extension_of_autobahn_has_the_functions_that_we_call() -> None:
    masker = pytest.importorskip("_nvx_xormasker", reason="Autobahn is installed without its C extension")
    assert {"nvx_xormask_new", "nvx_xormask_process", "nvx_xormask_free"} <= set(dir(masker.lib))
