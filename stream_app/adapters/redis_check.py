"""Judge a Redis-protocol server from what it says about itself, before anything is kept there."""

from collections.abc import Mapping
from typing import TypedDict

from stream_app.errors import ConfigurationError

POLICY = "noeviction"
_VERSIONS_MIN = {"redis": (7, 0), "valkey": (7, 2)}


class ServerReport(TypedDict):
    """What ``check`` prints about one server. ``warnings`` are for the operator to judge."""

    server: str
    mode: str
    role: str
    replicas: int
    memory_bytes: int
    memory_max_bytes: int
    maxmemory_policy: str
    persistence: str
    warnings: list[str]


def server_report(
    info: Mapping[str, str], config: Mapping[str, str] | None, *, shown: str
) -> ServerReport:
    """Return what ``INFO`` and ``CONFIG GET appendfsync save`` say (``None``: it is forbidden).

    Raises ``ConfigurationError`` when the server is too old or would evict state.

    >>> info = {"valkey_version": "8.1.0", "maxmemory_policy": "allkeys-lru"}
    >>> server_report(info, None, shown="redis://a:1")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    stream_app.errors.ConfigurationError: redis://a:1: maxmemory-policy is allkeys-lru, so ...
    """
    flavour = "valkey" if "valkey_version" in info else "redis"
    version = info.get(f"{flavour}_version", "0.0")
    if _numbers(version) < _VERSIONS_MIN[flavour]:
        oldest = ".".join(map(str, _VERSIONS_MIN[flavour]))
        raise ConfigurationError(
            f"{shown}: {flavour} {version} is too old for functions; use {oldest} or newer"
        )
    policy = info.get("maxmemory_policy", "unknown")
    if policy not in (POLICY, "unknown"):
        raise ConfigurationError(
            f"{shown}: maxmemory-policy is {policy}, so the server may delete state; "
            f"CONFIG SET maxmemory-policy {POLICY} (and in its configuration file)"
        )
    persistence = _persistence(info, config)
    return ServerReport(
        server=f"{flavour} {version}",
        mode=info.get(f"{flavour}_mode", info.get("server_mode", info.get("redis_mode", "?"))),
        role=info.get("role", "unknown"),
        replicas=int(info.get("connected_slaves", "0")),
        memory_bytes=int(info.get("used_memory", "0")),
        memory_max_bytes=int(info.get("maxmemory", "0")),
        maxmemory_policy=policy,
        persistence=persistence,
        warnings=_warnings(info, policy, persistence),
    )


def _persistence(info: Mapping[str, str], config: Mapping[str, str] | None) -> str:
    if info.get("aof_enabled") == "1":
        return f"append-only file, fsync {(config or {}).get('appendfsync', 'unknown')}"
    if config is None:
        return "unknown (CONFIG is forbidden)"
    return f"snapshots: {config['save']}" if config.get("save") else "none"


def _warnings(info: Mapping[str, str], policy: str, persistence: str) -> list[str]:
    found = {
        f"cannot see maxmemory-policy; it must be {POLICY}": policy == "unknown",
        "this is a replica: writes fail until it is promoted": info.get("role") == "slave",
        "no persistence: after a restart all state is rebuilt from Kafka": persistence == "none",
        "maxmemory is not set: the system may kill a server that grows": (
            info.get("maxmemory", "0") == "0"
        ),
    }
    return [warning for warning, is_true in found.items() if is_true]


def parse_info(text: str) -> dict[str, str]:
    r"""Return the fields of an ``INFO`` reply.

    >>> parse_info("# Server\r\nredis_version:7.0.1\r\n\r\nrole:master\r\n")
    {'redis_version': '7.0.1', 'role': 'master'}
    """
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in lines if colon}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
