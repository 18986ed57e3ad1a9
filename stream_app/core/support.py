"""Name the intent of a support message. Called by ``fit-support`` and by the service agent.

Words, word pairs and character pieces inside words (2-4, which forgive spelling and inflection),
weighted by TF-IDF with logarithmic counts, and one linear support-vector machine per intent: the
strongest linear recipe for short texts in many fine classes. scikit-learn does the work.

Measured with 3 to 30 messages for each of 27 intents, 10 to 100 for each of 54 finer ones, 10 to
130 for each of 33 to 48 classes of package descriptions, and with wrong labels among right ones:
pieces of 2-4 are up to half a point better than 2-5 and 3-5 behind both, pieces across words 2
points behind; triples of words, ridge, logistic regression, naive Bayes (log-count ratios),
centroids, neighbours and averages with them gain nothing that lasts. Clean labels want pieces to
weigh double and little penalty, wrong ones among them the opposite: 2 to 8 points where a third
are wrong. So weight and penalty, and the scale that turns margins into probabilities, come from
messages held out of training.

With an embedding, its dimensions are features too: what is learned of "parcel" then holds for
"package". That is worth most where an intent has few messages (docs/support.md).
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import logsumexp, softmax

from stream_app.core.classification_metrics import platt_scaling, probability_floor, sigmoid

FloatArray = NDArray[np.float64]

# Messages to ``(n, dimensions)`` float32: rows of length 1, or 0 where no word is known.
Embed = Callable[[Sequence[str]], NDArray[np.float32]]

message_chars_max = 4_000  # a longer message is cut: the request stands near its start
features_max = 200_000  # words, and again pieces: the most frequent ones
intents_max = 1_000  # weights take intents × features × 4 bytes
# Weight of pieces and of an embedding against words, C of the machine: the first of equals wins.
recipes = ((2.0, 1.0), (2.0, 3.0), (2.0, 0.3), (1.0, 0.3), (1.0, 0.1))
telling_min = 60  # held-out messages: fewer do not tell recipes apart, so the first is taken
descent_rounds_max = 5_000  # five times the default; noisy labels need more than clean ones
descent_tolerance = 0.01  # 0.0001, the default, costs up to twice the time for the same accuracy
held_out_share = 0.2
reach_max = 0.25  # of one update: a step times the squared length of words and pieces
log_scale_bounds = (-2.0, 4.0)  # softmax scale between 0.1 and 55
scope_quantile = 0.01  # share of right held-out answers that may count as out of scope


def normalised(message: str) -> str:
    """One spelling for what looks the same: NFKC, case folded, white space single, bounded.

    >>> normalised("  Ｗhere   is MY ﬁle? ")
    'where is my file?'
    """
    text = unicodedata.normalize("NFKC", message[:message_chars_max]).casefold()
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Vectoriser:
    """Messages to sparse float32 rows ``(n, features)``; n-grams not learned are ignored."""

    words: Any  # sklearn's TfidfVectorizer, which ships no types
    pieces: Any
    embed: Embed | None = None
    weight: float = recipes[0][0]  # of pieces and embedding against words

    @classmethod
    def fit(cls, messages: Sequence[str], embed: Embed | None = None) -> Self:
        """Learn vocabulary and document frequencies; one message at least must have a text."""
        from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import

        shared: dict[str, Any] = {
            "preprocessor": normalised,
            "sublinear_tf": True,
            "max_features": features_max,
            "dtype": np.float32,
        }
        # Signs are words too, so that a message of emoji has a feature.
        words = TfidfVectorizer(token_pattern=r"(?u)\w+|[^\w\s]", ngram_range=(1, 2), **shared)
        pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **shared)
        return cls(words.fit(messages), pieces.fit(messages), embed)

    def rows(self, messages: Sequence[str]) -> Any:
        """``(n, features)`` csr matrix."""
        parts = [self.words.transform(messages), self.weight * self.pieces.transform(messages)]
        if self.embed is not None:
            parts.append(sparse.csr_matrix(self.weight * self.embed(messages)))
        return sparse.hstack(parts, format="csr", dtype=np.float32)


@dataclass(slots=True)
class SupportModel:
    """One linear margin per intent. ``weights`` ``(intents, features)`` float32.

    ``scale`` turns margins into probabilities. ``trust`` is the slope and offset that turn the log
    odds of the best one into the confidence that it is right: many fine intents are confused in
    pairs, which one scale cannot express. An answer less sure than ``scope_min`` is a guess: the
    message is out of scope.
    """

    vectoriser: Vectoriser
    intents: list[str]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    scale: float
    trust: tuple[float, float]
    scope_min: float

    @classmethod
    def fit(
        cls,
        messages: Sequence[str],
        intents: Sequence[str],
        *,
        seed: int = 0,
        embed: Embed | None = None,
    ) -> Self:
        """Learn from labelled messages; same messages and seed, same model."""
        assert len(messages) == len(intents)
        names, labels = np.unique(np.asarray(intents, dtype=str), return_inverse=True)
        assert 2 <= names.size <= intents_max
        texts = np.asarray(messages, dtype=object)
        (weight, penalty), scale, trust, scope_min = _validate(texts, labels, seed, embed)
        vectoriser = replace(Vectoriser.fit(messages, embed), weight=weight)
        weights, bias = _machine(vectoriser.rows(messages), labels, penalty, seed)
        known = [str(name) for name in names]
        return cls(vectoriser, known, weights, bias, scale, trust, scope_min)

    def probabilities(self, messages: Sequence[str]) -> FloatArray:
        """Probability of each intent. ``(n, intents)``; rows add up to 1.

        A message without any known feature gets the same probability for all.
        """
        rows = self.vectoriser.rows(messages)
        margins = _margins(rows, self.weights, self.bias)
        margins[np.diff(rows.indptr) == 0] = 0.0
        result: FloatArray = softmax(self.scale * margins, axis=1)
        return result

    def predict(self, messages: Sequence[str]) -> tuple[list[str], FloatArray]:
        """Each message's likeliest intent, ties by order, and the confidence in it ``(n,)``."""
        probability = self.probabilities(messages)
        best = probability.argmax(axis=1)
        return [self.intents[place] for place in best], _confidence(probability, self.trust)

    def partial_fit(self, messages: Sequence[str], intents: Sequence[str]) -> None:
        """Correct the margins with labelled messages in their order; new intents are added.

        Passive-aggressive steps (Crammer et al. 2006, PA-I) on the same one-against-rest hinge
        loss. Vocabulary and document frequencies stay; ``fit`` again learns new ones.
        """
        assert len(messages) == len(intents)
        rows = self.vectoriser.rows(messages)
        step_max = reach_max / (1.0 + self.vectoriser.weight**2)
        for number, intent in enumerate(intents):
            place = self._place(intent)
            begin, end = rows.indptr[number], rows.indptr[number + 1]
            columns, values = rows.indices[begin:end], rows.data[begin:end]
            margins = self.weights[:, columns] @ values + self.bias
            sign = np.where(np.arange(len(self.intents)) == place, 1.0, -1.0)
            loss = np.maximum(0.0, 1.0 - sign * margins)
            step = sign * np.minimum(step_max, loss / (values @ values + 1.0))
            self.weights[:, columns] += np.outer(step, values).astype(np.float32)
            self.bias += step.astype(np.float32)

    def _place(self, intent: str) -> int:
        """The row of ``intent``, made when it is new: known to nothing, so never likeliest yet."""
        if intent not in self.intents:
            assert len(self.intents) < intents_max
            self.intents.append(intent)
            self.weights = np.vstack([self.weights, np.zeros_like(self.weights[:1])])
            self.bias = np.append(self.bias, np.float32(-1.0))
        return self.intents.index(intent)


