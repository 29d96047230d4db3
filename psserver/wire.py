"""The protocol: messages to frames and back, strictly. The only file that knows msgpack.

A message is `[header, vector, ...]`. The header is a msgpack array

    [PROTOCOL_VERSION, message name, sequence, {field: value}]

in which a vector field is `["float32", n]` (its 4n little-endian bytes are the next frame), `["slot", name]` (it
lies in that shared-memory segment) or nil. A reply repeats its request's sequence number. Decoding refuses a
wrong type, a missing or additional field, a wrong dtype or length, and frames too many or too few, with a
`WireError` that names the field, what was expected and what came. Numbers that are not finite are refused in
every field but a push's loss and gradient and a report's values: the server decides about those, and counts them.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from psserver import messages
from psserver.errors import WireError
from psserver.messages import (
    PROTOCOL_VERSION,
    Alive,
    Curvature,
    Goodbye,
    Heartbeat,
    Hello,
    MemberStatus,
    Message,
    Noted,
    Parameters,
    Pull,
    Push,
    Refusal,
    Reply,
    Report,
    Request,
    Slot,
    Status,
    Stop,
    Vector,
    Watch,
    Welcome,
)
from psserver.place import here
from psserver.shared_memory import Segment

__all__ = [
    "PROTOCOL_VERSION", "Alive", "Curvature", "Frame", "Goodbye", "Heartbeat", "Hello", "Limits", "MemberStatus",
    "Message", "Noted", "Parameters", "Pull", "Push", "Refusal", "Reply", "Report", "Request", "Segment", "Slot",
    "Status", "Stop", "Vector", "Watch", "Welcome", "WireError", "decode", "encode", "here", "sequence_of",
]  # fmt: skip

if sys.byteorder != "little":
    raise ImportError("the wire carries little-endian float32 and this machine is big-endian")

Frame = bytes | bytearray | memoryview
MAX_HEADER_BYTES = 1 << 20
_STRICT = ConfigDict(strict=True, extra="forbid")
_VECTOR_FIELDS: dict[str, tuple[str, ...]] = {
    "Push": ("gradient", "buffers"),
    "Parameters": ("values", "buffers"),
    "Welcome": ("gradient",),
}
_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        (Hello, Welcome, Push, Pull, Parameters, Heartbeat, Alive, Report, Noted, Goodbye, Stop, Refusal, Watch, Status)
    )
}


@dataclass(frozen=True)
class Limits:
    """Lengths that vectors must have: n parameters and b buffer values; None accepts any."""

    size: int | None = None
    buffer_size: int | None = None

    def of(self, field: str) -> int | None:
        """The length that a vector field must have."""
        return self.buffer_size if field == "buffers" else self.size


def _plain_fields(kind: type) -> Any:
    """The typed dict that a message's plain fields must satisfy, built from its annotations."""
    vectors = _VECTOR_FIELDS.get(kind.__name__, ())
    hints = typing.get_type_hints(kind, vars(messages), include_extras=True)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.name not in vectors}
    if kind is Status:
        fields["members"] = tuple.__class_getitem__((_plain_fields(MemberStatus), ...))
    plain = TypedDict(kind.__name__, fields)  # type: ignore[misc]
    plain.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]
    return plain


_ADAPTERS: dict[str, TypeAdapter[dict[str, Any]]] = {
    name: TypeAdapter(_plain_fields(kind)) for name, kind in _KINDS.items()
}


def encode(message: Message, sequence: int = 0) -> list[Frame]:
    """Frames of a message. Vector frames are views of the caller's memory: nothing is copied here.

    A vector is float32, one-dimensional and contiguous, else WireError.
    """
    kind = type(message).__name__
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    frames: list[Frame] = []
    for name in _VECTOR_FIELDS.get(kind, ()):
        value = fields[name]
        if isinstance(value, Slot):
            fields[name] = ("slot", value.name)
        elif value is not None:
            if value.dtype != np.float32 or value.ndim != 1 or not value.flags.c_contiguous:
                raise WireError(
                    f"{kind}.{name}: expected a contiguous float32 vector, got {value.dtype} of shape {value.shape}"
                )
            fields[name] = ("float32", value.size)
            frames.append(memoryview(value).cast("B"))
    if isinstance(message, Status):
        fields["members"] = [dataclasses.asdict(member) for member in message.members]
    header: bytes = msgpack.packb((PROTOCOL_VERSION, kind, sequence, fields))
    return [header, *frames]


