"""How soon customers buy an item again is learned from their purchases, bounded and once."""

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_app.absence import why_not
from stream_app.core.cycles import (
    CYCLES,
    category_key,
    cycle_of,
    decode_cycles,
    new_cycles,
    note_cycle,
    usual_s,
)
from stream_app.core.learn import EVENT, learn
from stream_app.core.model import KIND, Model
from stream_app.core.state import decode_users, encode_users, new_partition
from stream_app.errors import SchemaUnknown
from stream_app.hashing import stable_hash
from stream_app.offline.engine import Engine
from stream_app.owning import CYCLES_ID
from stream_app.ports import USERS
from stream_app.reasons import Explainer
from stream_app.settings import load_settings
from tests.core.logs import JOURNEY, START_S

DAY_S = 86_400.0
COFFEE, FOOD = 11, 5
ONE = {"STREAM_APP_CLICKSTREAM_PARTITIONS": "1", "STREAM_APP_COOCCURRENCE_PARTITIONS": "1"}


def purchases(*days: float, item: int = COFFEE, category: int = FOOD) -> NDArray[np.void]:
    events = np.zeros(len(days), EVENT)
    events["customer"], events["item"], events["category"] = 1, item, category
    events["kind"], events["ts"] = KIND["purchase"], START_S + np.array(days) * DAY_S
    events["offset"] = np.arange(len(days))
    return events


def learned(*batches: NDArray[np.void], learn_globals: bool = True) -> NDArray[np.void]:
    cycles, partition, blob = new_cycles(), new_partition(), None
    for events in batches:
        users = decode_users(np.ones(1, np.uint64), [blob])
        rows = np.zeros(len(events), np.int64)
        model = Model()
        learn(
            users, rows, events, partition, model, JOURNEY.plan,
            cycles=cycles, learn_globals=learn_globals,
        )  # fmt: skip
        (blob,) = encode_users(users)
    return cycles


def days_of(cycles: NDArray[np.void], key: int | np.uint64) -> tuple[float, float]:
    n, usual = cycle_of(cycles.view(np.recarray)[0], key)
    return n, round(usual / DAY_S, 3)


def test_the_time_between_two_purchases_of_an_item_counts_for_it_and_its_category() -> None:
    log = purchases(0, 10, 30, 40)
    cycles = learned(log)
    usual = round((10 * 20 * 10) ** (1 / 3), 3)
    assert days_of(cycles, COFFEE) == days_of(cycles, int(category_key(FOOD))) == (3.0, usual)
    assert cycles["observed"].tolist() == [3]
    assert learned(*np.split(log, [1, 3])).tobytes() == cycles.tobytes(), "however it was cut"
    assert learned(log, learn_globals=False).tobytes() == new_cycles().tobytes()


def test_what_is_bought_twice_in_a_session_or_returned_in_between_is_no_cycle() -> None:
    assert learned(purchases(0, 0.01, 0.02))["observed"].tolist() == [0]
    returned = purchases(0, 1, 9)
    returned["kind"][1] = KIND["refund"]
    assert learned(returned)["observed"].tolist() == [0]


def test_a_category_speaks_for_items_that_nobody_has_bought_often_enough() -> None:
    cycles = learned(purchases(0, 10, 20, 30, 40, 50)).view(np.recarray)[0]
    assert usual_s(cycles, COFFEE, 0, 0) == pytest.approx(10 * DAY_S)
    assert usual_s(cycles, 99, FOOD, 0) == usual_s(cycles, 99, 1, FOOD) != 0.0
    few = learned(purchases(0, 10, 20, 30, 40)).view(np.recarray)[0]
    assert usual_s(few, COFFEE, FOOD, 0) == usual_s(few, 99, 1, 0) == 0.0


def test_a_full_table_keeps_what_is_seen_often_and_forgets_what_is_long_gone() -> None:
    cycles = new_cycles().view(np.recarray)
    for k in range(50):
        note_cycle(cycles[0], COFFEE, FOOD, 20 * DAY_S, START_S + k)
    rng = np.random.default_rng(1)
    for item in rng.integers(1, 2**63, 5_000).tolist():
        note_cycle(cycles[0], item, 0, 5 * DAY_S, START_S + DAY_S)
    assert np.count_nonzero(cycles["key"]) == cycles["key"].size
    assert days_of(cycles, COFFEE) == (50.0, 20.0)
    for item in rng.integers(1, 2**63, 5_000).tolist():
        note_cycle(cycles[0], item, 0, 5 * DAY_S, START_S + 900 * DAY_S)
    assert days_of(cycles, COFFEE) == (0.0, 0.0), "nobody has bought it again for years"


def test_a_record_of_another_release_stops_the_worker() -> None:
    cycles = learned(purchases(0, 10))
    assert decode_cycles(cycles.tobytes()).tobytes() == cycles.tobytes()
    assert decode_cycles(None).tobytes() == new_cycles().tobytes()
    for blob in (b"\x09" + bytes(CYCLES.itemsize - 1), b"\x01"):
        with pytest.raises(SchemaUnknown, match="repurchase cycles have schema"):
            decode_cycles(blob)


async def test_the_worker_stores_cycles_with_its_customers_and_says_why_an_item_stays_out() -> None:
    settings = load_settings({**ONE, "STREAM_APP_EXCLUDE_BOUGHT_DAYS": "365"})
    engine = Engine(settings, list_size=5)
    await engine.start()
    values = [
        f'{{"user_id":"u{k % 3}","item_id":"tea","event":"purchase","ts":{1_600_000_000 + day}}}'
        for k, day in enumerate(range(0, 90 * 86_400, 86_400 * 5))
    ]
    await engine.apply([value.encode() for value in values[:9]])
    await engine.apply([value.encode() for value in values[9:]])
    (blob,) = await engine.store.load(USERS, [0], [CYCLES_ID])
    tea = int(stable_hash("tea"))
    assert days_of(decode_cycles(blob), np.uint64(tea)) == (15.0, 15.0)
    await engine.stages.learn.assign(0)  # as another worker would
    assert engine.stages.learn.owned[0].cycles.tobytes() == blob
    stages = engine.stages
    explainer = Explainer(stages, engine.store, 0, stages.learn.owned[0].partition)
    await explainer.load("u2")
    answer = await why_not(stages, explainer, "tea", "home", now=0.0)
    assert answer.reason == "bought"
    stays_s = float(answer.bought["until"]) - float(answer.bought["at"])
    assert stays_s == pytest.approx(0.75 * 15 * DAY_S), "three quarters of the usual time"
    assert "after 15.0 days, seen 15 times" in str(answer.bought["because"])
