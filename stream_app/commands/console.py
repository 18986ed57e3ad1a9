"""What commands share: run, print, and turn our errors into one clear line and exit code 1."""

import functools
import sys
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

from rich.console import Console

from stream_app.errors import StreamAppError

Arguments = ParamSpec("Arguments")

# The worker's logging redirects stdout; commands talk to the terminal as it was.
console = Console(file=sys.__stdout__, soft_wrap=True)
errors = Console(file=sys.__stderr__, soft_wrap=True)


def command(
    function: Callable[Arguments, Awaitable[None]],
) -> Callable[..., Awaitable[None]]:
    """Wrap ``function`` as the handler of a Faust command, which passes itself first."""

    async def run(self: Any, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            await function(*args, **kwargs)
        except StreamAppError as exc:
            errors.print(f"{type(exc).__name__}: {exc}", style="red", markup=False)
            raise SystemExit(1) from exc
        except BrokenPipeError:
            raise SystemExit(0) from None  # the reader of our output has seen enough

    functools.update_wrapper(run, function)
    del run.__wrapped__  # type: ignore[attr-defined]
    return run


def plain(text: str) -> None:
    """Print a line for scripts: no colours, no wrapping."""
    console.print(text, markup=False, highlight=False)
