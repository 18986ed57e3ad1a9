"""Which fault comes when, to whom and for how long: a pure function of the options."""

import random
from dataclasses import dataclass

from faults.options import Options

# Every fault draws all of these, whether its kind uses them or not, so that schedules with the same
# seed agree fault by fault.
GAP_S = (0.5, 2.5)
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``strength`` in [0, 1) is turned into a duration or a count by its kind.

    ``gap_s`` passes before it; with ``overlaps`` the next one does not wait for its recovery.
    """

    number: int
    kind: str
    worker: int
    strength: float
    gap_s: float
    overlaps: bool

    def between(self, least: float, most: float) -> float:
        """``strength`` on another scale."""
        return least + (most - least) * self.strength


def schedule(options: Options) -> list[Fault]:
    """The faults of a run.

    >>> from faults.options import Options
    >>> options = Options(3, 2, 100.0, ("a", "b"), 3)
    >>> len(schedule(options)), schedule(options) == schedule(options)
    (3, True)
    """
    draw = random.Random(options.seed)
    faults: list[Fault] = []
    for _ in range(options.rounds):
        kinds = list(options.kinds)
        draw.shuffle(kinds)
        for kind in kinds:
            faults.append(
                Fault(
                    number=len(faults) + 1,
                    kind=kind,
                    worker=draw.randrange(WORKERS),
                    strength=draw.random(),
                    gap_s=draw.uniform(*GAP_S),
                    overlaps=draw.random() < options.overlap,
                )
            )
    return faults[: options.faults_max]
