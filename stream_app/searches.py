"""What customers search for, as hashed words of their events. Called by the decoder."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream_app.core.model import KIND, QUERY_MAX
from stream_app.core.words import Vocabulary

CHARS_MAX = 200  # of a search's text; what follows says nothing
_SEARCH = KIND["search"]


class Searches:
    """Remembers the hashes of words."""

    def __init__(self) -> None:
        self._vocabulary = Vocabulary()

    def fill(self, events: NDArray[np.void], texts: Sequence[str | None]) -> None:
        """Set ``query`` of the ``(n,) EVENT`` records that are searches for ``texts``."""
        if texts.count(None) == len(texts):
            return
        for row in np.flatnonzero(events["kind"] == _SEARCH).tolist():
            hashes = self._vocabulary.hashes([(texts[row] or "")[:CHARS_MAX]], QUERY_MAX)
            events["query"][row, : len(hashes)] = hashes
