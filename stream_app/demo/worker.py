"""The project's own commands as child processes: ``topics`` once, then ``worker`` until the end."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from stream_app.embedded import die_with_parent
from stream_app.errors import StreamAppError

topics_timeout_s = 120.0  # the first start may compile the scoring kernels
stop_timeout_s = 30.0
log_tail_bytes = 4_000
APP = "stream_app.app"


class DemoFailed(StreamAppError):
    """The demo cannot go on; the message says what happened and where to look."""


def command(*arguments: str) -> list[str]:
    """The command line of ``faust -A stream_app.app …`` in this interpreter's environment."""
    return [sys.executable, "-m", "faust", "-A", APP, *arguments]


def create_topics(environment: Mapping[str, str]) -> None:
    """Run ``topics``. Raises :class:`DemoFailed` with its output."""
    try:
        done = subprocess.run(
            _dying_with_us(command("topics")),
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=topics_timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise DemoFailed(f"creating topics took more than {topics_timeout_s:g} s") from exc
    if done.returncode:
        output = (done.stdout + done.stderr)[-log_tail_bytes:]
        raise DemoFailed(f"creating topics failed with exit code {done.returncode}:\n{output}")


class Worker:
    """A worker as a child process with just ``environment``, logging to ``log_path``.

    Use as a context manager.
    """

    def __init__(self, environment: Mapping[str, str], log_path: Path) -> None:
        self.log_path = log_path
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                _dying_with_us(command("worker", "-l", "info")),
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only us, and we stop the worker
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raise :class:`DemoFailed` if the worker has ended."""
        assert self._child is not None
        code = self._child.poll()
        if code is not None:
            raise DemoFailed(self.failure(f"the worker ended with exit code {code}"))

    def failure(self, what: str) -> str:
        """``what`` with the end of the worker's log."""
        with self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - log_tail_bytes))
            tail = log.read().decode(errors="replace")
        return f"{what}; its log is {self.log_path} and ends:\n{tail}"

    def stop(self) -> None:
        """End the worker in order, by force after ``stop_timeout_s``; its whole process group."""
        child = self._child
        if child is None or child.poll() is not None:
            return
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(stop_timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # it leads its own session
            child.wait()


def _dying_with_us(arguments: Sequence[str]) -> list[str]:
    helper = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())]
    return [*helper, *arguments]
