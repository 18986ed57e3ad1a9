"""Both servers on their usual ports, to try things out: ``python -m stream_app.embedded``."""

import signal
import sys
from threading import Event

from stream_app.embedded import EmbeddedServerError, tansu_broker, valkey_server

KAFKA_PORT, REDIS_PORT = 9092, 6379


def main() -> int:
    """Serve until a signal; returns 1 when a server cannot start."""
    ended = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        with tansu_broker(port=KAFKA_PORT) as broker, valkey_server(port=REDIS_PORT) as valkey:
            print(
                f"Kafka's protocol on {broker.address}, Redis' on {valkey.address}, in memory:"
                " Ctrl-C ends both, and nothing is kept",
                flush=True,
            )
            ended.wait()
    except EmbeddedServerError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
