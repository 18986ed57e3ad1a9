"""EMBEDDING: other words for the same are understood, of a folder's vectors or a package's."""

import asyncio
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from model2vec import StaticModel
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from stream_app import worker as composition
from stream_app.adapters.memory import MemoryLog
from stream_app.core.classification_metrics import accuracy
from stream_app.core.knowledge import Entry, Knowledge
from stream_app.core.support import Embed, SupportModel
from stream_app.errors import ConfigurationError
from stream_app.offline.answers import found
from stream_app.offline.tables import Table
from stream_app.ports import RawBatch
from stream_app.settings import Settings
from stream_app.support_embedding import BATCH_MAX, StaticEmbedding, load_embedding
from stream_app.support_knowledge import KnowledgeBase
from stream_app.worker import Worker
from tests.messages import shared, shuffled

SYNONYMS = ["parcel package shipment", "refund reimbursement cashback", "shop store boutique"]
FILE = [
    Entry("parcel", "parcel", "Follow the link in our mail."),
    Entry("refund", "refund", "Send it back within 30 days."),
    Entry("shop", "shop", "We open at nine."),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of nine words that model2vec saved: words of one meaning lie near each other."""
    words = ["[UNK]", *" ".join(SYNONYMS).split()]
    vectors = np.random.default_rng(0).normal(0.0, 0.1, (len(words), 8)).astype(np.float32)
    for number, group in enumerate(SYNONYMS):
        for word in group.split():
            vectors[words.index(word), number] += 1.0
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    path = tmp_path_factory.mktemp("vectors")
    StaticModel(vectors, tokenizer).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def embed(folder: Path) -> Embed:
    loaded = load_embedding(str(folder))
    assert loaded is not None
    return loaded


def test_vectors_have_length_one_and_none_where_no_word_is_known(embed: Embed) -> None:
    vectors = embed(["parcel", "  PARCEL ", "", "🙂", "parcel refund"] * BATCH_MAX)
    assert vectors.dtype == np.float32 and vectors.shape == (5 * BATCH_MAX, 8)
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(lengths, [1, 1, 0, 0, 1] * BATCH_MAX, atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_threads_may_ask_at_the_same_time(embed: Embed) -> None:
    asked = ["parcel", "refund", "shop"] * 2_000
    expected, wrong = embed(asked), []

    def ask() -> None:
        if not np.array_equal(embed(asked), expected):
            wrong.append(threading.get_ident())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(("asked", "answer"), [("shipment", "parcel"), ("cashback", "refund")])
def test_a_question_in_other_words_finds_its_answer(embed: Embed, asked: str, answer: str) -> None:
    (without,) = Knowledge.of(FILE).answers([asked], [""])
    assert answer not in [found.entry.id for found in without]
    ((best, *_),) = Knowledge.of(FILE, embed).answers([asked], [""])
    assert best.entry.id == answer
    assert 0.4 < best.score <= 0.5  # half of one: the other cosine is 0


def test_what_has_the_very_words_stays_first(embed: Embed) -> None:
    entries = [Entry("other", "shipment 4711", "a"), Entry("same", "parcel 4712", "b"), *FILE]
    ((best, *_),) = Knowledge.of(entries, embed).answers(["shipment 4712"], [""])
    assert best.entry.id == "other"
    ((best, *_),) = Knowledge.of(entries, embed).answers(["4712"], [""])
    assert best.entry.id == "same"


def test_an_index_that_changed_has_the_vectors_of_one_made_at_once(embed: Embed) -> None:
    many = [Entry(str(n), f"shop number {n}", "a") for n in range(40)]
    whole = Knowledge.of([*many, *FILE], embed)
    some = whole.changed([FILE[2], *many[5:], *FILE[:2]])
    assert some.newer == 0
    grown = some.changed([*FILE, *many[7:], Entry("new", "boutique", "b")])
    assert grown.newer == 1
    questions = [entry.question for entry in grown.entries]
    np.testing.assert_array_equal(grown.vectors, embed(questions))


async def test_entries_of_the_topic_are_embedded_in_the_thread_that_learns_words(
    embed: Embed,
) -> None:
    threads = []

    def watched(messages: Sequence[str]) -> NDArray[np.float32]:
        threads.append(threading.current_thread())
        return embed(messages)

    base = KnowledgeBase(Settings.model_validate({}), FILE[:1], embed=watched)
    value = orjson.dumps({"question": "refund", "answer": "Send it back."})
    batch = RawBatch("support-knowledge", 0, 1, range(1), [b"r"], [value], [0], [()])
    assert base.apply(batch) == [] and not threads
    await base.reindex()
    assert threads and threading.main_thread() not in threads
    ((best, *_),) = await asyncio.to_thread(base.answers, ["reimbursement"], [""])
    assert (best.entry.id, best.entry.answer) == ("r", "Send it back.")


def test_what_is_learned_of_a_word_holds_for_words_of_its_meaning(embed: Embed) -> None:
    messages, intents = ["parcel", "refund", "shop"] * 3, ["track", "money", "visit"] * 3
    model = SupportModel.fit(messages, intents, embed=embed)
    asked = ["shipment", "reimbursement", "boutique", "package"]
    assert model.predict(asked)[0] == ["track", "money", "visit", "track"]
    for _ in range(10):
        model.partial_fit(["cashback"], ["voucher"])
    assert model.predict(["cashback", "shipment"])[0] == ["voucher", "track"]


async def test_a_worker_judges_with_the_embedding_that_is_set(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "kafka_log", lambda _settings: MemoryLog())
    (tmp_path / "m.csv").write_text("text,intent\n" + "parcel,track\nrefund,money\n" * 3)
    (tmp_path / "k.csv").write_text("question,answer\nparcel,Follow the link.\nshop,At nine.\n")
    given = {
        "support_train_file": tmp_path / "m.csv",
        "support_knowledge_file": tmp_path / "k.csv",
        "support_embedding": str(folder),
    }
    worker = Worker(Settings.model_validate(given))
    worker.prepare()
    assert worker.support is not None and worker.support.judge is not None
    await worker.support.reindex()
    judge = worker.support.judge
    assert judge.model.predict(["shipment", "cashback"])[0] == ["track", "money"]
    ((best, *_),) = judge.knowledge.answers(["package"], [""])
    assert best.entry.answer == "Follow the link."
    wrong = Worker(Settings.model_validate({**given, "support_embedding": str(tmp_path / "no")}))
    with pytest.raises(ConfigurationError, match="STREAM_APP_SUPPORT_EMBEDDING="):
        wrong.prepare()


def test_a_wrong_embedding_stops_the_start_and_names_the_cure(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"=minishlab/potion: no such folder; .*saved"):
        load_embedding("minishlab/potion")
    with pytest.raises(ConfigurationError, match=r"cannot be read .*save the model again"):
        load_embedding(str(tmp_path))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ConfigurationError, match=r"cannot be read .*save the model again"):
        load_embedding(str(tmp_path))
    broken = StaticModel.from_pretrained(folder)
    broken.embedding[1, 1] = np.nan
    broken.save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="not finite; name another"):
        load_embedding(str(tmp_path))
    assert load_embedding("") is None


@pytest.mark.parametrize("missing", ["model2vec", "tokenizers", "wordllama"])
def test_without_the_extra_the_start_stops_and_says_how_to_add_it(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        ConfigurationError, match=r"EMBEDDING=wordllama: .* stream_app\[embedding\]"
    ):
        load_embedding("wordllama")


@pytest.fixture(scope="module")
def english() -> Embed:
    loaded = load_embedding("wordllama")
    assert isinstance(loaded, StaticEmbedding)
    return loaded


def test_the_packaged_vectors_are_english_and_need_no_network(
    english: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = english(["where is my parcel", "track a package", "bake a cake", "明日の天気は"])
    assert vectors.shape == (4, 256)
    assert vectors[0] @ vectors[1] > 0.2 > vectors[0] @ vectors[2]
    assert "wordllama" not in sys.modules  # it would set up logging


@pytest.fixture(scope="module")
def table() -> Table:
    return shuffled()


@shared
def test_more_paraphrases_find_their_answer(table: Table, english: Embed) -> None:
    few = table.take(range(2000))
    plain, helped = (
        [found(few, "intent", "utterance", embed=e, seed=seed)["found_at_3"] for seed in range(3)]
        for e in (None, english)
    )
    assert np.mean(helped) > np.mean(plain) + 0.05


@shared
def test_fewer_labelled_messages_are_needed(table: Table, english: Embed) -> None:
    train, test = table.take(range(135)), table.take(range(2000, 4000))
    right = [
        accuracy(
            test.column("intent"),
            SupportModel.fit(train.column("utterance"), train.column("intent"), embed=e).predict(
                test.column("utterance")
            )[0],
        )
        for e in (None, english)
    ]
    assert right[1] > right[0] + 0.02
