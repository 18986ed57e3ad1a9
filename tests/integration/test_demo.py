"""The demo as a user starts it: ends well, ends early on Ctrl-C, and leaves no process behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/environ").exists(), reason="looks for left-over processes in /proc"
    ),
]
root = Path(__file__).parents[2]
end_timeout_s = 180.0  # generous: only a hang fails on it


class Demo:
    """A demo process without a terminal, and all its descendants, by a mark they inherit."""

    def __init__(self, **options: str) -> None:
        self.mark = f"STREAM_APP_TEST_MARK={uuid.uuid4().hex}"
        name, value = self.mark.split("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stream_app.demo"],
            cwd=root,
            env={**os.environ, "PYTHONUNBUFFERED": "1", name: value, **options},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        """Exit code and output, once it has ended."""
        output, _ = self.process.communicate(timeout=end_timeout_s)
        return self.process.returncode, output

    def processes(self) -> list[int]:
        """Process ids of the demo and its descendants that are alive."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):  # ended meanwhile, or not ours to read
                    if self.mark.encode() in (folder / "environ").read_bytes():
                        found.append(int(folder.name))
        return found

    def wait_for(self, text: str) -> str:
        """Read lines up to one that holds ``text``."""
        assert self.process.stdout is not None
        read = ""
        for line in self.process.stdout:
            read += line
            if text in line:
                return read
        raise AssertionError(f"the demo ended without {text!r}:\n{read}")

    def kill(self) -> None:
        """End whatever a failed test has left."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def demo(**options: str) -> Iterator[Demo]:
    running = Demo(**options)
    try:
        yield running
    finally:
        running.kill()


def figure(output: str, name: str) -> int:
    match = re.search(rf"^{name}\s+(\d+)", output, re.MULTILINE)
    assert match, f"no {name!r} in:\n{output}"
    return int(match[1])


def test_the_demo_ends_by_itself_with_a_summary_and_no_process_left() -> None:
    with demo(DEMO_SECONDS="15", DEMO_RATE="200") as running:
        code, output = running.end()
        assert code == 0, output
        assert running.processes() == []
    sent = figure(output, "events sent")
    assert sent > 0
    assert figure(output, "events applied") + figure(output, "dead-lettered") == sent
    assert figure(output, "lists published") > 0
    assert re.search(r"freshness\s+p50 \d+ ms, p99 \d+ ms", output)
    steps = output.split("customers by step\n")[1].split()
    assert len(steps) >= 4 and "browse" in steps
    assert "s to go | in " in output  # a plain line now and then


def test_the_demo_runs_on_the_users_own_events(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = [f"c{n % 7},p{n % 11},view,{1_700_000_000 + n}" for n in range(600)]
    path.write_text("\n".join(["user_id,item_id,event,ts", *rows, ",p1,view,1700009999"]))
    with demo(DEMO_SECONDS="60", DEMO_RATE="300", DEMO_FILE=str(path)) as running:
        code, output = running.end()
    assert code == 0, output
    assert figure(output, "events sent") == 601
    assert figure(output, "events applied") == 600
    assert "missing_customer 1" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_mid_run_stops_every_process(number: signal.Signals) -> None:
    with demo(DEMO_SECONDS="600") as running:
        running.wait_for("s to go | in ")
        assert len(running.processes()) >= 4  # demo, broker, Valkey, worker
        running.process.send_signal(number)
        code, output = running.end()
        assert code == 130, output
        assert "interrupted" in output
        assert running.processes() == []


def test_a_dead_worker_fails_the_demo_with_its_log() -> None:
    with demo(DEMO_SECONDS="600") as running:
        running.wait_for("s to go | in ")
        (worker,) = (
            pid
            for pid in running.processes()
            if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        )
        os.kill(worker, signal.SIGKILL)
        code, output = running.end()
        assert code == 1
        assert "the worker ended with exit code -9; its log is" in output
        assert running.processes() == []


def test_wrong_options_fail_before_anything_is_started() -> None:
    with demo(DEMO_SECONDS="soon") as running:
        code, output = running.end()
    assert code == 1 and "DEMO_SECONDS='soon'" in output
    assert "broker" not in output
