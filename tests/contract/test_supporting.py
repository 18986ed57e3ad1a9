"""SUPPORT on both stores: messages are judged once, with the journey, and learned from."""

import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson
import pytest

from stream_app.adapters.memory import MemoryLog
from stream_app.core.support import SupportModel
from stream_app.embedded import ValkeyServer
from stream_app.errors import ConfigurationError, EventFileError, Fenced
from stream_app.ports import Claim, Commit, PublicHash, RawBatch, Record, StateStore
from stream_app.settings import Settings
from stream_app.support_files import fit_model, read_knowledge, read_rules
from stream_app.support_knowledge import KnowledgeBase
from stream_app.supporting import SUPPORT, Judge, Meta, Support, vader
from tests.contract.stores import Stores, opened

SETTINGS = Settings.model_validate({})
ASKS = {
    "track_order": ["where is my order", "track my parcel", "when will my package arrive"],
    "get_refund": ["i want my money back", "refund my purchase please", "return this for a refund"],
    "payment_issue": ["my card was declined", "payment failed again", "cannot pay with my card"],
}
PAIRS = [(text, intent) for intent, texts in ASKS.items() for text in texts]
KNOWLEDGE = """id,question,answer,intent
k1,Where is my order?,Follow the link in our mail.,track_order
k2,How do I get my money back?,Send it back within 30 days.,get_refund
"""


@pytest.fixture(params=["memory", "valkey"])
async def stores(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Stores]:
    """Each adapter in turn, empty."""
    async with opened(request.param, valkey.url) as found:
        yield found


class Desk:
    """A stage with its adapters."""

    def __init__(self, stores: Stores, folder: Path) -> None:
        (folder / "knowledge.csv").write_text(KNOWLEDGE)
        self.stores, self.log = stores, MemoryLog()
        self.judge = Judge(
            SupportModel.fit(*map(list, zip(*PAIRS, strict=True))),
            read_rules(None, ()),
            KnowledgeBase(SETTINGS, read_knowledge(folder / "knowledge.csv")),
            vader(),
        )
        self.stage = self.worker()

    def worker(self) -> Support:
        return Support(SETTINGS, self.stores.state, self.stores.public, self.log, self.judge)

    def assists(self) -> list[dict[str, object]]:
        sent = self.log.drain(SETTINGS.support_assist_topic, 0)
        return [orjson.loads(value or b"") for value in sent.values]


@pytest.fixture
async def desk(stores: Stores, tmp_path: Path) -> Desk:
    desk = Desk(stores, tmp_path)
    await desk.stage.reindex()
    await desk.stage.assign(0)
    return desk


def batch(
    first: int, values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None
) -> RawBatch:
    n = len(values)
    keys = [b"ada"] * n if keys is None else keys
    return RawBatch(
        "support", 0, first + n, range(first, first + n), keys, values, [0] * n, [()] * n
    )


def message(text: str, **more: object) -> bytes:
    return orjson.dumps({"message_id": "m1", "user_id": "ada", "text": text, **more})


async def test_a_message_is_answered_with_intent_queue_answer_and_journey(desk: Desk) -> None:
    fields = (b"step", b"home"), (b"checkout", b"[]")
    await desk.stores.public.put_hashes([PublicHash("rec:ada", 1, 1, *fields)])
    await desk.stage.process(batch(0, [message("my payment failed, this is terrible and urgent!")]))
    await desk.stage.process(batch(1, [message("my payment failed", user_id="bob")]))
    assist, elsewhere = desk.assists()
    assert assist["intent"] == elsewhere["intent"] == "payment_issue"
    assert assist["queue"] == "checkout"
    assert (elsewhere["queue"], elsewhere["journey"]) == ("payments", {})
    assert assist["urgency"] == "high"
    assert assist["journey"] == {"step": "checkout"}
    assert isinstance(assist["sentiment"], float)
    assert assist["sentiment"] < 0


async def test_without_the_sentiment_library_messages_are_judged_and_the_worker_says_so_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("vaderSentiment", "vaderSentiment.vaderSentiment"):
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    desk.judge.sentiment = vader()
    await desk.stage.process(batch(0, [message("terrible, awful, urgent!"), message("awful")]))
    urgent, plain = desk.assists()
    assert (urgent["sentiment"], urgent["urgency_because"]) == (None, ["word: urgent"])
    assert (plain["sentiment"], plain["urgency"]) == (None, "low")
    (line,) = caplog.messages
    assert "pip install stream_app[support]" in line


