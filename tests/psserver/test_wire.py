"""The protocol: every message survives the way there and back, and everything else is refused by name."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import Any, get_args

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from psserver import wire
from psserver.errors import WireError
from psserver.wire import Hello, Limits, MemberStatus, Parameters, Push, Slot, Status, decode, encode

COUNT = st.integers(0, 2**63 - 1)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=40)
SLOT = st.from_regex(r"yfps-[0-9a-z-]{1,40}", fullmatch=True).map(Slot)
VECTOR = arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32)) | SLOT
MEMBER = st.builds(
    MemberStatus,
    worker=COUNT,
    role=st.sampled_from(["worker", "evaluator"]),
    state=st.sampled_from(["computing", "waiting", "lost", "left"]),
    host=TEXT,
    pushes=COUNT,
    rejected=COUNT,
    staleness=st.none() | COUNT,
    rate=NUMBER,
    last_seen=NUMBER,
)
MAYBE = st.none() | NUMBER
REASON = st.sampled_from(["done", "interrupted", "failed"])


@dataclasses.dataclass(frozen=True)
class Kind:
    example_type: type
    strategy: st.SearchStrategy[Any]


def kind(example_type: type, **fields: st.SearchStrategy[Any]) -> Kind:
    return Kind(example_type, st.builds(example_type, **fields))


KINDS = (
    kind(
        Hello,
        role=st.sampled_from(["worker", "evaluator", "watcher"]),
        layout=TEXT,
        size=COUNT,
        buffer_size=COUNT,
        rank=st.none() | COUNT,
        host=TEXT,
        place=TEXT,
        pid=COUNT,
        shared_memory=st.booleans(),
    ),
    kind(
        wire.Welcome,
        session=TEXT,
        worker=COUNT,
        workers=COUNT,
        seed=COUNT,
        step=COUNT,
        version=COUNT,
        directory=TEXT,
        gradient=st.none() | SLOT,
        heartbeat=NUMBER,
        buffers_every=COUNT,
        curvature_every=COUNT,
        distance_every=COUNT,
    ),
    kind(
        Push,
        session=TEXT,
        step=st.integers(1, 2**62),
        version=COUNT,
        loss=st.floats(),
        gradient=VECTOR,
        buffers=st.none() | VECTOR,
        fresh=st.booleans(),
        curvature=st.none() | st.tuples(st.floats(0, allow_infinity=False), NUMBER),
        distance=st.none() | st.floats(0, exclude_min=True, allow_infinity=False),
    ),
    kind(wire.Pull),
    kind(Parameters, version=COUNT, final=st.booleans(), values=VECTOR, buffers=st.none() | VECTOR),
    kind(wire.Heartbeat, member=TEXT),
    kind(wire.Alive, session=TEXT, version=COUNT, known=st.booleans(), final=st.booleans()),
    kind(wire.Report, version=COUNT, values=st.dictionaries(TEXT, st.floats(), max_size=3)),
    kind(wire.Noted),
    kind(wire.Goodbye, reason=REASON, text=TEXT, pushes=COUNT),
    kind(wire.Stop, reason=REASON, text=TEXT),
    kind(wire.Refusal, code=st.sampled_from(["wire", "layout", "rank", "unknown", "stale"]), text=TEXT),
    kind(wire.Watch),
    kind(
        Status,
        phase=st.sampled_from(["waiting", "training", "draining", "done"]),
        version=COUNT,
        updates=COUNT,
        seconds=NUMBER,
        loss=st.none() | st.floats(),
        learning_rate=MAYBE,
        momentum=MAYBE,
        target_momentum=MAYBE,
        total_momentum=MAYBE,
        staleness_mean=MAYBE,
        staleness_p95=MAYBE,
        rate=NUMBER,
        applied=COUNT,
        rejected=COUNT,
        repeated=COUNT,
        lost=COUNT,
        evaluation=st.dictionaries(TEXT, st.floats(), max_size=3),
        evaluated_at=st.none() | COUNT,
        members=st.lists(MEMBER, max_size=3).map(tuple),
        events=st.lists(TEXT, max_size=3).map(tuple),
    ),
)
MESSAGES = st.one_of(*(each.strategy for each in KINDS))


def push(**changes: Any) -> Push:
    plain: dict[str, Any] = {"session": "s", "step": 1, "version": 0, "loss": 0.5, "buffers": None}
    return Push(**{**plain, "gradient": np.arange(4, dtype=np.float32), **changes})


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and left.tobytes() == right.tobytes()
    if isinstance(left, float) and math.isnan(left):
        return isinstance(right, float) and math.isnan(right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    return type(left) is type(right) and bool(left == right)


def tampered(message: Any, **fields: Any) -> list[Any]:
    version, kind, sequence, plain = msgpack.unpackb(encode(message)[0], use_list=False)
    changed = {k: v for k, v in {**plain, **fields}.items() if v is not Ellipsis}
    return [msgpack.packb((version, kind, sequence, changed)), *encode(message)[1:]]


@given(MESSAGES, st.integers(0, 2**40))
def test_every_message_comes_back_as_it_was_sent(message: Any, sequence: int) -> None:
    back, number = decode([bytes(frame) for frame in encode(message, sequence)])
    assert number == sequence
    assert type(back) is type(message)
    for field in dataclasses.fields(message):
        assert same(getattr(message, field.name), getattr(back, field.name)), field.name


def test_the_strategies_cover_every_message_there_is() -> None:
    assert {each.example_type for each in KINDS} == set(get_args(wire.Message))


@given(MESSAGES, st.data())
def test_a_field_that_is_missing_or_additional_is_refused_by_name(message: Any, data: Any) -> None:
    names = [f.name for f in dataclasses.fields(message)]
    kind = type(message).__name__
    with pytest.raises(WireError, match=f"{kind}.surplus: expected no such field"):
        decode(tampered(message, surplus=1))
    if names:
        gone = data.draw(st.sampled_from(names))
        with pytest.raises(WireError, match=f"{kind}.{gone}: expected"):
            decode(tampered(message, **{gone: ...}))


@given(MESSAGES, st.data())
def test_a_field_of_a_wrong_type_is_refused_by_name(message: Any, data: Any) -> None:
    names = [f.name for f in dataclasses.fields(message)]
    if names:
        name = data.draw(st.sampled_from(names))
        with pytest.raises(WireError, match=rf"{type(message).__name__}.{name}"):
            decode(tampered(message, **{name: [[1]]}))


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_garbage_is_a_wire_error_and_nothing_else(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(frames)


@given(MESSAGES, st.data())
def test_a_flipped_bit_in_the_header_never_breaks_anything_else(message: Any, data: Any) -> None:
    header, *rest = encode(message)
    damaged = bytearray(header)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(WireError):
        back, _ = decode([bytes(damaged), *rest])
        assert isinstance(back, wire.Message)


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ([], "expected a header frame"),
        ([encode(push())[0]], "Push.gradient: expected a frame of 16 bytes, got none"),
        ([encode(push())[0], b"123"], "Push.gradient: expected a frame of 16 bytes, got 3"),
        ([*encode(push()), b""], "Push: expected 1 vector frames, got 2"),
        (tampered(push(), step=True), "Push.step: expected a valid integer, got True"),
        (tampered(push(), step=0), "Push.step: expected greater than or equal to 1, got 0"),
        (tampered(push(), version=-1), "Push.version: expected greater than or equal to 0, got -1"),
        (tampered(push(), loss="low"), "Push.loss: expected a valid number, got 'low'"),
        (tampered(push(), gradient=None), "Push.gradient: expected a vector, got nil"),
        (tampered(push(), gradient=("float64", 4)), "Push.gradient: expected float32 values, got 'float64'"),
        (tampered(push(), gradient=("float32", 2.0)), "Push.gradient: expected any number of values, got 2.0"),
        (tampered(push(), gradient=("slot", "../etc/passwd")), "Push.gradient: expected a segment name"),
        (tampered(push(), fresh=1), "Push.fresh: expected a valid boolean, got 1"),
        (tampered(push(), curvature=(-1.0, 0.0)), "Push.curvature.0: expected greater than or equal to 0, got -1.0"),
        (tampered(push(), curvature=(1.0, math.inf)), "Push.curvature.1: expected a finite number, got inf"),
        (tampered(push(), curvature=(math.nan, 1.0)), "Push.curvature.0: expected"),
        (tampered(push(), curvature=(1.0,)), "Push.curvature.1: expected a value, got nothing"),
        (tampered(push(), curvature=(1.0, 1.0, 1.0)), "Push.curvature: expected"),
        (tampered(push(), curvature=(1.0, "low")), "Push.curvature.1: expected a valid number, got 'low'"),
        (tampered(push(), distance=-1.0), "Push.distance: expected greater than 0, got -1.0"),
        (tampered(push(), distance=0.0), "Push.distance: expected greater than 0, got 0.0"),
        (tampered(push(), distance=math.nan), "Push.distance: expected"),
        (tampered(push(), distance=math.inf), "Push.distance: expected a finite number, got inf"),
        (tampered(push(), distance="far"), "Push.distance: expected a valid number, got 'far'"),
        (tampered(push(), distance=(1.0,)), "Push.distance: expected a valid number, got (1.0,)"),
        (tampered(push(), session=b"raw"), "Push.session: expected a valid string"),
        ([msgpack.packb((1, "Pull", 0, {}))], "header: expected protocol 4, got 1"),
        ([msgpack.packb((4, "Erase", 0, {}))], "header: expected one of"),
        ([msgpack.packb((4, "Pull", -1, {}))], "header: expected a sequence number"),
        ([msgpack.packb((4, "Pull", 0, []))], "Pull: expected a map of fields"),
        ([msgpack.packb((4, "Pull", 0))], "header: expected 4 entries, got 3"),
        ([b"\xc1" + b"x" * 100], "header: expected msgpack"),
        ([b"\x91" * 5000], "header: expected msgpack"),
        ([b"x" * ((1 << 20) + 1)], "header: expected at most 1048576 bytes"),
    ],
)
def test_what_is_wrong_is_said_with_expected_and_got(frames: list[Any], sentence: str) -> None:
    with pytest.raises(WireError) as caught:
        decode(frames)
    assert sentence in str(caught.value)


@given(st.sampled_from([math.nan, math.inf, -math.inf]))
def test_numbers_that_are_not_finite_pass_only_where_the_server_counts_them(number: float) -> None:
    assert same(decode(encode(push(loss=number)))[0].loss, number)  # type: ignore[union-attr]
    alive = wire.Welcome("s", 0, 1, 0, 0, 0, "/dev/shm", None, number, 1)
    with pytest.raises(WireError, match=r"Welcome.heartbeat: expected a finite number"):
        decode(encode(alive))


def test_lengths_are_checked_against_the_model() -> None:
    frames = encode(push(buffers=np.zeros(3, dtype=np.float32)))
    assert decode(frames, Limits(4, 3))[1] == 0
    with pytest.raises(WireError, match=r"Push.gradient: expected 5 values, got 4"):
        decode(frames, Limits(5, 3))
    with pytest.raises(WireError, match=r"Push.buffers: expected 2 values, got 3"):
        decode(frames, Limits(4, 2))


@pytest.mark.parametrize(
    "vector", [np.zeros(4), np.zeros((2, 2), np.float32), np.zeros(8, np.float32)[::2], np.zeros(4, np.int32)]
)
def test_only_flat_contiguous_float32_is_sent(vector: Any) -> None:
    with pytest.raises(WireError, match=r"Push.gradient: expected a contiguous float32 vector"):
        encode(push(gradient=vector))


def test_encoding_copies_no_vector() -> None:
    gradient = np.zeros(1000, dtype=np.float32)
    frame = encode(push(gradient=gradient))[1]
    gradient[0] = 1.0
    assert np.frombuffer(frame, dtype=np.float32)[0] == 1.0


def test_a_damaged_message_still_tells_its_sequence_number() -> None:
    assert wire.sequence_of(tampered(push(), surplus=1)) == 0
    header = msgpack.packb((4, "Push", 41, {}))
    assert wire.sequence_of([header]) == 41
    assert wire.sequence_of([b"junk"]) == 0
