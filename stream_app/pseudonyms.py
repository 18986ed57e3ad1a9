"""Pseudonyms for customers' ids: what state, keys and topics hold instead of the id itself.

HMAC-SHA-256 (RFC 2104) of the id under a key from a file, 128 bits of it as 22 characters. Without
the key nobody can tell whose state it is, nor try out ids. A key is changed by naming the old one
as previous: customers take their state along with their next event.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

from stream_app.errors import ConfigurationError

KEY_BYTES_MIN = 16
BYTES = 16
CACHE_MAX = 200_000

Pseudonym = Callable[[str], str]


def identity(text: str) -> str:
    """The id itself: no key is configured."""
    return text


class Pseudonyms:
    """Pseudonyms under one key; remembers those of recent ids."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """The pseudonym of an id.

        >>> Pseudonyms(b"0123456789abcdef")("anna")
        't6BBcuEerqI4oRsluM8G5w'
        """
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= CACHE_MAX:
                self._known.clear()
            digest = hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256")
            known = urlsafe_b64encode(digest[:BYTES]).decode().rstrip("=")
            self._known[text] = known
        return known


def read_pseudonyms(path: Path | None, variable: str) -> Pseudonyms | None:
    """Pseudonyms under the key in ``path``; ``None`` without a path.

    Raises :class:`~stream_app.errors.ConfigurationError` for a key that is missing or too short.
    """
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as exc:
        raise ConfigurationError(
            f"{variable}={path}: cannot be read ({exc.strerror}); give the worker's user read"
            " access or correct the path"
        ) from exc
    if len(key) < KEY_BYTES_MIN:
        raise ConfigurationError(
            f"{variable}={path}: the key has {len(key)} bytes, {KEY_BYTES_MIN} are needed; make one"
            " with: openssl rand -hex 32"
        )
    return Pseudonyms(key)
