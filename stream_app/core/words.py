"""Texts to hashed words: what content similarity and merchandising rules compare."""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from stream_app.hashing import short_hash

_WORD = re.compile(r"\w+")
_WORD_CHARS_MAX = 64
_CACHE_MAX = 500_000
# Scripts written without spaces: Thai … and from the CJK radicals on. Pairs of characters stand
# for words there, as search engines do (Lucene's CJKBigramFilter).
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff]{2,}")


def words(text: str) -> Iterator[str]:
    """Case-folded words of a text, compatibility forms unified (NFKC).

    >>> list(words("Straße ＡＢ-12")), list(words("運動靴 X"))
    (['strasse', 'ab', '12'], ['運動', '動靴', 'x'])
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    for word in _WORD.findall(text.casefold()):
        if not word.isascii() and _UNSPACED.fullmatch(word):
            yield from (word[k : k + 2] for k in range(len(word) - 1))
        else:
            yield word[:_WORD_CHARS_MAX]


class Vocabulary:
    """Hashes of texts, remembered as long as there are not too many.

    >>> vocabulary = Vocabulary()
    >>> vocabulary.hashes(["red shoe", "Red"]) == [vocabulary.of("red"), vocabulary.of("shoe")]
    True
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, text: str) -> int:
        """32-bit hash of one text, never 0."""
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= _CACHE_MAX:
                self._known.clear()
            known = self._known[text] = short_hash(text)
        return known

    def hashes(self, texts: Iterable[str], limit: int = 64) -> list[int]:
        """Hashes of the first ``limit`` distinct words in ``texts``, in order."""
        found = dict.fromkeys(word for text in texts for word in words(text))
        return [self.of(word) for word, _ in zip(found, range(limit), strict=False)]
