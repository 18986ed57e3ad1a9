"""How much to do, and what may be shown: the environment variables of ``python -m bench``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

SEED = 11  # of every load; stored with each result


@dataclass(frozen=True, slots=True)
class Options:
    """``runs`` of each contender; ``scale`` multiplies loads and durations (0.1 to try things).

    With ``trials`` the page may show what was measured below full scale or from an unclean tree.
    """

    runs: int = 3
    scale: float = 1.0
    soak_s: float = 3_600.0
    trials: bool = False

    def events(self, n: int) -> int:
        """A load's size at this scale."""
        return max(int(n * self.scale), 500)


def from_environment(environment: Mapping[str, str] | None = None) -> Options:
    """The options that are set, checked.

    >>> from_environment({"RUNS": "5"}).runs
    5
    """
    environment = os.environ if environment is None else environment
    options = Options(
        int(environment.get("RUNS") or 3),
        float(environment.get("BENCH_SCALE") or 1.0),
        float(environment.get("SOAK_SECONDS") or 3_600.0),
        environment.get("REPORT_TRIALS") == "1",
    )
    if options.runs < 1 or not 0.0 < options.scale <= 100.0 or options.soak_s <= 0:
        raise SystemExit(f"RUNS, BENCH_SCALE (at most 100), SOAK_SECONDS: above 0, not {options}")
    return options
