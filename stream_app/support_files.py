"""Files of the SUPPORT stage: rules, knowledge base, labelled messages. Read once at start.

Whatever is wrong stops the worker with the file, the place and the cure.
"""

import tomllib
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stream_app.core.assist import AssistRules
from stream_app.core.knowledge import ENTRIES_MAX, Entry, Knowledge
from stream_app.core.support import SupportModel, intents_max, normalised
from stream_app.errors import ConfigurationError
from stream_app.offline.tables import Table, read_table
from stream_app.settings import Settings

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
    intents: list[str] = Field(min_length=1)


class _File(_Model):
    default_queue: str = Field(min_length=1)
    out_of_scope_queue: str = Field(min_length=1)
    urgency: _Urgency
    route: list[_Route] = []


def read_rules(path: Path | None) -> AssistRules:
    """The rules of ``path``, or the shipped ones; raises ``ConfigurationError``."""
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
    queues = {intent: route.queue for route in told.route for intent in route.intents}
    twice = sum(len(route.intents) for route in told.route) - len(queues)
    if twice:
        raise ConfigurationError(f"{where}: {twice} intents are in more than one [[route]]")
    spoken = told.urgency
    return AssistRules(
        told.default_queue,
        told.out_of_scope_queue,
        queues,
        frozenset(normalised(word) for word in spoken.words),
        spoken.word,
        spoken.negative,
        spoken.steps,
        spoken.intents,
        spoken.high_from,
        spoken.normal_from,
    )


def read_knowledge(path: Path | None) -> Knowledge | None:
    """The knowledge base: CSV with ``question, answer`` and perhaps ``id, intent``."""
    if path is None:
        return None
    table = read_table(path)
    questions, answers = table.column("question"), table.column("answer")
    ids = _optional(table, "id") or [str(line) for line in table.lines]
    intents = _optional(table, "intent") or [""] * len(table)
    entries = [
        Entry(*row) for row in zip(ids, questions, answers, intents, strict=True) if row[1].strip()
    ]
    if not 0 < len(entries) <= ENTRIES_MAX:
        raise ConfigurationError(
            f"STREAM_APP_SUPPORT_KNOWLEDGE_FILE={path}: {len(entries)} questions; give 1 to"
            f" {ENTRIES_MAX}"
        )
    return Knowledge.of(entries)


def fit_model(settings: Settings) -> SupportModel:
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
    return SupportModel.fit([messages[k] for k in labelled], [intents[k] for k in labelled])


def _optional(table: Table, name: str) -> list[str] | None:
    return table.columns.get(name)
