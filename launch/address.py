"""Addresses: their forms, and which ones only this host can reach."""

from __future__ import annotations

import ipaddress
import os
import re
import socket

import psutil

from psserver.errors import AddressError

_FORMS = "tcp://HOST:PORT, tcp://INTERFACE:PORT or ipc://PATH"
_LONGEST_PATH = 107
_TCP = re.compile(r"tcp://(?P<host>\[[^\[\]]+\]|[^\[\]:/\s]+):(?P<port>[0-9]{1,5}|\*)")


def check_bind(address: str, insecure: bool) -> str:
    """The address to bind, if it may be bound; `localhost` becomes 127.0.0.1.

    Connections are neither authenticated nor encrypted yet, so an address that other hosts can reach needs
    `insecure`. A host name counts as reachable: what it resolves to may change between this check and the bind.
    Raises AddressError for another form, an ipc path that is too long, or a reachable address without `insecure`.
    """
    if address.startswith("ipc://"):
        return _check_ipc(address)
    host, port = _split(address, allow_any_port=True)
    if host == "localhost":
        return f"tcp://127.0.0.1:{port}"
    if insecure or _is_loopback(host):
        return address
    raise AddressError(
        f"--bind {address}: other hosts can reach this address, and keys are not available yet. "
        "Bind tcp://127.0.0.1:PORT, or say --insecure: then anyone who can reach the port can read the "
        "parameters and push gradients, so do it on a network you trust only."
    )


def check_connect(address: str) -> str:
    """The address to connect to. Raises AddressError when its form is wrong or it names every interface."""
    if address.startswith("ipc://"):
        return _check_ipc(address)
    host, port = _split(address, allow_any_port=False)
    if host in ("*", "0.0.0.0", "::"):
        raise AddressError(
            f"{address}: expected the server's host, got {host}, which only a server can bind; "
            f"on this host it is tcp://127.0.0.1:{port}"
        )
    return address


def _split(address: str, allow_any_port: bool) -> tuple[str, str]:
    match = _TCP.fullmatch(address)
    if match is None:
        raise AddressError(f"expected an address like {_FORMS}, got {address!r}")
    host, port = match["host"].removeprefix("[").removesuffix("]"), match["port"]
    if port in ("*", "0"):
        if not allow_any_port:
            raise AddressError(f"{address}: expected the server's port, got {port}; the server prints it at its start")
    elif int(port) > 65535:
        raise AddressError(f"{address}: expected a port of at most 65535, got {port}")
    return host.lower() if host.lower() == "localhost" else host, port


def _check_ipc(address: str) -> str:
    path = address.removeprefix("ipc://")
    if not path:
        raise AddressError(f"expected an address like {_FORMS}, got {address!r}")
    length = len(os.fsencode(path))
    if length > _LONGEST_PATH:
        raise AddressError(
            f"{address}: expected a path of at most {_LONGEST_PATH} bytes (a limit of the system's sockets), "
            f"got {length}; use a shorter folder"
        )
    return address


def _is_loopback(host: str) -> bool:
    """Whether only this host reaches it: a loopback address, or an interface with nothing but such addresses."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        entries = psutil.net_if_addrs().get(host, [])
    internet = [entry for entry in entries if entry.family in (socket.AF_INET, socket.AF_INET6)]
    return bool(internet) and all(ipaddress.ip_address(entry.address).is_loopback for entry in internet)
