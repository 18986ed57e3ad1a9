"""Passwords travel encrypted, or not beyond this machine."""

import ipaddress
from collections.abc import Iterable

from stream_app.errors import ConfigurationError

OVERRIDE = "STREAM_APP_PLAINTEXT_CREDENTIALS"


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine, as far as its name tells.

    >>> [is_loopback(host) for host in ("localhost", "127.8.0.1", "::1", "10.0.0.1", "kafka-1")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def refuse_plaintext(hosts: Iterable[str], *, what: str, cure: str, allowed: bool) -> None:
    """Raise ``ConfigurationError`` when a password would be readable on its way to ``hosts``.

    >>> refuse_plaintext(["127.0.0.1"], what="Redis", cure="use rediss://", allowed=False)
    >>> refuse_plaintext(["db"], what="Redis", cure="use rediss://", allowed=False)
    Traceback (most recent call last):
    ...
    stream_app.errors.ConfigurationError: the password for Redis would go to db unencrypted: \
use rediss://, or set STREAM_APP_PLAINTEXT_CREDENTIALS=true where the network is trusted
    """
    away = sorted({host for host in hosts if not is_loopback(host)})
    if away and not allowed:
        raise ConfigurationError(
            f"the password for {what} would go to {', '.join(away)} unencrypted: {cure}, or set"
            f" {OVERRIDE}=true where the network is trusted"
        )
