"""Files of the SUPPORT stage: rules, knowledge base, labelled messages. Read once at start.

Whatever is wrong stops the worker with the file, the place and the cure.
"""

import tomllib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from stream_app.core.assist import URGENCIES, AssistRules, Route
from stream_app.core.knowledge import ENTRIES_MAX, Entry
from stream_app.core.support import Embed, SupportModel, intents_max, normalised
from stream_app.errors import ConfigurationError
from stream_app.offline.tables import Table, read_table
from stream_app.settings import Settings

ROUTES_MAX = 500
_Share = Field(ge=0.0, le=1.0)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Urgency(_Model):
    high_from: float = _Share
    normal_from: float = _Share
    negative: float = _Share
    word: float = _Share
    words: list[str] = []
    steps: dict[str, float] = {}
    intents: dict[str, float] = {}


class _Route(_Model):
    queue: str = Field(min_length=1)
    intents: list[str] = Field([], min_length=1)
    urgency: str | list[str] = Field([], min_length=1)
    steps: list[str] = Field([], min_length=1)

    @field_validator("urgency")
    @classmethod
    def _known(cls, value: str | list[str]) -> str | list[str]:
        wrong = {value} - set(URGENCIES) if isinstance(value, str) else set(value) - set(URGENCIES)
        if wrong:
            raise ValueError(f"{', '.join(sorted(wrong))}: use {', '.join(URGENCIES)}")
        return value

    @model_validator(mode="after")
    def _conditional(self) -> Self:
        if not (self.intents or self.urgency or self.steps):
            raise ValueError("give intents, urgency or steps; default_queue takes the rest")
        return self

    def route(self) -> Route:
        """An urgency alone means that or more, a list just those."""
        told = self.urgency
        meant = URGENCIES[URGENCIES.index(told) :] if isinstance(told, str) else told
        return Route(self.queue, *map(frozenset, (self.intents, meant, self.steps)))


class _File(_Model):
    default_queue: str = Field(min_length=1)
    out_of_scope_queue: str = Field(min_length=1)
    urgency: _Urgency
    route: list[_Route] = Field([], max_length=ROUTES_MAX)


def read_rules(path: Path | None, steps: Sequence[str]) -> AssistRules:
    """The rules of ``path``, or the shipped ones; raises ``ConfigurationError``.

    ``steps`` are those of the journey: a route of a file may name no other. The shipped rules name
    those of the shipped journey, and hold for what another one has of them.
    """
    where = str(path) if path else "the shipped support.toml"
    try:
        text = (path or files("stream_app").joinpath("support.toml")).read_text()
        told = _File.model_validate(tomllib.loads(text))
    except OSError as exc:
        raise ConfigurationError(
            f"STREAM_APP_SUPPORT_RULES_FILE={where}: cannot be read ({exc.strerror})"
        ) from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{where} is not TOML: {exc}") from exc
    except ValidationError as exc:
        problems = [".".join(map(str, e["loc"])) + f": {e['msg']}" for e in exc.errors()]
        raise ConfigurationError(f"{where}:\n  " + "\n  ".join(problems)) from exc
    routes = [route.route() for route in told.route]
    problems = [*_unknown(routes, steps if path else None), *_shadowed(routes)]
    if problems:
        raise ConfigurationError(f"{where}:\n  " + "\n  ".join(problems))
    spoken = told.urgency
    return AssistRules(
        told.default_queue,
        told.out_of_scope_queue,
        routes,
        frozenset(normalised(word) for word in spoken.words),
        spoken.word,
        spoken.negative,
        spoken.steps,
        spoken.intents,
        spoken.high_from,
        spoken.normal_from,
    )


def _unknown(routes: Sequence[Route], steps: Sequence[str] | None) -> Iterator[str]:
    """What is wrong with the steps that routes name; ``None``: any may be named."""
    for number, route in enumerate(routes, 1):
        wrong = route.steps.difference(route.steps if steps is None else steps)
        if wrong:
            yield (
                f"route {number} ({route.queue}): steps {', '.join(sorted(wrong))}:"
                f" choose of {', '.join(steps or ())}"
            )


def _shadowed(routes: Sequence[Route]) -> Iterator[str]:
    """Routes that an earlier one leaves nothing for, or not all of their intents."""
    for number, route in enumerate(routes, 1):
        for before, first in enumerate(routes[: number - 1], 1):
            if not (
                _within(route.urgencies, first.urgencies) and _within(route.steps, first.steps)
            ):
                continue
            lost = ", ".join(sorted(route.intents & first.intents))
            if lost or not first.intents:
                yield (
                    f"route {number} ({route.queue}) never gets {lost or 'anything'}, which route"
                    f" {before} ({first.queue}) takes: put it before, or take that out"
                )


def _within(narrow: frozenset[str], wide: frozenset[str]) -> bool:
    """Whether a condition holds only where the other one does; an empty one holds always."""
    return not wide or (bool(narrow) and narrow <= wide)


def read_knowledge(path: Path | None) -> list[Entry]:
    """The knowledge base: CSV with ``question, answer`` and perhaps ``id, intent``."""
    if path is None:
        return []
    table = read_table(path)
    questions, answers = table.column("question"), table.column("answer")
    ids = _optional(table, "id") or [str(line) for line in table.lines]
    intents = _optional(table, "intent") or [""] * len(table)
    entries = [
        Entry(*row)
        for row in zip(ids, questions, answers, intents, strict=True)
        if normalised(row[1])
    ]
    if not 0 < len(entries) <= ENTRIES_MAX:
        raise ConfigurationError(
            f"STREAM_APP_SUPPORT_KNOWLEDGE_FILE={path}: {len(entries)} questions; give 1 to"
            f" {ENTRIES_MAX}"
        )
    return entries


def fit_model(settings: Settings, embed: Embed | None = None) -> SupportModel:
    """The intent model of ``STREAM_APP_SUPPORT_TRAIN_FILE``: seconds to minutes of work."""
    path = settings.support_train_file
    assert path is not None
    table = read_table(path)
    messages = table.column(settings.support_text_column)
    intents = [intent.strip() for intent in table.column(settings.support_label_column)]
    labelled = [k for k, intent in enumerate(intents) if intent and normalised(messages[k])]
    known = {intents[k] for k in labelled}
    if not 2 <= len(known) <= intents_max:
        raise ConfigurationError(
            f"STREAM_APP_SUPPORT_TRAIN_FILE={path}: {len(known)} intents in column"
            f" {settings.support_label_column!r}; a classifier needs 2 to {intents_max}"
        )
    return SupportModel.fit(
        [messages[k] for k in labelled], [intents[k] for k in labelled], embed=embed
    )


def _optional(table: Table, name: str) -> list[str] | None:
    return table.columns.get(name)
