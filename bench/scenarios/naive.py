"""Events per second of a textbook Faust agent with redis-py per event, beside ours."""

from bench.options import Options
from bench.results import Result
from bench.scenarios.pipeline import NAIVE_PREVIOUS, compete
from stream_app.core.model import PREVIOUS_MAX

NAMES = {"pipeline", f"naive_{NAIVE_PREVIOUS}", f"naive_{PREVIOUS_MAX}"}


def run(options: Options) -> Result:
    """The contest of ``pipeline`` with the naive agents alone."""
    return compete(options, names=NAMES)
