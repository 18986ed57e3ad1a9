"""What a run is: from the command line, with defaults from the environment."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

GUARDS = ("fence", "cursor", "watermark", "outbox", "rewind", "ack")


@dataclass(frozen=True, slots=True)
class Options:
    """``rounds`` passes over all ``kinds`` in seeded orders, at most ``faults_max``.

    No fault begins after ``minutes``.
    ``rate`` is events per second of load, ``dirty`` the share of records that are no events,
    ``overlap`` the share of faults whose recovery the next one does not wait for. ``guard`` is a
    guard of the product that the workers run without, to show that the suite finds it missing.
    """

    seed: int
    rounds: int
    rate: float
    kinds: tuple[str, ...]
    faults_max: int
    dirty: float = 0.08
    overlap: float = 0.25
    partitions: int = 4
    session_timeout_s: float = 6.0
    minutes: float = 600.0
    guard: str = ""

    def shown(self) -> str:
        """One line that repeats the run."""
        given = {name: value for name, value in asdict(self).items() if name != "kinds"}
        words = [f"{name}={value}" for name, value in given.items() if value != ""]
        return " ".join([*words, f"kinds={','.join(self.kinds)}"])


def parsed(arguments: Sequence[str], kinds: Sequence[str]) -> Options:
    """Options of a command line; exits with the cure when one is wrong."""
    env = os.environ.get
    parser = argparse.ArgumentParser("python -m faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(env("SEED", "1")))
    parser.add_argument("--rounds", type=int, default=int(env("ROUNDS", "1")))
    parser.add_argument("--rate", type=float, default=float(env("RATE", "400")))
    parser.add_argument("--kinds", default=env("KINDS", ""), help=f"of {', '.join(kinds)}")
    parser.add_argument("--faults", type=int, default=int(env("FAULTS", "1000")), help="at most")
    parser.add_argument("--minutes", type=float, default=float(env("MINUTES", "600")))
    parser.add_argument("--dirty", type=float, default=float(env("DIRTY", "0.08")))
    parser.add_argument("--overlap", type=float, default=float(env("OVERLAP", "0.25")))
    parser.add_argument("--guard", default=env("GUARD", ""), choices=("", *GUARDS))
    given = parser.parse_args(arguments)
    chosen = tuple(given.kinds.replace(",", " ").split()) or tuple(kinds)
    unknown = sorted(set(chosen) - set(kinds))
    if unknown:
        parser.error(f"no such kind: {', '.join(unknown)}; there are {', '.join(kinds)}")
    if given.rounds < 1 or given.rate <= 0 or given.faults < 1:
        parser.error("rounds, rate and faults must be above 0")
    if not (0 <= given.dirty < 0.5 and 0 <= given.overlap <= 1):
        parser.error("dirty must lie in [0, 0.5), overlap in [0, 1]")
    return Options(
        given.seed,
        given.rounds,
        given.rate,
        chosen,
        given.faults,
        dirty=given.dirty,
        overlap=given.overlap,
        minutes=given.minutes,
        guard=given.guard,
    )
