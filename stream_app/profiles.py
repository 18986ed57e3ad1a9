"""Customers' profiles: what ``profile:<user_id>`` holds.

Read from their states, from the catalog (what they like) and from what the shop says of them.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stream_app.codec import json_text
from stream_app.core.affinities import Liked, affinities, price_sample, price_standing
from stream_app.core.audience import PERSONALISE, Audience
from stream_app.core.catalog import Catalog
from stream_app.core.segments import PRICE_LEVELS, RFM_LABELS, rfm_labels

# What a state does not tell: needs the catalog and what the shop has said.
FROM_TOPICS = frozenset(
    {
        "category_affinities",
        "brand_affinities",
        "price_affinity",
        "region",
        "channel",
        "language",
        "tags",
        "attributes",
    }
)
NAME_CHARS_MAX = 200  # of a category or brand
_NAMES_MAX = 100_000  # of them kept encoded
_LEARNED = (
    b'{"user_id":%b,"anonymous":%b,"step":%b,"previous_step":%b,"entered_at":%.3f,'
    b'"last_seen":%.3f,"session_start":%.3f,"events":%d,"sessions":%d,"purchases":%d,'
    b'"monetary":%.2f,"cart_items":%d,"bought_items":%d,"recent_items":%d,'
    b'"purchase_in_session":%.4f,"purchase_in_week":%.4f,"churn":%.4f,"order_value":%.2f,'
    b'"cluster":%d,"value_segment":"%b","last_purchase":%b'
)
_NUMBERS = (
    "entered_at",
    "last_ts",
    "session_start",
    "events",
    "sessions",
    "purchases",
    "monetary",
    "cart_n",
    "bought_n",
    "ring_n",
    "p_session",
    "p_week",
    "p_churn",
    "order_value",
    "segment",
)
_LIKINGS = b'"category_affinities":[%b],"brand_affinities":[%b],"price_affinity":%b'
_PRICE = b'{"typical":%.2f,"percentile":%.2f,"level":"%b"}'


class Profiles:
    """Makes profiles; ``steps`` are the names of the journey's steps by number."""

    def __init__(self, catalog: Catalog, audience: Audience, steps: Sequence[str]) -> None:
        self._catalog = catalog
        self._audience = audience
        self._steps = [json_text(step) for step in steps]
        self._names: dict[tuple[str, int], bytes] = {}
        self._prices = np.zeros(0)
        self._prices_of = -1  # version of the catalog

    def json(self, users: NDArray[np.void], customers: Sequence[str]) -> list[bytes]:
        """JSON profiles of ``(n,) USER`` records: value, journey, predictions, likings.

        Times are unix seconds; items are counted, not named: their ids are hashes in the state.
        """
        return [
            b",".join((learned, liking, described) if described else (learned, liking)) + b"}"
            for learned, liking, described in zip(
                self._learned(users, customers),
                self._likings(users),
                self._audience.described(users["id"]),
                strict=True,
            )
        ]

    def _learned(self, users: NDArray[np.void], customers: Sequence[str]) -> Iterator[bytes]:
        labels = [RFM_LABELS[k].encode() for k in rfm_labels(users, users["last_ts"]).tolist()]
        for customer, label, bought_ts, anonymous, step, previous, *numbers in zip(
            customers,
            labels,
            users["purchase_ts"].tolist(),
            users["anonymous"].tolist(),
            users["step"].tolist(),
            users["previous_step"].tolist(),
            *(users[name].tolist() for name in _NUMBERS),
            strict=True,
        ):
            yield _LEARNED % (
                json_text(customer),
                b"true" if anonymous else b"false",
                self._steps[step],
                self._steps[previous],
                *numbers,
                label,
                b"%.3f" % bought_ts if bought_ts else b"null",
            )

    def _likings(self, users: NDArray[np.void]) -> Iterator[bytes]:
        """Of those who denied personalisation, and without a catalog: none."""
        catalog = self._catalog
        if not catalog.rows_n:
            yield from [_LIKINGS % (b"", b"", b"null")] * len(users)
            return
        if self._prices_of != catalog.version:
            self._prices, self._prices_of = price_sample(catalog), catalog.version
        liked = affinities(users, self._audience.may(users["id"], PERSONALISE), catalog)
        cheaper, levels = price_standing(liked.price, self._prices)
        for category, brand, price, share, level in zip(
            self._shares(liked.categories, "category"),
            self._shares(liked.brands, "brand"),
            liked.price.tolist(),
            cheaper.tolist(),
            [PRICE_LEVELS[level].encode() for level in levels.tolist()],
            strict=True,
        ):
            known = price == price  # NaN is not
            yield _LIKINGS % (category, brand, _PRICE % (price, share, level) if known else b"null")

    def _shares(self, liked: Liked, column: str) -> Iterator[bytes]:
        for values, rows, shares in zip(*(part.tolist() for part in liked), strict=True):
            yield b",".join(
                [
                    b"%b%.4f}"
                    % (self._names.get((column, value)) or self._head(column, row), share)
                    for value, row, share in zip(values, rows, shares, strict=True)
                    if value
                ]
            )

    def _head(self, column: str, row: int) -> bytes:
        """The beginning of an affinity: it names the category path or the brand of an item."""
        if len(self._names) >= _NAMES_MAX:
            self._names.clear()
        texts = self._catalog.texts(row)
        text = "/".join(texts.category) if column == "category" else texts.brand
        head = b'{"name":%b,"share":' % json_text(text[:NAME_CHARS_MAX])
        self._names[column, int(getattr(self._catalog, column)[row])] = head
        return head
