"""Who may see the console: with a token everybody who has it, without one only this machine."""

import hashlib
import hmac
from collections.abc import Mapping

COOKIE = "stream_app_console"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def is_loopback(host: str) -> bool:
    """Whether a ``Host`` header or an address means this machine.

    >>> [is_loopback(host) for host in ("127.0.0.1:6066", "[::1]:6066", "::1", "shop.example")]
    [True, True, True, False]
    """
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    return name in LOOPBACK


class Access:
    """Decides by bearer token, by the cookie that a login sets, or by being on this machine.

    Without a token the console is there only while the web server listens on loopback, and only
    for requests that name loopback as their host: a page elsewhere cannot have a browser ask for it
    under a name of its own (DNS rebinding).
    """

    def __init__(self, token: str | None, *, web_host: str) -> None:
        self._token = token
        self._local = is_loopback(web_host)

    @property
    def served(self) -> bool:
        """Whether there is a console at all."""
        return self._token is not None or self._local

    @property
    def needs_token(self) -> bool:
        """Whether a login is needed."""
        return self._token is not None

    def cookie(self) -> str:
        """What a login sets: proves that the token was known, without being it."""
        assert self._token is not None
        return hmac.new(self._token.encode(), b"console", hashlib.sha256).hexdigest()

    def token_fits(self, given: str) -> bool:
        """Compare in constant time."""
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def allowed(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
        """Whether a request may see the console."""
        if self._token is None:
            return self._local and is_loopback(headers.get("Host", ""))
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.token_fits(given.strip())
        return hmac.compare_digest(cookies.get(COOKIE, "").encode(), self.cookie().encode())
