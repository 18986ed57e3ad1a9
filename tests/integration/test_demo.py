"""The demo as a user starts it: ends well, ends early on Ctrl-C, and leaves no process behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/stat").exists(), reason="looks for left-over processes in /proc"
    ),
]
root = Path(__file__).parents[2]
end_timeout_s = 180.0  # generous: only a hang fails on it


# As a script's ``make demo &``: what a shell starts in the background ignores Ctrl-C at first.
IN_BACKGROUND = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    " os.execv(sys.executable, [sys.executable, '-m', 'stream_app.demo'])"
)


class Demo:
    """A demo process without a terminal, and the descendants it was seen to have."""

    def __init__(self, **options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_BACKGROUND],
            cwd=root,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **options},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.seen: dict[int, str] = {}

    def end(self) -> tuple[int, str]:
        """Exit code and the rest of the output, once it has ended."""
        output, _ = self.process.communicate(timeout=end_timeout_s)
        return self.process.returncode, output

    def family(self) -> dict[int, str]:
        """Process id → start time of the demo's descendants now; they are remembered."""
        table = dict(_processes())
        found = {self.process.pid}
        while more := {pid for pid, (parent, _) in table.items() if parent in found} - found:
            found |= more
        family = {pid: table[pid][1] for pid in found - {self.process.pid}}
        self.seen |= family
        return family

    def left(self) -> list[int]:
        """Process ids of remembered descendants that are still alive."""
        table = dict(_processes())
        return [pid for pid, start in self.seen.items() if table.get(pid, (0, ""))[1] == start]

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
        self.family()
        self.process.kill()
        self.process.wait()
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self.process.stdout is not None
        self.process.stdout.close()


def _processes() -> Iterator[tuple[int, tuple[int, str]]]:
    """(process id, (parent, start time)) of every process that is no zombie."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # ended meanwhile
                # After the name in parentheses: state, parent, …, start time as field 22 of all.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    yield int(folder.name), (int(fields[1]), fields[19])


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
        output = running.wait_for("s to go | in ")
        assert len(running.family()) >= 3  # broker, Valkey, worker
        (console,) = re.findall(r"console: (http://127\.0\.0\.1:\d+/console/)", output)
        with urllib.request.urlopen(console, timeout=30) as page:
            assert b"<h1>stream_app</h1>" in page.read()
        code, rest = running.end()
        output += rest
        assert code == 0, output
        assert running.left() == []
    sent = figure(output, "events sent")
    assert sent > 0
    # Sessions are merged into their customers at login, by records of the worker's own.
    assert figure(output, "events applied") + figure(output, "dead-lettered") >= sent
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
        assert len(running.family()) >= 3  # broker, Valkey, worker
        running.process.send_signal(number)
        code, output = running.end()
        assert code == 130, output
        assert "interrupted" in output
        assert running.left() == []


def test_a_dead_worker_fails_the_demo_with_its_log(tmp_path: Path) -> None:
    with demo(DEMO_SECONDS="600", TMPDIR=str(tmp_path)) as running:
        running.wait_for("s to go | in ")
        (worker,) = (
            pid
            for pid in running.family()
            if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        )
        os.kill(worker, signal.SIGKILL)
        code, output = running.end()
        assert code == 1
        assert "the worker ended with exit code -9; its log is" in output
        assert len(list(tmp_path.rglob("worker.log"))) == 1  # kept to be read
        assert running.left() == []


def test_wrong_options_fail_before_anything_is_started() -> None:
    with demo(DEMO_SECONDS="soon") as running:
        code, output = running.end()
    assert code == 1 and "DEMO_SECONDS='soon'" in output
    assert "broker" not in output
