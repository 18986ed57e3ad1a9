"""Settings that are lists, their parts separated by commas. Called by :mod:`.settings`."""

import re
from collections.abc import Container, Iterator, Sequence

TOPIC = r"^[\w.-]{1,200}$"  # what a topic may be called
EXTRA_SOURCES = frozenset("content embedding user_knn segment trending jaccard".split())


def names_of(text: str) -> list[str]:
    """The names in a list.

    >>> names_of("a, b,")
    ['a', 'b']
    """
    return [part.strip() for part in text.split(",") if part.strip()]


def known_sources_of(text: str) -> frozenset[str]:
    """Names of candidate sources; raises ``ValueError`` for others than there are."""
    names = frozenset(names_of(text))
    if names - EXTRA_SOURCES:
        unknown = ", ".join(sorted(names - EXTRA_SOURCES))
        raise ValueError(f"{unknown}: use {', '.join(sorted(EXTRA_SOURCES))}")
    return names


def _pairs(text: str) -> Iterator[tuple[str, str, str]]:
    """Each part of the list, and the two sides of its last ``=``; either may be empty."""
    for part in names_of(text):
        name, _, value = part.rpartition("=")
        yield part, name.strip(), value.strip()


def cycles_of(text: str) -> dict[str, float]:
    """Days by category; raises ``ValueError``.

    >>> cycles_of("Coffee=21, Pets/Food=30")
    {'Coffee': 21.0, 'Pets/Food': 30.0}
    """
    cycles = {}
    for part, name, days in _pairs(text):
        try:
            cycles[name] = float(days)
        except ValueError:
            cycles[name] = -1.0
        if not (name and 0.0 <= cycles[name] <= 36_500):
            raise ValueError(f"{part!r} must look like Category=days")
    return cycles


def formats_of(text: str, formats: Sequence[str], own: Container[str]) -> dict[str, str]:
    """The format of each topic in a list of them, none of them an ``own`` one.

    Raises ``ValueError``, which says what would be right.

    >>> formats_of("web-ga4=ga4, app-events=segment", ["ga4", "segment"], ["clickstream"])
    {'web-ga4': 'ga4', 'app-events': 'segment'}
    """
    found: dict[str, str] = {}
    for part, topic, name in _pairs(text):
        if not re.fullmatch(TOPIC, topic, re.ASCII) or topic in (".", ".."):
            raise ValueError(
                f"{part!r} must look like topic=format; a topic has up to 200 of a-z A-Z 0-9 . _ -"
            )
        if name not in formats:
            raise ValueError(f"{part!r}: {name!r} is no format, use one of {', '.join(formats)}")
        if topic in found:
            raise ValueError(f"{part!r}: {topic} is there twice; a topic has one format")
        if topic in own:
            raise ValueError(
                f"{part!r}: {topic} is a topic of this application itself; name the vendor's"
            )
        found[topic] = name
    return found
