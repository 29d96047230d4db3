"""Which addresses may be bound, and how the others are refused."""

from __future__ import annotations

import pytest

from launch.address import check_bind, check_connect
from psserver.errors import AddressError

LOCAL = ["tcp://127.0.0.1:5555", "tcp://127.9.9.9:5555", "tcp://[::1]:5555", "tcp://lo:5555", "tcp://127.0.0.1:*"]
REACHABLE = ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://[::]:5555", "tcp://10.0.0.7:5555", "tcp://trainer:5555"]
REACHABLE += ["tcp://localhost.example.org:5555", "tcp://eth0:5555", "tcp://127.0.0.1@trainer:5555", "tcp://127.1:5555"]
REACHABLE += ["tcp://[fe80::1]:5555", "tcp://trainer.example.org:0", "tcp://0:5555", "tcp://[::ffff:10.0.0.7]:5555"]
MALFORMED = ["", "127.0.0.1:5555", "tcp://127.0.0.1", "tcp://:5555", "tcp://127.0.0.1:port", "tcp://::1:5555"]
MALFORMED += ["tcp://127.0.0.1:99999", "tcp://127.0.0.1:5:6", "udp://127.0.0.1:5555", "ipc://", "tcp://a b:5555"]
MALFORMED += ["TCP://127.0.0.1:5555", "tcp://127.0.0.1:5555\n"]


@pytest.mark.parametrize("address", [*LOCAL, "ipc:///tmp/run/server.sock"])
def test_an_address_of_this_host_alone_is_bound_as_it_is(address: str) -> None:
    assert check_bind(address, insecure=False) == address


def test_localhost_is_bound_by_number() -> None:
    assert check_bind("tcp://LocalHost:5555", insecure=False) == "tcp://127.0.0.1:5555"


@pytest.mark.parametrize("address", REACHABLE)
def test_an_address_that_others_reach_needs_insecure(address: str) -> None:
    with pytest.raises(AddressError, match="keys are not available yet"):
        check_bind(address, insecure=False)
    assert check_bind(address, insecure=True) == address


@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize("address", [*MALFORMED, "ipc://" + "x" * 108])
def test_a_malformed_address_is_refused_with_or_without_insecure(address: str, insecure: bool) -> None:
    with pytest.raises(AddressError, match="expected"):
        check_bind(address, insecure)


@pytest.mark.parametrize("address", ["tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://[::]:5555", "tcp://trainer:0"])
def test_a_worker_cannot_connect_to_what_only_a_server_binds(address: str) -> None:
    with pytest.raises(AddressError, match="expected the server's"):
        check_connect(address)


@pytest.mark.parametrize("address", ["tcp://trainer:5555", "tcp://[::1]:5555", "ipc:///tmp/server.sock"])
def test_a_worker_connects_to_any_host(address: str) -> None:
    assert check_connect(address) == address