async def test_known_answers_are_suggested_best_first_also_for_misspelt_questions(
    desk: Desk,
) -> None:
    await desk.stage.process(batch(0, [message("were is my oder??")]))
    (assist,) = desk.assists()
    answers = assist["answers"]
    assert isinstance(answers, list)
    assert answers[0]["id"] == "k1"


async def test_text_of_any_language_is_judged_without_an_error(desk: Desk) -> None:
    texts = ["我的订单在哪里", "أين طلبي", "🙂", "", "wo bleibt meine Bestellung", "x" * 10_000]
    await desk.stage.process(batch(0, [message(text) for text in texts]))
    assists = desk.assists()
    assert len(assists) == len(texts)
    assert assists[3]["intent"] is None
    assert assists[3]["queue"] == "human"


async def test_malformed_messages_are_dead_lettered_and_accounted(desk: Desk) -> None:
    huge = message("x" * SETTINGS.event_bytes_max)
    await desk.stage.process(batch(0, [b"{", None, b'{"text":3}', huge, message("my parcel")]))
    letters = desk.log.drain(SETTINGS.dead_letter_topic, 0)
    reasons = [dict(headers)["reason"] for headers in letters.headers]
    assert reasons == [b"malformed"] * 3 + [b"oversize"]
    assert len(desk.assists()) == 1
    assert desk.stage.owned[0].meta.dead_lettered == 4


async def test_redelivered_messages_are_answered_once_and_not_again_by_a_successor(
    desk: Desk,
) -> None:
    await desk.stage.process(batch(0, [message("where is my order")]))
    await desk.stage.process(batch(0, [message("where is my order")]))
    assert len(desk.assists()) == 1
    successor = desk.worker()
    assert await successor.assign(0) == 1
    assert desk.assists() == []
    with pytest.raises(Fenced):
        await desk.stage.process(batch(1, [message("refund")]))


class Died(Exception):
    """The process is gone."""


class Dying(MemoryLog):
    """Gone before it can send."""

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        raise Died


class Unclearing:
    """A store of a worker that is gone once it has published."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.claim, self.load = store.claim, store.load

    async def commit(self, claim: Claim, step: Commit) -> None:
        if not step.outbox:
            raise Died
        await self._store.commit(claim, step)


@pytest.mark.parametrize("published", [False, True])
async def test_who_takes_over_tells_what_was_committed_and_keeps_nothing_of_it(
    desk: Desk, published: bool
) -> None:
    state, log = desk.stores.state, desk.log
    store, sink = (Unclearing(state), log) if published else (state, Dying())
    dying = Support(SETTINGS, store, desk.stores.public, sink, desk.judge)
    await dying.assign(0)
    with pytest.raises(Died):
        await dying.process(batch(0, [message("where is my order")]))
    assert len(desk.assists()) == published
    successor = desk.worker()
    assert await successor.assign(0) == 1
    (again,) = desk.assists()  # it cannot know whether the first was published
    assert again["message_id"] == "m1"
    after = await state.claim(SUPPORT, 0)
    assert (after.outbox, Meta.decode(after.meta).applied, after.cursor) == (b"", 1, 1)


async def test_labels_teach_a_new_intent_and_useless_ones_are_counted(desk: Desk) -> None:
    labels = [
        orjson.dumps({"text": f"is there a student discount {n}", "intent": "discount"})
        for n in range(40)
    ]
    rejects = desk.stage.apply_labels(
        batch(0, [*labels, b"{", b"{}", b'{"text":"","intent":"x"}', None])
    )
    assert [reject.reason for reject in rejects] == ["malformed", "malformed", "missing_field"]
    await desk.stage.process(batch(0, [message("student discount?")]))
    guess, _ = desk.judge.model.predict(["student discount?"])
    assert guess == ["discount"]


async def test_a_label_without_a_key_is_refused_as_compaction_would_lose_or_refuse_it(
    desk: Desk,
) -> None:
    label = orjson.dumps({"text": "is there a student discount", "intent": "discount"})
    rejects = desk.stage.apply_labels(batch(0, [label, label, None], [None, b"", None]))
    assert [(reject.row, reject.reason) for reject in rejects] == [(0, "no_key"), (1, "no_key")]
    assert "discount" not in desk.judge.model.intents


def test_wrong_files_stop_the_worker_with_the_place_and_the_cure(tmp_path: Path) -> None:
    table = tmp_path / "train.csv"
    table.write_text("text,intent\nhello,greeting\n")
    settings = Settings.model_validate({"support_train_file": str(table)})
    with pytest.raises(ConfigurationError, match="needs 2"):
        fit_model(settings)
    table.write_text("question\nhello\n")
    with pytest.raises(EventFileError, match="no column 'answer'"):
        read_knowledge(table)
