"""Become a command that the kernel kills when its parent ends: ``die_with_parent.py PPID CMD…``.

Run by path with ``python -I -S``; the process id stays the same. A script of its own because the
``preexec_fn`` of ``subprocess`` is unsafe beside threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Ask for the signal, check that the parent is not gone already, become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(f"{command[0]}: the process that asked for this server has ended")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
