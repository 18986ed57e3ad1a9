"""The simulated shop's customers: tastes, price sensitivity, activity, and whether they log in."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.simulator.words import BRANDS, CHANNELS, LEAVES, REGIONS

joined_at_start = 0.7  # the rest arrives over ``growth_s``
taste_concentration = 0.08  # Dirichlet: most of a taste lies in two or three categories
KNOWN, LOGS_IN, GUEST = range(3)
login_shares = (0.6, 0.2, 0.2)  # always known, known from mid-session on, never known


@dataclass(frozen=True, slots=True)
class Customers:
    """``n`` customers, by the time they join. Customer ``c`` is called ``u<c>``.

    ``taste`` ``(n, n_categories) float32`` sums to 1 per row; ``brand`` ``(n, 2) int64`` are the
    favourites; ``price_sensitivity`` ``(n,) float64`` in [0, 1]; ``login`` ``(n,) int64`` one of
    KNOWN, LOGS_IN, GUEST; ``channel`` and ``region`` ``(n,) int64``; ``join_s`` ``(n,) float64``
    seconds after opening, rising; ``activity_sum`` ``(n,) float64`` cumulative session weights.
    """

    taste: NDArray[np.float32]
    taste_sum: NDArray[np.float32]
    brand: NDArray[np.int64]
    price_sensitivity: NDArray[np.float64]
    login: NDArray[np.int64]
    channel: NDArray[np.int64]
    region: NDArray[np.int64]
    join_s: NDArray[np.float64]
    activity_sum: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.login)

    def visiting(self, at_s: float, u: NDArray[np.float64]) -> NDArray[np.int64]:
        """Who starts a session, by activity, among those who have joined by ``at_s``."""
        joined = int(np.searchsorted(self.join_s, at_s, side="right"))
        total = self.activity_sum[joined - 1]
        return np.asarray(np.searchsorted(self.activity_sum[:joined], u * total), np.int64)

    def wanted(self, who: NDArray[np.int64], u: NDArray[np.float64]) -> NDArray[np.int64]:
        """A category for each customer, drawn from their taste."""
        return np.asarray((self.taste_sum[who] <= u[:, None]).sum(axis=1), np.int64)

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, JSON) of every customer who can be known, for a users topic."""
        for who in np.flatnonzero(self.login != GUEST).tolist():
            record = {
                "user_id": f"u{who}",
                "region": REGIONS[self.region[who]],
                "channel": CHANNELS[self.channel[who]],
            }
            yield record["user_id"].encode(), orjson.dumps(record)


def make_customers(rng: np.random.Generator, n: int, *, growth_s: float) -> Customers:
    """A population of ``n`` customers."""
    assert n >= 1, "a shop needs a customer"
    taste = rng.gamma(taste_concentration, size=(n, len(LEAVES))).astype(np.float32) + 1e-9
    taste /= taste.sum(axis=1, keepdims=True)
    taste_sum = np.cumsum(taste, axis=1)
    taste_sum[:, -1] = 1.0  # rounding must not leave a gap at the top
    join_s = np.sort(np.where(rng.random(n) < joined_at_start, 0.0, rng.random(n) * growth_s))
    join_s[0] = 0.0
    return Customers(
        taste=taste.astype(np.float32),
        taste_sum=taste_sum.astype(np.float32),
        brand=rng.integers(0, len(BRANDS), (n, 2)),
        price_sensitivity=rng.beta(2.0, 2.0, n),
        login=rng.choice(3, n, p=login_shares),
        channel=rng.choice(len(CHANNELS), n, p=(0.5, 0.4, 0.1)),
        region=rng.choice(len(REGIONS), n),
        join_s=join_s,
        activity_sum=np.cumsum(rng.gamma(0.8, size=n) + 0.02),
    )
