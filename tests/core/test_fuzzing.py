"""Any bytes, and valid ones with a few bytes changed, into everything that reads bytes."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from faults.fuzzing import TARGETS
from stream_app.codec import Outbox, Transitions, encode_outbox, encode_transitions
from stream_app.core.learn import TRANSITION

VALID: dict[str, bytes] = {
    "transitions": encode_transitions(Transitions(1, np.zeros(2, TRANSITION), ["a", "b"])),
    "outbox": encode_outbox(Outbox()),
    "sales": b"[1]",
    "events": b'{"event":"view","ts":1700000000.5,"user_id":"u","item_id":"i","price":2.5}',
    "settings": b"kafka://127.0.0.1:9092\nPLAINTEXT",
    "csv": b"user_id,item_id,event,ts\nu,i,view,1700000000\n",
    "jsonl": b'{"user_id":"u","item_id":"i","event":"view","ts":1700000000}\n',
}


@st.composite
def changed(draw: st.DrawFn, valid: bytes) -> bytes:
    """``valid`` cut, or with some bytes replaced, or something else altogether."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300))
    data = bytearray(valid)
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)):
        if at < len(data):
            data[at] = byte
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_errors_on_purpose_comes_out(name: str) -> None:
    quick = hypothesis_settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    quick(given(changed(VALID[name]))(TARGETS[name]))()
