"""Where the time goes: wrappers around the stages' functions, in benchmarks only.

Inclusive wall and CPU time by stage. The wrapped pipeline runs alone in its process, one call after
the other, so what is measured while a call waits belongs to that call.
"""

import functools
import inspect
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Timers:
    """Totals by stage.

    >>> import types
    >>> place = types.SimpleNamespace(double=lambda x: 2 * x)
    >>> timers = Timers()
    >>> timers.patch(place, "double", "twice")
    >>> place.double(4), timers.calls["twice"], timers.wall_s["twice"] > 0
    (8, 1, True)
    """

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = defaultdict(float)
        self.cpu_s: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.cpu_calls_s: dict[str, list[float]] = defaultdict(list)  # of each call

    def reset(self) -> None:
        """Forget what was measured: the warm-up is over."""
        for totals in (self.wall_s, self.cpu_s, self.calls, self.cpu_calls_s):
            totals.clear()

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Measure a block."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            cpu_s = time.process_time() - cpu
            self.wall_s[stage] += time.perf_counter() - wall
            self.cpu_s[stage] += cpu_s
            self.cpu_calls_s[stage].append(cpu_s)
            self.calls[stage] += 1

    def patch(self, owner: Any, name: str, stage: str) -> None:
        """Measure every call of ``owner.name``, plain or async."""
        original = getattr(owner, name)
        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def waited(*arguments: Any, **options: Any) -> Any:
                with self.of(stage):
                    return await original(*arguments, **options)

            setattr(owner, name, waited)
        else:

            @functools.wraps(original)
            def called(*arguments: Any, **options: Any) -> Any:
                with self.of(stage):
                    return original(*arguments, **options)

            setattr(owner, name, called)
