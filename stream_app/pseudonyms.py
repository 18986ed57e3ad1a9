"""What customers are called where their own ids must not be kept: an HMAC of the id.

Made at the edges: where events are decoded, where a storefront reads. Off without a key file.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from stream_app.errors import ConfigurationError
from stream_app.hashing import given_name, public_name

KEY_CHARS_MIN = 32
KEYS_MAX = 2  # the one in use, and the one before it
_BYTES = 16  # 128 bits of HMAC-SHA256: 22 characters


class Pseudonyms:
    """Pseudonyms by the first of ``keys``; what the second one made is still found."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        assert 1 <= len(keys) <= KEYS_MAX
        self._keys = tuple(keys)

    @property
    def rotating(self) -> bool:
        """Whether there is a former key."""
        return len(self._keys) > 1

    def of(self, text: str, *, anonymous: bool, former: bool = False) -> str:
        """The pseudonym of a user id, or of a session id: base64url of 128 bits of HMAC-SHA256.

        >>> Pseudonyms([b"0123456789abcdef0123456789abcdef"]).of("ada", anonymous=False)
        '_h-vsnn10b7kqA7rq27t-A'
        """
        said = b"%b:%b" % (b"s" if anonymous else b"u", text.encode("utf-8", "surrogatepass"))
        digest = hmac.digest(self._keys[int(former)], said, "sha256")
        return urlsafe_b64encode(digest[:_BYTES]).rstrip(b"=").decode()

    def names(self, name: str) -> list[str]:
        """Public names of a customer by public name (``~`` and the id of a session), newest first.

        >>> len(Pseudonyms([b"a" * 32, b"b" * 32]).names("~s1"))
        2
        """
        text, anonymous = given_name(name)
        return [
            public_name(self.of(text, anonymous=anonymous, former=former), anonymous=anonymous)
            for former in (False, True)[: len(self._keys)]
        ]


def names_of(pseudonyms: Pseudonyms | None, name: str) -> list[str]:
    """What a customer may be called in keys and topics; without pseudonyms as they are."""
    return [name] if pseudonyms is None else pseudonyms.names(name)


@cache
def load_pseudonyms(path: Path | None) -> Pseudonyms | None:
    """Keys from a file, one a line, the one in use first; ``None`` without a file.

    Raises ``ConfigurationError`` for a file that cannot be read or whose keys are none.
    """
    if path is None:
        return None
    name = f"STREAM_APP_PSEUDONYM_KEY_FILE={path}"
    try:
        lines = path.read_text().split()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(
            f"{name}: cannot be read ({exc}); give the worker's user read access"
        ) from exc
    if not 1 <= len(lines) <= KEYS_MAX:
        raise ConfigurationError(
            f"{name}: {len(lines)} keys; one a line, the key in use and at most one former key"
        )
    if min(map(len, lines)) < KEY_CHARS_MIN or len(set(lines)) < len(lines):
        raise ConfigurationError(
            f"{name}: different keys of at least {KEY_CHARS_MIN} characters are needed,"
            " such as of `openssl rand -hex 32`"
        )
    return Pseudonyms([line.encode() for line in lines])
