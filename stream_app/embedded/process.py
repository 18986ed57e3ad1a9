"""One server as a child process: started when it answers, stopped for certain.

start ──► ready (asked in its own protocol) ──► stop / kill / pause / resume / restart
  └─ exits or stays silent: EmbeddedServerError with the end of its log
"""

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from stream_app.embedded import die_with_parent
from stream_app.errors import StreamAppError

host = "127.0.0.1"
poll_interval_s = 0.02
log_tail_bytes = 4_000
port_min, port_max, port_tries = 15_000, 32_000, 200

_alive: "weakref.WeakSet[ServerProcess]" = weakref.WeakSet()
# Linux ties a child's life to the *thread* that started it, so one thread that lives as long as the
# interpreter starts them all.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="embedded-servers")


class EmbeddedServerError(StreamAppError):
    """An embedded server cannot be started; the message has its last log lines and the cure."""


def free_port(*, beside: int = 0) -> int:
    """Return a loopback port that nobody listens on, below the range for outgoing connections.

    A port of that range will not do: while the server is down, a client that keeps trying can be
    given the very port it calls as its own: it connects to itself and the server cannot come back.
    The same holds for the port ``beside`` numbers higher.
    """
    ports = range(port_min, min(port_max, _outgoing_port_min()) - beside)
    for port in random.sample(ports, port_tries):
        if _is_free(port) and (not beside or _is_free(port + beside)):
            return port
    raise EmbeddedServerError(f"no free port among {port_tries} tried of {port_min}-{port_max}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _outgoing_port_min() -> int:
    setting = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(setting.read_text().split()[0]) if setting.exists() else port_max
    # A machine that gives out nearly every port leaves no safe range: take the usual one there.
    return lowest if lowest > port_min + port_tries else port_max


class ServerProcess(ABC):
    """A server that listens on one loopback port, in a directory of its own.

    ``ready`` tells from the port whether it serves. Without ``data_dir`` the directory is temporary
    and goes when the server is closed. Use as a context manager.
    """

    def __init__(
        self,
        name: str,
        *,
        port: int | None,
        ready: Callable[[int], bool],
        data_dir: Path | None = None,
        start_timeout_s: float = 15.0,
        stop_timeout_s: float = 5.0,
    ) -> None:
        self.name = name
        self.port = port if port is not None else free_port()
        self.start_timeout_s = start_timeout_s
        self.stop_timeout_s = stop_timeout_s
        self._ready = ready
        self._own_dir = data_dir is None
        self.dir = data_dir or Path(tempfile.mkdtemp(prefix=f"stream-app-{name}-"))
        self.dir.mkdir(parents=True, exist_ok=True)
        self.log_path = self.dir / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command line; asked at every start."""

    def environment(self) -> Mapping[str, str]:
        """Return variables to set for the server besides this process's own."""
        return {}

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id while the server runs."""
        return self._child.pid if self._child is not None and self.running else None

    @property
    def running(self) -> bool:
        """True from :meth:`start` until the process has ended; a paused server runs."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the server and return when it serves. Raises :class:`EmbeddedServerError`."""
        assert not self.running, f"{self.name} is running already"
        command = list(self.command())
        helper = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())]
        self._child = _spawner.submit(self._spawn, helper + command).result()
        _alive.add(self)
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.dir,
                env={**os.environ, **self.environment()},
                start_new_session=True,  # Ctrl-C reaches only us, and we stop the server last
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while not self._ready(self.port):
            assert self._child is not None
            code = self._child.poll()
            if code is not None:
                raise EmbeddedServerError(self._failure(f"ended at once with exit code {code}"))
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    self._failure(f"did not answer within {self.start_timeout_s:g} s")
                )
            time.sleep(poll_interval_s)
        if not self.running:  # whoever answered, it was not ours
            raise EmbeddedServerError(self._failure("ended, and another server answers"))

    def _failure(self, what: str) -> str:
        return f"{self.name} on {self.address} {what}; end of its log:\n{self.log_tail()}"

    def log_tail(self) -> str:
        """Return the end of what the server has printed."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - log_tail_bytes))
            return log.read().decode(errors="replace")

    def stop(self) -> None:
        """End the server in order (SIGTERM), by force (SIGKILL) after ``stop_timeout_s``."""
        self.resume()
        self._signal(signal.SIGTERM)
        if self._child is not None:
            try:
                self._child.wait(self.stop_timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        _alive.discard(self)

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL); what it had written to disk stays."""
        self._signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()
        _alive.discard(self)

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start again on the same port and directory, ending the server in order if it runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and remove the directory if it is ours."""
        self.stop()
        if self._own_dir:
            shutil.rmtree(self.dir, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@atexit.register
def _close_all() -> None:
    for server in list(_alive):
        server.close()
