"""Find known answers to a support message: cosines with the questions. Called by SUPPORT.

The same words, word pairs and character pieces as for intents (:class:`core.support.Vectoriser`),
so a misspelt question still finds its answer. The vocabulary is that of the knowledge base: to
learn it from 50,000 questions may take a minute, so entries that change are looked up with the
one there is until they are a tenth of all.

With an embedding, a question is as near as the mean of both cosines says: that of TF-IDF knows
names and numbers, that of the embedding other words for the same. Weights of 1:1 to 1:2 and ranks
fused (Cormack et al. 2009) were measured: the mean beats ranks by 2 points, 1:2 is 1 point better.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stream_app.core.support import Embed, Vectoriser

ENTRIES_MAX = 50_000
ANSWERS_MAX = 3
SCORE_MIN = 0.15  # of cosine 1: below it two messages share little but function words
SAME_INTENT = 0.15  # added for an entry of the message's own intent
NEWER_SHARE_MAX = 0.1  # of the questions, which the vocabulary was not learned from


class Entry(NamedTuple):
    """One question with its answer; ``intent`` may be empty."""

    id: str
    question: str
    answer: str
    intent: str = ""


class Answer(NamedTuple):
    """A suggestion: ``score`` is a cosine or the mean of two, plus a bonus for the same intent."""

    entry: Entry
    score: float


@dataclass(frozen=True, slots=True)
class Knowledge:
    """``rows`` is a ``(entries, features)`` csr matrix of unit rows.

    ``vectors`` are the questions' embeddings ``(entries, dimensions)`` float32, none without one.
    ``newer`` of the questions, or of those that were here, are not what the vocabulary is from.
    """

    entries: Sequence[Entry]
    vectoriser: Vectoriser
    rows: Any
    embed: Embed | None
    vectors: NDArray[np.float32]
    newer: int = 0

    @classmethod
    def of(cls, entries: Sequence[Entry], embed: Embed | None = None) -> Self:
        """Index ``entries``; one at least."""
        assert 0 < len(entries) <= ENTRIES_MAX
        questions = [entry.question for entry in entries]
        vectoriser = Vectoriser.fit(questions)
        rows = _unit(vectoriser.rows(questions))
        return cls(entries, vectoriser, rows, embed, _embedded(embed, questions))

    def changed(self, entries: Sequence[Entry]) -> Self:
        """An index of ``entries``, one at least: computed anew only for questions not in this one.

        Where :data:`NEWER_SHARE_MAX` of them would be newer than the vocabulary, it is
        :meth:`of` them all.
        """
        assert 0 < len(entries) <= ENTRIES_MAX
        places = {entry.question: place for place, entry in enumerate(self.entries)}
        new = list(dict.fromkeys(e.question for e in entries if e.question not in places))
        newer = self.newer + len(new)
        if newer > NEWER_SHARE_MAX * len(entries):
            return type(self).of(entries, self.embed)
        rows, vectors = self.rows, self.vectors
        if new:
            rows = sparse.vstack([rows, _unit(self.vectoriser.rows(new))], format="csr")
            vectors = np.vstack([vectors, _embedded(self.embed, new)])
        places |= {question: len(self.entries) + n for n, question in enumerate(new)}
        order = [places[entry.question] for entry in entries]
        return type(self)(entries, self.vectoriser, rows[order], self.embed, vectors[order], newer)

    def answers(self, messages: Sequence[str], intents: Sequence[str]) -> list[list[Answer]]:
        """For each message up to :data:`ANSWERS_MAX`, the best first; ties in entry order."""
        of_intent = np.array([entry.intent for entry in self.entries])
        found = []
        for scores, intent in zip(self.likeness(messages), intents, strict=True):
            likely = scores >= SCORE_MIN
            scores = scores + SAME_INTENT * ((of_intent == intent) & (of_intent != ""))
            order = np.argsort(-scores, kind="stable")[: ANSWERS_MAX + len(scores) // 100]
            kept = [k for k in order.tolist() if likely[k]][:ANSWERS_MAX]
            found.append([Answer(self.entries[k], float(scores[k])) for k in kept])
        return found

    def likeness(self, messages: Sequence[str]) -> Iterator[NDArray[np.float64]]:
        """How near each message is to every question, from 0 (or -0.5) to 1. ``(entries,)``."""
        cosines = _unit(self.vectoriser.rows(messages)) @ self.rows.T
        vectors = _embedded(self.embed, messages)
        for number in range(len(messages)):
            scores = np.asarray(cosines[number].todense(), dtype=np.float64).ravel()
            if self.embed is not None:
                scores = (scores + self.vectors @ vectors[number]) / 2.0
            yield scores


def _embedded(embed: Embed | None, messages: Sequence[str]) -> NDArray[np.float32]:
    """``(n, dimensions)``; no dimensions without an embedding."""
    return np.empty((len(messages), 0), np.float32) if embed is None else embed(messages)


def _unit(rows: Any) -> Any:
    """Sparse ``rows`` of length 1; empty ones stay empty."""
    from sklearn.preprocessing import normalize  # slow to import, and not all need it

    return normalize(rows)
