"""Recorded support messages, where they are."""

from pathlib import Path

import numpy as np
import pytest

from stream_app.offline.tables import Table, read_table

_FILE = Path(__file__).parents[2] / "shared/data/support_intents.csv.gz"
shared = pytest.mark.skipif(not _FILE.exists(), reason="shared/data is not there: no messages")


def shuffled() -> Table:
    """All of them, always in the same order."""
    whole = read_table(_FILE)
    return whole.take(np.random.default_rng(0).permutation(len(whole)).tolist())
