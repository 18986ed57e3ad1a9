"""KNOWLEDGE: entries of the topic stand in for the file's, and answers follow what is there."""

import random
from collections.abc import Sequence

import orjson
import pytest

from stream_app.core.knowledge import NEWER_SHARE_MAX, Entry, Knowledge
from stream_app.ports import RawBatch
from stream_app.settings import Settings
from stream_app.support_knowledge import KnowledgeBase

SETTINGS = Settings.model_validate({})
FILE = [
    Entry("k1", "Where is my order?", "Follow the link in our mail.", "track_order"),
    Entry("k2", "How do I get my money back?", "Send it back within 30 days.", "get_refund"),
]
GIFT = {"question": "Do you wrap gifts?", "answer": "Yes, for two euros."}


def batch(*records: tuple[bytes | None, object]) -> RawBatch:
    """Keys with values: bytes as they are, ``None``, or what becomes JSON."""
    n = len(records)
    values = [
        value if value is None or isinstance(value, bytes) else orjson.dumps(value)
        for _, value in records
    ]
    keys = [key for key, _ in records]
    return RawBatch("support-knowledge", 0, n, range(n), keys, values, [0] * n, [()] * n)


async def suggested(base: KnowledgeBase, message: str) -> list[tuple[str, str]]:
    await base.reindex()
    (found,) = base.answers([message], [""])
    return [(answer.entry.id, answer.entry.answer) for answer in found]


async def test_an_entry_of_the_topic_is_suggested_until_its_tombstone() -> None:
    base = KnowledgeBase(SETTINGS)
    assert await suggested(base, "gift wrap") == []
    assert base.apply(batch((b"g", GIFT))) == []
    assert await suggested(base, "can you wrap it as a gift") == [("g", GIFT["answer"])]
    assert base.apply(batch((b"g", None), (b"never-was", None))) == []
    assert await suggested(base, "can you wrap it as a gift") == []


async def test_the_topic_stands_in_for_the_files_entry_of_the_same_id_and_gives_it_back() -> None:
    base = KnowledgeBase(SETTINGS, FILE)
    asked = "where is my order"
    assert await suggested(base, asked) == [("k1", FILE[0].answer)]
    base.apply(batch((b"k1", {"question": FILE[0].question, "answer": "Ask us."})))
    assert await suggested(base, asked) == [("k1", "Ask us.")]
    base.apply(batch((b"k1", {"id": "k1", "question": "", "answer": "", "deleted": True})))
    assert await suggested(base, asked) == [("k1", FILE[0].answer)]
    assert not await base.reindex()  # nothing has changed: nothing is done


def test_bad_records_are_refused_with_a_reason_and_change_nothing() -> None:
    base = KnowledgeBase(SETTINGS)
    rejects = base.apply(
        batch(
            (None, GIFT),
            (b"\xff", GIFT),
            (b"a", b"{"),
            (b"a", {"question": "What?"}),
            (b"a", {**GIFT, "answer": " "}),
            (b"a", {**GIFT, "question": "\t"}),
            (b"a", {**GIFT, "id": "b"}),
            (b"a", {**GIFT, "answer": "x" * SETTINGS.event_bytes_max}),
            (b"a", GIFT),
        )
    )
    assert [(reject.row, reject.reason) for reject in rejects] == list(
        enumerate(
            ["no_key", "bad_id", "malformed_json", "wrong_type", "missing_field", "missing_field",
             "key_mismatch", "oversize"]
        )
    )  # fmt: skip


async def test_there_is_room_for_so_many_entries_of_file_and_topic_together() -> None:
    base = KnowledgeBase(SETTINGS, FILE, entries_max=3)
    for _ in range(2):  # what is known already may change at any time
        rejects = base.apply(batch((b"k1", GIFT), (b"g", GIFT), (b"h", GIFT)))
        assert [(reject.row, reject.reason) for reject in rejects] == [(2, "no_room")]
    assert base.apply(batch((b"g", None), (b"k1", None), (b"h", GIFT))) == []
    found = await suggested(base, GIFT["question"])
    assert found == [("h", GIFT["answer"])]


async def test_workers_that_read_in_another_order_suggest_the_same() -> None:
    records: list[tuple[bytes | None, object]] = [(b"%d" % n, GIFT) for n in range(9)]
    found = []
    for order in (records, records[::-1]):
        base = KnowledgeBase(SETTINGS, FILE)
        base.apply(batch(*order))
        found.append(await suggested(base, GIFT["question"]))
    assert found[0] == found[1]
    assert [entry_id for entry_id, _ in found[0]] == ["0", "1", "2"]


def asked_alike(one: Knowledge, other: Knowledge, messages: Sequence[str]) -> None:
    intents = [""] * len(messages)
    for mine, its in zip(
        one.answers(messages, intents), other.answers(messages, intents), strict=True
    ):
        assert [answer.entry for answer in mine] == [answer.entry for answer in its]
        assert [a.score for a in mine] == pytest.approx([a.score for a in its], abs=1e-5)


def test_an_index_that_changed_equals_one_made_at_once() -> None:
    """With the same vocabulary: questions that were there, in another order, some gone."""
    draw = random.Random(1)
    words = "order parcel money refund card gift wrap size colour shop mail friend late".split()
    entries = [Entry(str(n), " ".join(draw.sample(words, 5)), f"a{n}") for n in range(60)]
    messages = [" ".join(draw.sample(words, 3)) for _ in range(20)]
    whole = Knowledge.of(entries)
    shuffled = draw.sample(entries, 60)
    asked_alike(whole.changed(shuffled), Knowledge.of(shuffled), messages)
    some = [entry for entry in shuffled if int(entry.id) % 12]
    again = whole.changed(some).changed(shuffled)  # what was forgotten is computed again
    assert again.newer == 5
    asked_alike(again, Knowledge.of(shuffled), messages)


def test_a_new_question_is_found_at_once_and_its_words_once_there_are_enough() -> None:
    entries = [Entry(str(n), f"question about the order number {n}", "a") for n in range(40)]
    strange = Entry("new", "warranty of the espresso machine", "two years")
    index = Knowledge.of(entries).changed([*entries, strange])
    ((best, *_),) = index.answers(["espresso machine warranty"], [""])
    assert best.entry == strange
    assert index.newer == 1
    more = [Entry(f"m{n}", f"espresso beans of kind {n}", "b") for n in range(5)]
    assert NEWER_SHARE_MAX * 46 < 6
    learned = index.changed([*entries, strange, *more])
    assert learned.newer == 0
    asked_alike(learned, Knowledge.of([*entries, strange, *more]), ["espresso", "order"])
