"""Relative paths with ``twistd --rundir``: they refer to the directory where the command was started."""

from __future__ import annotations

from pathlib import Path

import pytest

from seance.cli.tokens import keygen
from seance.core.settings import AgentSettings, RelaySettings
from seance.options import Program
from seance.options.paths import with_absolute_paths
from tests.processes import Process, environment, twistd


def test_files_and_sockets_of_a_relay_become_absolute() -> None:
    settings = RelaySettings(
        listen=(
            "tcp:80",
            "unix:a.sock:mode=600",
            "haproxy:unix:b",
            "unix:address=c",
            "unix:/d",
            "ssl:443",
        ),
        tls_cert="chain.pem",
        auth_key=("one.pub", "/etc/two.pub"),
        auth_jwks="https://example.com/keys",
        deny="../deny",
        admin="unix:admin.sock",
    )
    found = with_absolute_paths(settings, Program.RELAY, "/srv/a:b")
    assert found.listen == (
        "tcp:80",
        r"unix:/srv/a\:b/a.sock:mode=600",
        r"haproxy:unix:/srv/a\:b/b",
        r"unix:address=/srv/a\:b/c",
        "unix:/d",
        "ssl:443",
    )
    assert (found.tls_cert, found.tls_key) == ("/srv/a:b/chain.pem", None)
    assert found.auth_key == ("/srv/a:b/one.pub", "/etc/two.pub")
    assert found.auth_jwks == "https://example.com/keys"
    assert found.deny == "/srv/a:b/../deny"
    assert found.admin == r"unix:/srv/a\:b/admin.sock"


@pytest.mark.parametrize(
    ("local", "absolute"),
    [
        ("unix:y.sock", "unix:/srv/y.sock"),
        ("unix:/run/y", "unix:/run/y"),
        ("localhost:1234", "localhost:1234"),
    ],
)
@pytest.mark.parametrize("identity", ["auto", "none", "key"])
def test_files_and_the_local_socket_of_an_agent_become_absolute(
    local: str, absolute: str, identity: str
) -> None:
    settings = AgentSettings(room="r", local=local, token_file="t", identity=identity)
    found = with_absolute_paths(settings, Program.AGENT, "/srv")
    assert (found.local, found.token_file) == (absolute, "/srv/t")
    assert found.identity == ("/srv/key" if identity == "key" else identity)


@pytest.mark.slow
def test_twistd_with_rundir_finds_files_relative_to_the_start_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, rundir = tmp_path / "start", tmp_path / "rundir"
    start.mkdir()
    rundir.mkdir()
    monkeypatch.chdir(start)
    assert not keygen(["--out", "seance.key"])
    argv = twistd("seance-relay", "--auth-key", "seance.key.pub", "--listen", "unix:relay.sock")
    at = argv.index("-n") + 1
    argv[at:at] = ["--rundir", str(rundir)]
    with Process(argv, name="relay", env=environment(), cwd=start) as relay:
        relay.when_line("starting on unix:")
        assert (start / "relay.sock").is_socket()
        relay.stop()
