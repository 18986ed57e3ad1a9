"""A process that was told to stop is gone in time, whatever its threads do."""

import subprocess
import sys

HANGING = """
import threading, time
from stream_app.adapters.ending import end_within
threading.Thread(target=time.sleep, args=(3_600,), name="busy").start()
end_within(0.1, code={code}, why={why!r})
"""


def ended(code: int, why: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HANGING.format(code=code, why=why)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_thread_that_goes_on_does_not_keep_the_process() -> None:
    done = ended(0, "")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stop_that_hangs_is_an_error_and_shows_where_every_thread_stands() -> None:
    done = ended(1, "it hangs")
    assert done.returncode == 1
    assert "it hangs" in done.stderr and "most recent call first" in done.stderr
