"""Read the address of a Redis-protocol server, Sentinel group or Cluster from one URL.

    redis://[user:password@]host:port/db           one server (rediss:// with TLS)
    unix:///run/redis.sock?db=0                    one server on this machine
    redis+sentinel://h1:26379,h2:26379/master/db   the master that the sentinels name
    redis+cluster://h1:6379,h2:6379                a cluster, any of its nodes

``rediss+sentinel`` and ``rediss+cluster`` use TLS. Options of redis-py may follow after ``?``, for
example ``ssl_ca_certs``; ``sentinel_username`` and ``sentinel_password`` are for the sentinels.
"""

from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from stream_app.errors import ConfigurationError

FORMS = (
    "redis://, rediss://, unix://, redis+sentinel://host:port,host:port/master "
    "or redis+cluster://host:port,host:port"
)


class Mode(Enum):
    """How many servers stand behind the URL and who says which one to talk to."""

    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed URL. ``url`` is what redis-py reads: one host, credentials and options included.

    ``shown`` is for messages and holds no user, password or option.
    """

    mode: Mode
    url: str
    hosts: tuple[tuple[str, int], ...]
    master: str
    sentinel_options: tuple[tuple[str, str], ...]
    shown: str


def parse_redis_url(url: str) -> RedisAddress:
    """Return the address that ``url`` names; raises ``ConfigurationError`` without the password.

    >>> address = parse_redis_url("redis+sentinel://:secret@a:1,[::1]:2,c/shop/3")
    >>> address.hosts, address.master, address.url
    ((('a', 1), ('::1', 2), ('c', 26379)), 'shop', 'redis://:secret@a:1/3')
    >>> address.shown
    'redis+sentinel://a:1,[::1]:2,c/shop/3'
    >>> parse_redis_url("rediss+cluster://u:p@a:1,b:2").url
    'rediss://u:p@a:1/'
    >>> parse_redis_url("http://:secret@a")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    stream_app.errors.ConfigurationError: the Redis URL http://a is not one of redis://, ...
    """
    parts = urlsplit(url)
    credentials, at, servers = parts.netloc.rpartition("@")
    shown = urlunsplit((parts.scheme, servers, parts.path, "", ""))
    scheme, _, kind = parts.scheme.partition("+")
    modes = {
        ("redis", ""): Mode.STANDALONE,
        ("rediss", ""): Mode.STANDALONE,
        ("unix", ""): Mode.STANDALONE,
        ("redis", "sentinel"): Mode.SENTINEL,
        ("rediss", "sentinel"): Mode.SENTINEL,
        ("redis", "cluster"): Mode.CLUSTER,
        ("rediss", "cluster"): Mode.CLUSTER,
    }
    mode = modes.get((scheme, kind))
    if mode is None or (scheme != "unix" and not servers):
        raise ConfigurationError(f"the Redis URL {shown} is not one of {FORMS}")
    if mode is Mode.STANDALONE:
        return RedisAddress(mode, url, (), "", (), shown)

    default_port = 26379 if mode is Mode.SENTINEL else 6379
    hosts = tuple(_host_and_port(host, default_port, shown) for host in servers.split(","))
    master, _, db = parts.path.strip("/").partition("/")
    if mode is Mode.SENTINEL and not master:
        raise ConfigurationError(f"the Redis URL {shown} lacks the master's name: …/master")
    if mode is Mode.CLUSTER and master not in ("", "0"):
        raise ConfigurationError(f"the Redis URL {shown} names a database: a cluster has only 0")
    options = parse_qsl(parts.query)
    sentinel = tuple((k[9:], v) for k, v in options if k.startswith("sentinel_"))
    query = urlencode([(k, v) for k, v in options if not k.startswith("sentinel_")])
    first = servers.split(",")[0]
    plain = urlunsplit((scheme, f"{credentials}{at}{first}", f"/{db}", query, ""))
    return RedisAddress(mode, plain, hosts, master, sentinel, shown)


def host_names(netloc: str) -> list[str]:
    """The hosts of a URL's network part, without credentials and ports.

    >>> host_names("user:se@cret@a:1,[::1]:2")
    ['a', '::1']
    """
    servers = netloc.rpartition("@")[2].split(",")
    return [urlsplit(f"//{server.strip()}").hostname or "" for server in servers]


def _host_and_port(text: str, default_port: int, shown: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text.strip()}")
        host, port = parts.hostname, parts.port or default_port
    except ValueError as exc:
        raise ConfigurationError(f"the Redis URL {shown} has a bad host:port: {text}") from exc
    if not host:
        raise ConfigurationError(f"the Redis URL {shown} has an empty host name")
    return host, port
