"""A worker to strike: ``python -m faults.instrumented GUARD|none this|before CONTROL -A … worker``.

With gaps (:mod:`faults.gaps`), a clock that can step, and without the named guard; of this release,
or storing what the one before stored (:mod:`faults.old_release`).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    guard, release, control = sys.argv.pop(1), sys.argv.pop(1), Path(sys.argv.pop(1))

    from faults.gaps import Gaps, install_clock

    install_clock(control)  # before anything takes a reference to it

    import faust.cli.faust

    from faults import old_release
    from faults.unguarded import GUARDS

    Gaps(control).install()
    if guard != "none":
        GUARDS[guard]()
        print(f"this worker runs without its guard: {guard}", flush=True)
    if release == "before":
        old_release.install()
        print("this worker stores what the release before stored", flush=True)
    faust.cli.faust.cli()
