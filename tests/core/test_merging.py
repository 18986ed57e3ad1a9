"""A session's state is folded into its customer: as a plain recompute does, once, and bounded."""

from base64 import b64encode

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from stream_app.codec import Merge, decode_merge, encode_merge
from stream_app.core.internal import HANDED
from stream_app.core.learn import APPLIED, EVENT, STALE, Learned, learn
from stream_app.core.model import KIND, Model
from stream_app.core.state import decode_users, encode_users, fits, new_partition, new_users
from stream_app.errors import EventRejected
from stream_app.merging import adopted, decode_watermarks
from stream_app.offline.recompute import Customers
from stream_app.offline.recompute_customers import books
from tests.core.logs import JOURNEY, logs

USER, GUEST, SOURCE = 1, 2, 3


class Both:
    """One customer in the kernels and in plain Python; they must agree after every batch."""

    def __init__(self) -> None:
        self.users, self.partition = new_users(np.array([USER], np.uint64)), new_partition()
        self.watermarks = decode_watermarks(b"", 8)
        self.truth = Customers(JOURNEY)

    def learn(self, events: NDArray[np.void], data: dict[int, str] | None = None) -> Learned:
        """Apply a batch of this customer's events."""
        rows = np.zeros(len(events), np.int64)
        brought = adopted(events["kind"], data or {}, self.watermarks)
        learned = learn(
            self.users, rows, events, self.partition, Model(), JOURNEY.plan, adopted=brought
        )
        self.truth.apply(events, [""] * len(events), data)
        who = self.truth.customers.get(int(events["customer"][0]))
        stored = encode_users(self.users)[0] if self.users["events"][0] else None
        assert books(stored) == (who.blob() if who else None)
        return learned

    def internal(self, kind: str, offset: int, data: str = "") -> int:
        """Status of an internal event."""
        event = np.zeros(1, EVENT)
        event["customer"], event["kind"] = self.users["id"], KIND[kind]
        event["offset"], event["ts"] = offset, 1_700_000_000.0
        return int(self.learn(event, {0: data} if data else None).status[0])


def of_one(log: NDArray[np.void], customer: int, *, anonymous: bool) -> NDArray[np.void]:
    """All events of a log but erasures and internal ones, as those of one customer."""
    events = log[log["kind"] < KIND["erase"]].copy()
    events["customer"], events["anonymous"] = customer, anonymous
    return events


def guest_of(log: NDArray[np.void]) -> tuple[Both, str]:
    """An anonymous session, and the record that hands it over at offset 9."""
    guest = Both()
    guest.users = new_users(np.array([GUEST], np.uint64))
    events = of_one(log, GUEST, anonymous=True)
    if len(events):
        guest.learn(events)
    return guest, encode_merge(Merge(SOURCE, 9, encode_users(guest.users)[0]))


@settings(max_examples=60, deadline=None)
@given(logs(), logs(), logs())
def test_a_merged_customer_is_what_the_recompute_says(
    before: NDArray[np.void], during: NDArray[np.void], after: NDArray[np.void]
) -> None:
    guest, data = guest_of(during)
    user = Both()
    known = of_one(before, USER, anonymous=False)
    if len(known):
        user.learn(known)
    expected = STALE if not (len(known) and guest.users["events"][0]) else APPLIED
    if guest.users["events"][0]:
        assert user.internal("merge", 70, data) == expected
        assert user.internal("merge", 71, data) == STALE, "a repetition"
    later = of_one(after, USER, anonymous=False)
    if len(later):
        user.learn(later)
    if expected == APPLIED:
        n = sum(len(events) > 0 for events in (known, later))
        assert n and user.users["events"][0] >= guest.users["events"][0]
    assert user.users["session_n"][0] <= user.users["ring_n"][0]