def _margins(rows: Any, weights: NDArray[np.float32], bias: NDArray[np.float32]) -> FloatArray:
    return np.asarray(rows @ weights.T + bias, dtype=np.float64)


def _machine(
    rows: Any, labels: NDArray[np.int64], penalty: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights ``(intents, features)`` and bias ``(intents,)`` of one machine per intent."""
    from sklearn.svm import LinearSVC

    machine = LinearSVC(
        C=penalty, dual=True, tol=descent_tolerance, max_iter=descent_rounds_max, random_state=seed
    )
    machine.fit(rows, labels)
    weights, bias = machine.coef_, machine.intercept_
    if len(weights) == 1:  # two intents share one machine
        weights, bias = np.vstack([-weights, weights]), np.concatenate([-bias, bias])
    return weights.astype(np.float32), bias.astype(np.float32)


def _validate(
    texts: NDArray[np.object_], labels: NDArray[np.int64], seed: int, embed: Embed | None
) -> tuple[tuple[float, float], float, tuple[float, float], float]:
    """Recipe, scale, trust and lowest confidence in scope, from held-out messages."""
    held_out = _held_out(labels, seed)
    # Every intent keeps at least one training message, so the machines know all of them.
    train, truth = labels[~held_out], labels[held_out]
    if not truth.size:
        return recipes[0], 1.0, (1.0, 0.0), 0.0
    vectoriser = Vectoriser.fit(list(texts[~held_out]), embed)
    parts = [list(texts[part]) for part in (~held_out, held_out)]
    tried = recipes if truth.size >= telling_min else recipes[:1]
    tables = {
        weight: [replace(vectoriser, weight=weight).rows(part) for part in parts]
        for weight in {weight for weight, _ in tried}
    }
    trials = []
    for recipe in tried:
        rows, unseen = tables[recipe[0]]
        margins = _margins(unseen, *_machine(rows, train, recipe[1], seed))
        trials.append((float((margins.argmax(axis=1) == truth).mean()), recipe, margins))
    _, recipe, margins = max(trials, key=lambda trial: trial[0])
    scale = _scale(margins, truth)
    probability = softmax(scale * margins, axis=1)
    right = probability.argmax(axis=1) == truth
    trust = platt_scaling(_log_odds(probability), right)
    sure = _confidence(probability, trust)[right]
    return recipe, scale, trust, float(np.quantile(sure, scope_quantile)) if sure.size else 0.0


def _scale(margins: FloatArray, truth: NDArray[np.int64]) -> float:
    """Temperature scaling (Guo et al. 2017): the scale with the lowest held-out log loss.

    One of the n answers counts as wrong (spread over all intents), as Platt 1999 does with two
    classes: without it, n right answers would make every probability 1.
    """
    from scipy.optimize import minimize_scalar  # slow to import, needed to fit only

    wrong = 1.0 / (truth.size + 1)

    def loss(log_scale: float) -> float:
        scores = np.exp(log_scale) * margins
        aimed = (1.0 - wrong) * scores[np.arange(truth.size), truth] + wrong * scores.mean(axis=1)
        return float((logsumexp(scores, axis=1) - aimed).mean())

    return float(np.exp(minimize_scalar(loss, bounds=log_scale_bounds, method="bounded").x))


def _log_odds(probability: FloatArray) -> FloatArray:
    """Of the likeliest intent against all others. ``(n,)``."""
    ordered = np.sort(probability, axis=1)
    others = np.maximum(ordered[:, :-1].sum(axis=1), probability_floor)
    result: FloatArray = np.log(ordered[:, -1]) - np.log(others)
    return result


def _confidence(probability: FloatArray, trust: tuple[float, float]) -> FloatArray:
    slope, offset = trust
    return sigmoid(slope * _log_odds(probability) + offset)


def _held_out(labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """A fifth of each intent's messages, at least one; none of an intent with one message."""
    random = np.random.default_rng(seed)
    chosen = np.zeros(labels.size, dtype=bool)
    for label in range(int(labels.max()) + 1):
        rows = np.flatnonzero(labels == label)
        size = max(1, round(held_out_share * rows.size)) if rows.size > 1 else 0
        chosen[random.permutation(rows)[:size]] = True
    return chosen
