"""Events per second of the pipeline's reads, writes and messages without its computing."""

from bench.options import Options
from bench.results import Result
from bench.scenarios.pipeline import compete

NAMES = {"pipeline", "floor"}


def run(options: Options) -> Result:
    """The contest of ``pipeline`` with the floor alone."""
    return compete(options, names=NAMES)
