"""Events per second of the same job written in other frameworks, beside ours."""

from bench.options import Options
from bench.results import Result
from bench.scenarios.pipeline import compete

NAMES = {"pipeline", "aiokafka", "faststream", "quix", "bytewax", "kafka_streams"}


def run(options: Options) -> Result:
    """The contest of ``pipeline`` without floor and naive."""
    return compete(options, names=NAMES)
