"""RULES: the rules file, and what the ``rules`` topic changes of it while workers run."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.catalog_wire import key_text
from stream_app.core.merchandising import Merchandise, Rule
from stream_app.errors import EventRejected
from stream_app.events import Reject
from stream_app.ports import Headers, RawBatch
from stream_app.rule_records import RULES_MAX, author_of, rule_of, said_of
from stream_app.settings import Settings

log = logging.getLogger(__name__)


class Ruling:
    """Keeps the rules in force; a live rule stands in for the file's of the same id.

    ``on_changed`` is told which items a rule that is new keeps out of lists.
    """

    def __init__(
        self,
        merchandise: Merchandise,
        settings: Settings,
        rules: Sequence[Rule],
        steps: Sequence[str],
        on_changed: Callable[[NDArray[np.uint64]], None],
    ) -> None:
        self.merchandise = merchandise
        self._chars_max = settings.id_chars_max
        self._file = {rule.rule_id: rule for rule in rules}
        self._live: dict[str, Rule] = {}
        self._steps = steps
        self._on_changed = on_changed
        self._following = False
        self.merchandise.set_rules(self._in_force())

    def loaded(self) -> None:
        """The topic has been read to its end: from now on records are changes, and logged."""
        self._following = True
        log.info("%d rules, %d of them live", len(self.merchandise.rules), len(self._live))

    def _in_force(self) -> list[Rule]:
        return list({**self._file, **self._live}.values())

    def apply(self, batch: RawBatch) -> list[Reject]:
        """Apply a batch of one partition; returns what is wrong with its bad records.

        Who changed which rule is logged, with what it said and says; the topic itself keeps the
        last word on each.
        """
        rejects: list[Reject] = []
        records = zip(batch.keys, batch.values, batch.headers, strict=True)
        for row, (key, value, headers) in enumerate(records):
            try:
                rule_id = key_text(key, chars_max=self._chars_max)
                self._change(rule_id, value, headers)
            except EventRejected as exc:
                rejects.append(Reject(row, exc.reason, exc.detail))
        before, now = self.merchandise.rules, self._in_force()
        self.merchandise.set_rules(now)
        for rule in now:
            if rule not in before:
                barred = rule.barred(self.merchandise.catalog)
                if len(barred):
                    self._on_changed(barred)
        return rejects

    def _change(self, rule_id: str, value: bytes | None, headers: Headers) -> None:
        fields = _fields(value) if value else {}
        if value and rule_id not in self._live and len(self._live) >= RULES_MAX:
            raise EventRejected("no_room", f"there are {RULES_MAX} live rules")
        before = self._one(rule_id)
        if value:
            self._live[rule_id] = rule_of(rule_id, fields, self._steps)
        else:
            self._live.pop(rule_id, None)
        if self._following:
            log.info(
                "rule %s: %s by %s, was %s, is %s",
                rule_id,
                "put" if value else "dropped",
                author_of(headers, fields) or "(nobody)",
                said_of(before),
                said_of(self._one(rule_id)),
            )

    def _one(self, rule_id: str) -> Rule | None:
        return self._live.get(rule_id) or self._file.get(rule_id)


def _fields(value: bytes) -> dict[str, Any]:
    try:
        fields: Any = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise EventRejected("malformed_json", str(exc)[:200]) from exc
    if not isinstance(fields, dict):
        raise EventRejected("wrong_type", "a rule is a JSON object")
    return fields
