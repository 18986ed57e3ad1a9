"""After the warm-up, nothing a worker does compiles or loads a kernel on its event loop."""

import subprocess
import sys

import pytest

from stream_app.settings import load_settings


@pytest.mark.parametrize(
    "sources",
    [load_settings({}).extra_sources, "content,embedding,jaccard,segment,trending,user_knn"],
)
def test_the_warm_up_loads_every_kernel_that_a_log_needs(sources: str) -> None:
    # A process of its own: other tests have loaded more than a worker has at its start.
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.warmed", sources], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
