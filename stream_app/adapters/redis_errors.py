"""Say in our words why a Redis-protocol server refused, and what cures it."""

from stream_app.errors import ConfigurationError, StoreUnavailable, StreamAppError

_CONFIGURATION_CURES = {  # first word of the server's error → what to change
    "NOAUTH": "put the password into the URL: redis://user:password@host:port",
    "WRONGPASS": "correct the user and password in the URL",
    "AUTH": "the server has no such user or asks for no password: correct the URL",
    "NOPERM": "grant the user its keys and +@read +@write +@scripting +@transaction +info",
    "DENIED": "give the server a password (protected mode), or bind it to a private address",
    "WRONGTYPE": "another application uses these keys: choose another prefix or database",
    "MOVED": "the server belongs to a cluster: use redis+cluster://",
    "CROSSSLOT": "the server belongs to a cluster: use redis+cluster://",
}
_RETRY_CURES = {  # first word of the server's error → what brings it back; retried until then
    "OOM": "raise maxmemory or shorten the state's lifetime (maxmemory-policy stays noeviction)",
    "READONLY": "it is a replica: wait for the fail-over or correct the address",
    "LOADING": "it is reading its data set: wait",
    "MASTERDOWN": "its master is gone: wait for the fail-over",
    "CLUSTERDOWN": "slots of the cluster are not served: wait for the fail-over or repair it",
    "NOREPLICAS": "too few replicas (min-replicas-to-write): bring them back",
    "MISCONF": "it cannot save to disk: free disk space, see its log",
    "BUSY": "a script runs for too long: see SCRIPT KILL and FUNCTION KILL",
}
_OLD_SERVER = "functions need Redis 7 or newer, or Valkey 7.2 or newer: update the server"
_NO_ANSWER = "start it, or correct the address; retried until it answers"
_OTHER = "see the server's log; retried until it succeeds"


class FunctionMissing(StoreUnavailable):
    """The server lost the function library: restarted without persistence, or failed over."""


def refusal(server: str, code: str, detail: str) -> StreamAppError:
    """Return the error for ``server`` having answered ``code`` (an error's first word, or "").

    ``detail`` is the rest of its message, or what happened to the connection.

    >>> str(refusal("redis://a:1", "LOADING", "dataset in memory"))
    'redis://a:1: LOADING dataset in memory; it is reading its data set: wait'
    >>> type(refusal("redis://a:1", "ERR", "Function not found")).__name__
    'FunctionMissing'
    """
    message = f"{server}: {code} {detail}".replace(":  ", ": ")
    if detail.startswith("Function not found"):
        return FunctionMissing(f"{message}; it is loaded again with the next call")
    if "unknown command" in detail and "FCALL" in detail:
        return ConfigurationError(f"{message}; {_OLD_SERVER}")
    if "ACL failure in script" in detail:
        code = "NOPERM"
    if code in _CONFIGURATION_CURES:
        return ConfigurationError(f"{message}; {_CONFIGURATION_CURES[code]}")
    return StoreUnavailable(f"{message}; {_RETRY_CURES.get(code, _OTHER if code else _NO_ANSWER)}")
