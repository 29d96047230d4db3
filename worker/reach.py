"""Why a server cannot be reached, found out by asking the system what the messages' library keeps to itself."""

from __future__ import annotations

import re
import socket

_SECONDS = 2.0


def why_unreachable(address: str) -> str:
    """A clause about tcp://HOST:PORT or ipc://PATH: unknown name, nobody listening, no route, or no answer."""
    if address.startswith("ipc://"):
        return _attempt(socket.AF_UNIX, address.removeprefix("ipc://"))
    match = re.fullmatch(r"tcp://\[?(.+?)\]?:([0-9]+)", address)
    if match is None:
        return "expected an address like tcp://HOST:PORT"
    host, port = match[1], int(match[2])
    try:
        family, *_, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        return f"the name {host} is unknown here ({error.strerror or error})"
    return _attempt(family, target)


def _attempt(family: int, target: object) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_SECONDS)
        try:
            probe.connect(target)  # type: ignore[arg-type]
        except ConnectionRefusedError:
            return "nobody listens there"
        except TimeoutError:
            return "that host does not answer; it may be down or behind a firewall"
        except OSError as error:
            return error.strerror or str(error)
    return "something listens there and does not answer as a server of this project does; it may hang or be another"
