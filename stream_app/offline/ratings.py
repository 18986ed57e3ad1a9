"""Predict ratings before they are given: an overall mean and what customer and item differ from it.

The baseline predictor b = mean + customer + item (Koren, Bell and Volinsky 2009, eq. 4), learned by
damped running means, one rating after the other.
"""

from collections import defaultdict
from collections.abc import Iterable

from stream_app.core import metrics

_DAMPING_ITEM, _DAMPING_CUSTOMER = 10.0, 5.0  # ratings that "as everybody" counts for


class RatingBaseline:
    """A running baseline of ratings; bounded by the ids of the file it reads.

    >>> baseline = RatingBaseline()
    >>> for rating in (4.0, 5.0): baseline.learn("anna", "shoe", rating)
    >>> baseline.predict("nobody", "nothing"), baseline.predict("anna", "shoe") > 4.0
    (4.5, True)
    """

    def __init__(self) -> None:
        self._n = 0
        self._sum = 0.0
        self._items: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._customers: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def _parts(self, customer: str, item: str) -> tuple[float, float, float]:
        mean = self._sum / self._n if self._n else 0.0
        n, total = self._items.get(item, (0.0, 0.0))
        of_item = (total - n * mean) / (n + _DAMPING_ITEM)
        n, total = self._customers.get(customer, (0.0, 0.0))
        return mean, of_item, total / (n + _DAMPING_CUSTOMER)

    def predict(self, customer: str, item: str) -> float:
        """The rating to expect; that of everybody for who and what is not known."""
        return sum(self._parts(customer, item))

    def learn(self, customer: str, item: str, rating: float) -> None:
        """Learn one rating."""
        self._n += 1
        self._sum += rating
        mean, of_item, _ = self._parts(customer, item)
        self._items[item][0] += 1.0
        self._items[item][1] += rating
        self._customers[customer][0] += 1.0
        self._customers[customer][1] += rating - mean - of_item


def rating_errors(
    train: Iterable[tuple[str, str, float]], test: Iterable[tuple[str, str, float]], *, live: bool
) -> dict[str, float]:
    """``rmse``, ``mse`` and ``n`` of the ratings in ``test``, each predicted before it is known."""
    baseline = RatingBaseline()
    for customer, item, rating in train:
        baseline.learn(customer, item, rating)
    predicted, actual = [], []
    for customer, item, rating in test:
        predicted.append(baseline.predict(customer, item))
        actual.append(rating)
        if live:
            baseline.learn(customer, item, rating)
    if not actual:
        return {}
    return {
        "n": float(len(actual)),
        "rmse": metrics.rmse(predicted, actual),
        "mse": metrics.mse(predicted, actual),
    }
