"""A customer who comes faster than the limits is set aside, the others are not, and it heals."""

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_app.core.learn import APPLIED, EVENT, QUARANTINED, learn
from stream_app.core.model import KIND, Model
from stream_app.core.state import decode_users, encode_users, new_partition, new_users
from stream_app.offline.recompute import Customers
from stream_app.offline.recompute_customers import books
from tests.core.logs import JOURNEY

START = 1_700_000_000.0
MODEL = Model(minute_events_max=30.0, day_events_max=200.0)
BOT, HUMAN = 7, 9


def events(*arrivals: tuple[int, float]) -> NDArray[np.void]:
    """Views at (customer, seconds since the start)."""
    rows = np.zeros(len(arrivals), EVENT)
    rows["customer"] = [who for who, _ in arrivals]
    rows["ts"] = [START + at for _, at in arrivals]
    rows["offset"] = np.arange(len(arrivals))
    rows["kind"] = KIND["view"]
    rows["item"] = 1 + np.arange(len(arrivals)) % 50
    return rows


def learned(
    rows: NDArray[np.void], cuts: int = 1
) -> tuple[NDArray[np.uint8], list[bytes], NDArray[np.void]]:
    """Statuses, blobs and the partition, with the log cut into so many batches."""
    ids, at = np.unique(rows["customer"], return_inverse=True)
    users, partition, statuses = new_users(ids), new_partition(), []
    for part in np.array_split(np.arange(len(rows)), cuts):
        users = decode_users(ids, encode_users(users))
        statuses.append(learn(users, at[part], rows[part], partition, MODEL, JOURNEY.plan).status)
    return np.concatenate(statuses), encode_users(users), partition


def test_what_is_above_a_minutes_limit_is_rejected_and_counts_nothing() -> None:
    bot = [(BOT, k * 0.1) for k in range(100)]
    rows = events(*sorted([*bot, *[(HUMAN, k * 2.0) for k in range(5)]], key=lambda a: a[1]))
    status, _, partition = learned(rows)
    kept = status == APPLIED
    assert kept[rows["customer"] == HUMAN].all()
    assert 30 <= kept[rows["customer"] == BOT].sum() <= 36  # the burst, and 10 s at 30 a minute
    assert (partition["applied"] + partition["rejected"] == len(rows)).all()
    assert partition["rejected"] == (status == QUARANTINED).sum()


def test_who_slows_down_is_taken_in_again() -> None:
    rows = events(*[(BOT, k * 0.01) for k in range(100)], *[(BOT, 120.0 + k) for k in range(10)])
    status, _, _ = learned(rows)
    assert (status[-10:] == APPLIED).all()


def test_a_day_has_its_own_limit() -> None:
    rows = events(*[(BOT, k * 3.0) for k in range(400)])
    status, _, _ = learned(rows)
    assert 200 <= (status == APPLIED).sum() <= 206


def test_events_said_to_be_old_count_now() -> None:
    rows = events((BOT, 0.0), *[(BOT, -3_600.0 * k) for k in range(100)])
    status, _, _ = learned(rows)
    assert (status == APPLIED).sum() == 30


@pytest.mark.parametrize("cuts", [2, 7, 50])
def test_a_replay_in_other_batches_rejects_the_same(cuts: int) -> None:
    rows = events(*[(BOT, (k * k % 97) * 0.5) for k in range(300)])
    once, again = learned(rows), learned(rows, cuts)
    assert (once[0] == again[0]).all()
    assert once[1] == again[1]
    assert once[2].tobytes() == again[2].tobytes()


def test_the_recomputation_says_the_same() -> None:
    rows = events(*[(BOT, (k * k % 97) * 0.5) for k in range(300)], (HUMAN, 1.0))
    _, blobs, partition = learned(rows)
    customers = Customers(JOURNEY, MODEL)
    customers.apply(rows)
    assert [customers.customers[who].blob() for who in (BOT, HUMAN)] == list(map(books, blobs))
    assert customers.rejected == partition["rejected"]


def test_no_limit_is_no_limit() -> None:
    rows = events(*[(BOT, 0.0)] * 1_000)
    users, partition = new_users(np.array([BOT], np.uint64)), new_partition()
    status = learn(users, np.zeros(1_000, np.int64), rows, partition, Model(), JOURNEY.plan).status
    assert (status == APPLIED).all()
