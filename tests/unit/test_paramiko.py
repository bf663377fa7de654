"""What needs no host of the connector that uses paramiko; the rest is tested with a real sshd."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from experimaestro_hpc.connectors.paramiko_ssh import ParamikoConnector, note_host
from experimaestro_hpc.errors import ConnectionFailed

KEYS = [paramiko.ECDSAKey.generate() for _ in range(2)]


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_new_host_is_known_beside_those_before(tmp_path: Path, end: str) -> None:
    file = tmp_path / "known_hosts"
    lines = [f"host{number} {key.get_name()} {key.get_base64()}" for number, key in enumerate(KEYS)]
    file.write_text(lines[0] + end)
    note_host(file, lines[1])
    known = paramiko.HostKeys(str(file))
    assert [known.check(f"host{number}", key) for number, key in enumerate(KEYS)] == [True, True]
    assert file.read_text() == "".join(f"{line}\n" for line in lines)


def test_the_first_host_that_is_known(tmp_path: Path) -> None:
    file = tmp_path / ".ssh" / "known_hosts"
    note_host(file, "host key")
    assert file.read_text() == "host key\n"


@pytest.mark.parametrize("host", ["u@h:abc", "ssh://u@h:2222//"])
def test_a_port_that_is_none(host: str) -> None:
    with pytest.raises(ConnectionFailed, match="this host is not understood") as caught:
        ParamikoConnector(host).open("true")
    assert "check `host` in the launcher file" in str(caught.value)


def test_an_address_that_ends_with_a_slash() -> None:
    with pytest.raises(ConnectionFailed, match=r"does not answer.*port 1 "):
        ParamikoConnector("ssh://127.0.0.1:1/").open("true")
