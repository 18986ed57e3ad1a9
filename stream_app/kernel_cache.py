"""Where compiled kernels are kept. Set before the first kernel is defined."""

import os
import tempfile
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def choose_kernel_cache() -> None:
    """Point numba at a directory of this very source code, unless the operator chose one.

    Numba notices a change in a kernel's own file only, not in kernels of other files that it calls:
    after an upgrade it would run old code. A directory named for all of them cannot be stale.
    """
    if VARIABLE in os.environ:
        return
    digest = blake2b(digest_size=8)
    for path in sorted((Path(__file__).parent / "core").glob("*.py")):
        digest.update(path.read_bytes())
    for package in ("numba", "numpy"):
        try:
            digest.update(version(package).encode())
        except PackageNotFoundError:
            return  # plain Python then: nothing to keep
    name = f"kernels-{digest.hexdigest()}"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stream_app"
    for parent in (home, Path(tempfile.gettempdir()) / f"stream_app-{os.getuid()}"):
        try:
            (parent / name).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue  # a container without a home: the next place
        os.environ[VARIABLE] = str(parent / name)
        return