def decode(frames: Sequence[Frame], limits: Limits | None = None) -> tuple[Message, int]:
    """The message and its sequence number. Vectors are views of the frames."""
    if not frames:
        raise WireError("message: expected a header frame, got no frame at all")
    kind, sequence, fields = _header(frames[0])
    limits = limits or Limits()
    payloads = list(frames[1:])
    vectors = {
        name: _vector(f"{kind}.{name}", fields, name, payloads, limits.of(name))
        for name in _VECTOR_FIELDS.get(kind, ())
    }
    if payloads:
        raise WireError(f"{kind}: expected {len(frames) - 1 - len(payloads)} vector frames, got {len(frames) - 1}")
    try:
        plain = _ADAPTERS[kind].validate_python(fields)
    except ValidationError as error:
        raise WireError(_sentence(kind, error)) from None
    if kind == "Status":
        plain["members"] = tuple(MemberStatus(**member) for member in plain["members"])
    fields_of: dict[str, Any] = {**plain, **vectors}
    return _KINDS[kind](**fields_of), sequence


def sequence_of(frames: Sequence[Frame]) -> int:
    """The sequence number of a message that may be damaged, so that its refusal finds its request; 0 if unknown."""
    try:
        return _header(frames[0])[1] if frames else 0
    except WireError:
        return 0


def _header(frame: Frame) -> tuple[str, int, dict[str, Any]]:
    if len(frame) > MAX_HEADER_BYTES:
        raise WireError(f"header: expected at most {MAX_HEADER_BYTES} bytes, got {len(frame)}")
    try:
        header = msgpack.unpackb(frame, use_list=False, strict_map_key=True, raw=False)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise WireError(f"header: expected msgpack, got {bytes(frame[:16])!r} ({error})") from None
    if not isinstance(header, tuple) or not header or header[0] != PROTOCOL_VERSION:
        got = header[0] if isinstance(header, tuple) and header else header
        raise WireError(
            f"header: expected protocol {PROTOCOL_VERSION}, got {got!r:.60}; install one yellowfin-ps on both sides"
        )
    if len(header) != 4:
        raise WireError(f"header: expected 4 entries, got {len(header)}")
    _, kind, sequence, fields = header
    if not isinstance(kind, str) or kind not in _KINDS:
        raise WireError(f"header: expected one of {', '.join(_KINDS)}, got {kind!r:.60}")
    if type(sequence) is not int or sequence < 0:
        raise WireError(f"header: expected a sequence number of at least 0, got {sequence!r:.60}")
    if not isinstance(fields, dict):
        raise WireError(f"{kind}: expected a map of fields, got {type(fields).__name__}")
    return kind, sequence, fields


def _vector(
    where: str, fields: dict[str, Any], name: str, payloads: list[Frame], expected: int | None
) -> Vector | None:
    """Take one vector field out of `fields`, and its frame, if it has one, off the front of `payloads`."""
    if name not in fields:
        raise WireError(f"{where}: expected a vector, got nothing")
    value = fields.pop(name)
    if value is None:
        if where in _REQUIRED:
            raise WireError(f"{where}: expected a vector, got nil")
        return None
    if not isinstance(value, tuple) or len(value) != 2:
        raise WireError(f"{where}: expected [dtype, length] or ['slot', name], got {value!r:.60}")
    tag, detail = value
    if tag == "slot":
        try:
            return _SLOT.validate_python({"name": detail})
        except ValidationError:
            raise WireError(f"{where}: expected a segment name like yfps-0a1b, got {detail!r:.60}") from None
    if tag != "float32":
        raise WireError(f"{where}: expected float32 values, got {tag!r:.60}")
    if type(detail) is not int or detail < 0 or (expected is not None and detail != expected):
        raise WireError(
            f"{where}: expected {'any number of' if expected is None else expected} values, got {detail!r:.60}"
        )
    if not payloads:
        raise WireError(f"{where}: expected a frame of {4 * detail} bytes, got none")
    frame = payloads.pop(0)
    if memoryview(frame).nbytes != 4 * detail:
        raise WireError(f"{where}: expected a frame of {4 * detail} bytes, got {memoryview(frame).nbytes}")
    return np.frombuffer(frame, dtype=np.float32)


def _sentence(kind: str, error: ValidationError) -> str:
    """The first thing wrong, as field, expected, got."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{kind}.{field}: expected a value, got nothing"
    if first["type"] == "extra_forbidden":
        return f"{kind}.{field}: expected no such field, got {first['input']!r:.60}"
    return f"{kind}.{field}: expected {first['msg'].removeprefix('Input should be ')}, got {first['input']!r:.60}"


_REQUIRED = frozenset({"Push.gradient", "Parameters.values"})
_SLOT: TypeAdapter[Slot] = TypeAdapter(Slot)
