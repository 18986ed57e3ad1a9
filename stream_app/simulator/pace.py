"""How fast the simulated shop lives: think time, days, flash sales, growth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

day_swing = 0.6  # traffic at the busiest hour is 1.6 of the mean, at the quietest 0.4
flash_factor = 3.0
bins_per_block = 64


@dataclass(frozen=True, slots=True)
class Pace:
    """Lengths of the shop's rhythms, all in seconds of event time."""

    think_time_s: float = 25.0  # median between two items of a session
    after_sales_s: float = 86_400.0  # mean from purchase to rating, refund, support
    day_s: float = 86_400.0
    flash_every_s: float = 21_600.0
    flash_length_s: float = 900.0
    growth_s: float = 7 * 86_400.0  # until the last item is launched and the last customer joined


REAL = Pace()
# A minute shows what a real shop shows in a day.
LIVE = Pace(
    think_time_s=2.0,
    after_sales_s=12.0,
    day_s=120.0,
    flash_every_s=30.0,
    flash_length_s=8.0,
    growth_s=90.0,
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """When sessions start: a daily wave, and flash sales that each favour one category."""

    seed: int
    pace: Pace
    n_categories: int

    def flash(self, at_s: float) -> int:
        """The category on flash sale at a time, -1 for none. At most one per ``flash_every_s``."""
        number = int(at_s // self.pace.flash_every_s)
        rng = np.random.default_rng((self.seed, 1, number))
        slack = max(self.pace.flash_every_s - self.pace.flash_length_s, 0.0)
        begin = number * self.pace.flash_every_s + rng.random() * slack
        category = int(rng.integers(self.n_categories))
        return category if begin <= at_s < begin + self.pace.flash_length_s else -1

    def starts(
        self, rng: np.random.Generator, begin_s: float, end_s: float, per_second: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Session starts in ``[begin_s, end_s)``: times ``(n,)`` and flash category ``(n,)``."""
        edges = np.linspace(begin_s, end_s, bins_per_block + 1)
        centre = (edges[1:] + edges[:-1]) / 2
        wave = 1.0 + day_swing * np.sin(2 * np.pi * centre / self.pace.day_s)
        flash = np.array([self.flash(float(t)) for t in centre])
        rate = per_second * wave * np.where(flash >= 0, flash_factor, 1.0)
        counts = rng.poisson(rate * np.diff(edges))
        at = np.repeat(np.arange(bins_per_block), counts)
        times = edges[at] + rng.random(len(at)) * (end_s - begin_s) / bins_per_block
        return times, flash[at]