def some_log(*rows: tuple[str, int, float]) -> NDArray[np.void]:
    """Events of (kind, item, seconds) in session 7."""
    events = np.zeros(len(rows), EVENT)
    for k, (kind, item, ts) in enumerate(rows):
        events[k]["kind"], events[k]["item"], events[k]["ts"] = KIND[kind], item, 1.7e9 + ts
        events[k]["session"], events[k]["offset"], events[k]["value"] = 7, k, 5.0
    return events


def test_a_cart_filled_before_the_login_is_there_after_it() -> None:
    _, data = guest_of(some_log(("view", 1, 0), ("view", 2, 10), ("add_to_cart", 2, 20)))
    user = Both()
    user.learn(of_one(some_log(("view", 3, 30)), USER, anonymous=False))
    assert user.internal("merge", 50, data) == APPLIED
    (row,) = user.users
    assert (JOURNEY.names[row["step"]], row["sessions"], row["events"]) == ("cart", 1, 4)
    assert row["cart_item"][: row["cart_n"]].tolist() == [2]
    assert row["ring_item"][: row["ring_n"]].tolist() == [1, 2, 2, 3]
    assert (row["session_n"], row["session_events"], row["session_start"]) == (4, 4, 1.7e9)
    assert (row["anonymous"], row["offset"]) == (0, 50)


def test_what_was_bought_since_is_not_put_back_into_the_cart() -> None:
    _, data = guest_of(some_log(("add_to_cart", 2, 0), ("add_to_cart", 4, 5)))
    user = Both()
    user.learn(of_one(some_log(("purchase", 2, 30)), USER, anonymous=False))
    assert user.internal("merge", 50, data) == APPLIED
    (row,) = user.users
    assert row["cart_item"][: row["cart_n"]].tolist() == [4]
    assert JOURNEY.names[row["step"]] == "post_purchase"


def test_a_session_gives_its_state_up_once() -> None:
    guest, _ = guest_of(some_log(("view", 1, 0)))
    assert guest.internal("link", 5, "anna") == HANDED
    assert guest.users["events"][0] == 0
    assert guest.internal("link", 6, "anna") == STALE
    user = Both()
    user.learn(of_one(some_log(("view", 1, 0)), USER, anonymous=False))
    assert user.internal("link", 8, "bob") == STALE, "known customers are not handed over"


def test_states_of_a_source_are_adopted_in_its_order() -> None:
    guest, _ = guest_of(some_log(("view", 1, 0)))
    blob = encode_users(guest.users)[0]
    user = Both()
    user.learn(of_one(some_log(("view", 2, 0)), USER, anonymous=False))
    took = [
        user.internal("merge", 10 + k, encode_merge(Merge(source, offset, blob)))
        for k, (source, offset) in enumerate([(0, 5), (1, 5), (0, 4), (0, 5), (0, 6), (1, 6)])
    ]
    assert took == [APPLIED, APPLIED, STALE, STALE, APPLIED, APPLIED]
    assert user.watermarks.tolist() == [6, 6, -1, -1, -1, -1, -1, -1]
    again = decode_watermarks(user.watermarks.tobytes(), 8)
    assert again.tolist() == user.watermarks.tolist()


def test_only_whole_states_are_believed() -> None:
    guest, data = guest_of(some_log(("view", 1, 0), ("add_to_cart", 2, 20)))
    blob = encode_users(guest.users)[0]
    assert fits(blob)
    assert decode_merge(data) == (SOURCE, 9, blob)
    decode_users(np.zeros(1, np.uint64), [blob])
    wrong = [b"", blob[:-1], blob + b"x", b"\x01" + blob[1:], blob[:3] + b"\xff" + blob[4:]]
    wrong += [blob[:1] + b"\x10" + blob[2:], blob[:4] + b"\x09" + blob[5:]]
    for each in wrong:
        assert not fits(each)
        with pytest.raises(EventRejected):
            decode_merge(encode_merge(Merge(0, 0, each)))
    for text in ("", "?", "AAAA", b64encode(blob).decode()):
        with pytest.raises(EventRejected):
            decode_merge(text)
