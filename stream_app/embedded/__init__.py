"""Real servers as child processes, for the demo and the tests: nothing to install, gone afterwards.

>>> from stream_app.embedded import valkey_server
>>> with valkey_server() as valkey:
...     valkey.running
True
"""

from stream_app.embedded.process import EmbeddedServerError, ServerProcess, free_port
from stream_app.embedded.tansu import TansuBroker, tansu_broker
from stream_app.embedded.valkey import ValkeyServer, valkey_server

__all__ = [
    "EmbeddedServerError",
    "ServerProcess",
    "TansuBroker",
    "ValkeyServer",
    "free_port",
    "tansu_broker",
    "valkey_server",
]
