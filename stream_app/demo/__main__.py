"""``python -m stream_app.demo``, which is ``make demo``."""

import sys

from stream_app.demo.runner import main

if __name__ == "__main__":
    sys.exit(main())
