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
from stream_app.ports import RawBatch
from stream_app.rule_records import RULES_MAX, rule_of
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
        self.merchandise.set_rules(self._in_force())

    def _in_force(self) -> list[Rule]:
        return list({**self._file, **self._live}.values())

    def apply(self, batch: RawBatch) -> list[Reject]:
        """Apply a batch of one partition; returns what is wrong with its bad records.

        Who changed which rule is logged; the topic itself keeps the last word on each.
        """
        rejects: list[Reject] = []
        for row, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            try:
                rule_id = key_text(key, chars_max=self._chars_max)
                self._change(rule_id, value)
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

    def _change(self, rule_id: str, value: bytes | None) -> None:
        if not value:
            self._live.pop(rule_id, None)
            log.info("rule %s: withdrawn", rule_id)
            return
        try:
            fields: Any = orjson.loads(value)
        except orjson.JSONDecodeError as exc:
            raise EventRejected("malformed_json", str(exc)[:200]) from exc
        if not isinstance(fields, dict):
            raise EventRejected("wrong_type", "a rule is a JSON object")
        if rule_id not in self._live and len(self._live) >= RULES_MAX:
            raise EventRejected("no_room", f"there are {RULES_MAX} live rules")
        rule = rule_of(rule_id, fields, self._steps)
        self._live[rule_id] = rule
        log.info("rule %s: %s, says %s", rule_id, rule.action, fields.get("author") or "(nobody)")
