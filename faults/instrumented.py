"""A worker the suite can strike: ``python -m faults.instrumented GUARD|none CONTROL -A … worker``.

With gaps (:mod:`faults.gaps`), a clock that can step, and without the named guard.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    guard, control = sys.argv.pop(1), Path(sys.argv.pop(1))

    from faults.gaps import Gaps, install_clock

    install_clock(control)  # before anything takes a reference to it

    import faust.cli.faust

    from faults.unguarded import GUARDS

    Gaps(control).install()
    if guard != "none":
        GUARDS[guard]()
        print(f"this worker runs without its guard: {guard}", flush=True)
    faust.cli.faust.cli()
