"""The support model: many intents from few messages, spelling, languages, scope, corrections."""

import json

import numpy as np
import pytest

from stream_app.core import support
from stream_app.core.classification_metrics import accuracy, auc
from stream_app.core.support import SupportModel, message_chars_max, normalised
from stream_app.offline.fit import fit_support
from stream_app.offline.tables import Table
from tests.messages import shared, shuffled

VERBS = ["cancel", "track", "change", "return", "pay for"]
THINGS = ["order", "invoice", "account", "address", "subscription", "voucher"]
FRAMES = [
    "how do I {} my {}?",
    "I want to {} the {}",
    "please help me {} this {}",
    "can you {} an {} for me",
    "{} {} now!",
    "is it possible to {} my old {}",
    "I need to {} one {} today",
    "what must I do to {} a {}",
]


def inbox(frames: list[str]) -> tuple[list[str], list[str]]:
    """30 fine intents, one message each per frame."""
    rows = [(f.format(v, t), f"{v} {t}") for f in frames for v in VERBS for t in THINGS]
    return [message for message, _ in rows], [intent for _, intent in rows]


@pytest.fixture
def model() -> SupportModel:
    return SupportModel.fit(*inbox(FRAMES[:6]))


def test_thirty_intents_are_learned_from_six_messages_each(model: SupportModel) -> None:
    messages, intents = inbox(FRAMES[6:])
    guess, confidence = model.predict(messages)
    assert accuracy(intents, guess) > 0.95
    assert ((confidence >= 0) & (confidence <= 1)).all()
    np.testing.assert_allclose(model.probabilities(messages).sum(axis=1), 1.0)


def test_misspelt_and_full_width_words_are_understood(model: SupportModel) -> None:
    guess, _ = model.predict(["how to cancell my ordr", "ＣＡＮＣＥＬ my ＯＲＤＥＲ"])
    assert guess == ["cancel order", "cancel order"]


def test_same_messages_and_seed_give_the_same_bits(model: SupportModel) -> None:
    again = SupportModel.fit(*inbox(FRAMES[:6]))
    messages, _ = inbox(FRAMES[6:])
    assert again.probabilities(messages).tobytes() == model.probabilities(messages).tobytes()


def test_foreign_messages_are_less_sure_and_an_empty_one_is_evenly_unsure(
    model: SupportModel,
) -> None:
    known, _ = inbox(FRAMES[6:])
    strange = ["quel temps fait-il à Paris ?", "明日の天気は", "🙂🙂", "zzz qqq www"]
    assert np.median(model.predict(known)[1]) > model.predict(strange)[1].max()
    assert np.ptp(model.probabilities([""])) == 0
    assert model.predict([""])[1][0] < model.scope_min


def test_any_language_can_be_learned() -> None:
    messages = [
        "私の注文はどこですか",
        "注文をキャンセル",
        "أين طلبي",
        "إلغاء الطلب",
        "📦?",
        "🚫📦",
    ] * 3
    intents = ["where", "cancel"] * 9
    guess, _ = SupportModel.fit(messages, intents).predict(messages)
    assert guess == intents


def test_a_correction_changes_the_answer_and_leaves_the_others(model: SupportModel) -> None:
    messages, intents = inbox(FRAMES[6:])
    for _ in range(10):
        model.partial_fit(["my parcel is lost, cancel it"], ["track order"])
    assert model.predict(["my parcel is lost, cancel it"])[0] == ["track order"]
    assert accuracy(intents, model.predict(messages)[0]) > 0.93


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_a_correction_goes_as_far_whatever_pieces_weigh(
    weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "recipes", ((weight, 1.0),))
    model = SupportModel.fit(*inbox(FRAMES[:6]))
    row, place = model.vectoriser.rows(["cancel my order"]), model.intents.index("track order")
    before = (row @ model.weights.T + model.bias)[0, place]
    model.partial_fit(["cancel my order"], ["track order"])
    assert 0.25 < (row @ model.weights.T + model.bias)[0, place] - before < 0.4


def test_a_new_intent_is_learned_from_corrections(model: SupportModel) -> None:
    examples = ["do you have a shop in Berlin", "where is your shop", "shop opening hours"]
    for _ in range(10):
        model.partial_fit(examples, ["find shop"] * 3)
    assert model.predict(["which hours is the shop open"])[0] == ["find shop"]
    assert model.probabilities(examples).shape == (3, 31)


@pytest.mark.parametrize("counts", [(1, 1), (1, 9), (2, 2)])
def test_the_smallest_tables_give_a_model(counts: tuple[int, int]) -> None:
    messages = ["buy now"] * counts[0] + ["send back"] * counts[1]
    intents = ["buy"] * counts[0] + ["return"] * counts[1]
    model = SupportModel.fit(messages, intents)
    assert model.predict(["buy it", "send it back"])[0] == ["buy", "return"]


def test_contradicting_labels_are_no_reason_to_fail() -> None:
    messages = ["same words"] * 40
    intents = ["a", "b", "c", "d"] * 10
    _, confidence = SupportModel.fit(messages, intents).predict(["same words"])
    assert confidence[0] < 0.6


def test_a_huge_message_is_cut_before_it_costs_anything() -> None:
    assert len(normalised("x" * 10_000_000)) == message_chars_max


@pytest.fixture(scope="module")
def table() -> Table:
    return shuffled()


@shared
def test_support_intents_are_learned_from_a_quarter_of_the_messages(table: Table) -> None:
    train, test = table.take(range(2000)), table.take(range(2000, 4000))
    result = fit_support(train, test, "utterance", "intent")
    assert result["classes"] == 27
    assert result["accuracy"] is not None and result["accuracy"] > 0.98
    assert result["macro_f1"] is not None and result["macro_f1"] > 0.98
    json.dumps(result, allow_nan=False)


@shared
def test_ten_messages_an_intent_are_nearly_enough(table: Table) -> None:
    result = fit_support(
        table.take(range(270)), table.take(range(2000, 4000)), "utterance", "intent"
    )
    assert result["accuracy"] is not None and result["accuracy"] > 0.86


@shared
def test_two_wrong_labels_of_five_are_outvoted(table: Table) -> None:
    """Fewer than two, as some are right by chance."""
    random = np.random.default_rng(0)
    intents = table.column("intent")[:2000]
    wrong = random.random(2000) < 0.4
    noisy = [random.choice(intents) if wrong[row] else intents[row] for row in range(2000)]
    train, test = table.take(range(2000)), table.take(range(2000, 4000))
    model = SupportModel.fit(train.column("utterance"), noisy)
    guess, _ = model.predict(test.column("utterance"))
    assert accuracy(test.column("intent"), guess) > 0.92  # .87 where pieces always weigh double


@shared
def test_intents_never_seen_are_out_of_scope(table: Table) -> None:
    intents = table.column("intent")
    hidden = set(sorted(set(intents))[::4])
    rows = [row for row in range(2000) if intents[row] not in hidden]
    train, test = table.take(rows), table.take(range(2000, 4000))
    model = SupportModel.fit(train.column("utterance"), train.column("intent"))
    _, confidence = model.predict(test.column("utterance"))
    outside = np.array([intent in hidden for intent in test.column("intent")])
    assert auc(outside, -confidence) > 0.95
    flagged = confidence < model.scope_min
    assert flagged[outside].mean() > 0.6 and flagged[~outside].mean() < 0.05
