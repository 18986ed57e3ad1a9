"""The kernels as plain Python and as machine code, by all that a worker leaves behind.

What is compared, bit for bit, after the log of :mod:`tests.contract.lived` on memory adapters:

- the state store: every blob of customers (LEARN), items (RELATE) and demand (STOCK), and of each
  partition its own state, its outbox, its cursor and its epoch;
- every public key, such as ``rec:``, ``similar:``, ``profile:``, ``trending:`` and ``demand:``;
- key, value and headers of every record of every topic, dead letters among them.

No tolerance is needed: without ``fastmath`` numba neither changes the order of operations nor fuses
them, and kernels widen a float32 before it meets another or a number of Python's. The log does not
reach the kernels of commands, offline evaluation, customer service and experiments, nor the one
that makes the index of items larger.
"""

import os
import subprocess
import sys

import orjson
import pytest

from tests.contract.lived import lived

# So that nothing is compared with nothing.
THERE = (
    *("u0 blob", "u1 blob", "i0 blob", "s0 blob", "public rec:", "public similar:"),
    *("public profile:", "public trending:", "public demand:", "record clickstream-1"),
    *("record cooccurrence-0", "record sales-0", "record recommendations-0"),
    *("record clickstream.dlq-0", "record inventory-alerts-0"),
)


@pytest.mark.slow
def test_a_worker_without_the_compiler_leaves_the_same_bits() -> None:
    plain = subprocess.run(
        [sys.executable, "-m", "tests.contract.lived"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        timeout=300,
    )
    assert plain.returncode == 0, plain.stderr.decode()
    found, expected = orjson.loads(plain.stdout), lived()
    assert [kind for kind in THERE if not any(name.startswith(kind) for name in expected)] == []
    assert found.keys() == expected.keys()
    assert [name for name, digest in expected.items() if found[name] != digest] == []
