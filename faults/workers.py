"""A worker as a child process under supervision: it comes back when it dies, as in production."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from faults.gaps import CLOCK_FILE
from stream_app.embedded import die_with_parent

RESTART_AFTER_S = 0.5
START_S = 60.0  # of a busy machine: until then SIGTERM finds no handler
STOP_TIMEOUT_S = 40.0
APP = "stream_app.app"
ROOT = Path(__file__).parents[1]


class SupervisedWorker:
    """``faust … worker`` in an environment of its own, logging to ``log_path``."""

    def __init__(
        self, name: str, environment: Mapping[str, str], log_path: Path, *, guard: str = ""
    ) -> None:
        self.name = name
        self.log_path = log_path
        self.control = log_path.with_suffix("")  # what waits for it at its gaps
        self.control.mkdir()
        self.home = log_path.with_suffix(".home")  # its working directory, which stays empty
        self.pids: list[int] = []
        self.changed: dict[str, str] = {}  # settings of the next start
        self.release = "this"  # of the next start, or the one "before": faults.old_release
        self.may_restart = asyncio.Event()
        self.may_restart.set()
        self.exits: list[int] = []  # not asked for by us
        self._environment = dict(environment)
        self._guard = guard
        self._child: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._expected = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start it, and again whenever it ends, until :meth:`stop`."""
        self._spawn()
        self._task = asyncio.create_task(self._supervise())

    def _spawn(self) -> None:
        module = ["faults.instrumented", self._guard or "none", self.release, str(self.control)]
        command = [sys.executable, "-m", *module, "-A", APP, "worker", "-l", "info"]
        helper = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())]
        self._expected = False
        self._started_s = time.monotonic()
        self.home.mkdir(exist_ok=True)
        with self.log_path.open("ab") as log:
            log.write(f"--- {self.name} starts at {time.time():.3f}\n".encode())
            log.flush()
            self._child = subprocess.Popen(
                [*helper, *command, "--without-web"],
                env=self._environment | self.changed | {"PYTHONPATH": str(ROOT)},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only us, and we stop it
            )
        self.pids.append(self._child.pid)

    async def first_end(self, timeout_s: float) -> int | None:
        """Start it unsupervised and wait for its exit code; ``None`` when it goes on."""
        self._spawn()
        assert self._child is not None
        try:
            return await asyncio.to_thread(self._child.wait, timeout_s)
        except subprocess.TimeoutExpired:
            return None

    async def _supervise(self) -> None:
        while True:
            assert self._child is not None
            code = self._child.poll()
            if code is None:
                await asyncio.sleep(0.05)
                continue
            if not self._expected:
                self.exits.append(code)
            await asyncio.sleep(RESTART_AFTER_S)
            await self.may_restart.wait()
            self._spawn()

    def signal(self, number: signal.Signals, *, ends: bool = False) -> None:
        """Send a signal; with ``ends`` the end that follows is the fault's doing."""
        assert self._child is not None
        self._expected = self._expected or ends
        if self._child.poll() is None:
            self._child.send_signal(number)

    def log_tasks(self) -> None:
        """Have it log the stacks of all its tasks and threads; a young one would die of that."""
        if time.monotonic() - self._started_s > START_S:
            self.signal(signal.SIGUSR1)

    def wait_at(self, gap: str, what: str) -> Path:
        """Let ``what`` happen when the worker comes to ``gap``; returns the file that then is."""
        met = self.control / f"{gap}.met"
        met.unlink(missing_ok=True)
        waiting = self.control / f"{gap}.new"
        waiting.write_text(what)
        waiting.rename(self.control / gap)
        return met

    def forget(self, gap: str) -> None:
        """What waits at ``gap``, or is held there, waits no longer."""
        for name in (gap, f"{gap}.met"):
            (self.control / name).unlink(missing_ok=True)

    def set_clock(self, off_s: float) -> None:
        """The worker's wall clock is off by so much from now on."""
        (self.control / CLOCK_FILE).write_text(f"{off_s}")

    def expect_end(self) -> None:
        """The next end of the process is the fault's doing."""
        self._expected = True

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._child.pid if self._child is not None and self.running else None

    async def stop(self) -> int:
        """End it in order, by force after a while; returns the exit code.

        One that has not joined its group yet may simply die of SIGTERM: that counts as 0.
        """
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        assert self._child is not None
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM, ends=True)
        young = time.monotonic() - self._started_s < START_S
        try:
            code = await asyncio.to_thread(self._child.wait, STOP_TIMEOUT_S)
            return 0 if young and code == -signal.SIGTERM else code
        except subprocess.TimeoutExpired:
            self.kill()
            return self._child.wait()

    def kill(self) -> None:
        """End it and all it started at once; for the way out."""
        if self._task is not None:
            self._task.cancel()
        if self._child is not None and self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)  # it leads its own session
            self._child.wait()

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._child is not None and self._child.poll() is None
