"""What the operator has configured to be decided, and decisions as storefronts read them.

Loads the files of actions and experiments at start, and renders the public fields
``next_best_action``, ``purchase_intent`` and ``segment`` of customers whose lists are published.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.core.actions import Actions, parse_actions
from stream_app.core.experiments import Experiment, compile_experiments, parse_experiments
from stream_app.core.experiments import variant_of as _variant_of
from stream_app.core.insight import Policy
from stream_app.core.insight_fields import MARKETING, PERSONAL
from stream_app.core.segments import RFM_LABELS, rfm_labels
from stream_app.errors import ConfigurationError

_NO_DECISION = b"null"


@dataclass(frozen=True, slots=True)
class Decisions:
    """Actions and experiments, as written and as the kernels take them."""

    actions: Actions
    experiments: tuple[Experiment, ...]
    policy: Policy

    def scalars(
        self, users: NDArray[np.void], refused: NDArray[np.uint8] | None = None
    ) -> dict[str, list[bytes]]:
        """Public fields of ``(n,) USER`` records, a JSON text each; see docs/decisions.md.

        ``refused (n,) uint8`` are bits of consent withdrawn that the state may not know yet: what
        needs the consent is not published, whatever was decided.
        """
        labels = rfm_labels(users, users["last_ts"]).tolist()
        segments = users["segment"].tolist()
        intents = [b"%.4f" % p for p in users["p_session"].tolist()]
        texts = {
            "next_best_action": self._decided(users, refused),
            "purchase_intent": intents,
            "segment": list(map(_segment, labels, segments)),
        }
        if self.experiments:
            texts["experiments"] = [self._variants(customer) for customer in users["id"]]
        return texts

    def _decided(self, users: NDArray[np.void], refused: NDArray[np.uint8] | None) -> list[bytes]:
        arms = users["action"].astype(np.int64)
        bits = users["refused"] | (0 if refused is None else refused)
        if bits.any():
            marketing = np.zeros(256, np.bool_)
            marketing[1 : len(self.actions.arms) + 1] = [a.marketing for a in self.actions.arms]
            barred = ((bits & MARKETING > 0) & marketing[arms]) | (bits & PERSONAL > 0)
            arms = np.where(barred & (arms > 0), 1, arms)
        # Rounded, so that the texts of a whole batch are few and come from a table.
        chances = (np.rint(users["action_propensity"].astype(np.float64) * 1e3) / 1e3).tolist()
        values = (np.rint(users["action_value"].astype(np.float64) * 1e2) / 1e2).tolist()
        return [
            self._text(arm, chance, value)
            for arm, chance, value in zip(arms.tolist(), chances, values, strict=True)
        ]

    def _text(self, arm: int, chance: float, value: float) -> bytes:
        if not 0 < arm <= len(self.actions.arms):
            return _NO_DECISION  # nothing decided yet, or by a longer file
        chosen = self.actions.arms[arm - 1]
        return _render(chosen.action, chosen.promotion, chosen.reason, chance, value)

    def _variants(self, customer: np.uint64) -> bytes:
        trials = self.policy.trials
        return orjson.dumps(
            {
                experiment.name: experiment.variants[_variant_of(customer, trials, e)]
                for e, experiment in enumerate(self.experiments)
            }
        )


@lru_cache(maxsize=50_000)
def _render(action: str, promotion: str | None, reason: str, chance: float, value: float) -> bytes:
    """One decision as JSON."""
    # Formatted once more, because what orjson returns holds four kilobytes however short it is.
    return b"%b" % orjson.dumps(
        {
            "action": action,
            "promotion": promotion,
            "reason": reason,
            "propensity": chance,
            "expected_value": value,
        }
    )


@lru_cache(maxsize=5_000)
def _segment(label: int, number: int) -> bytes:
    """``loyal-s3``: the label by rule, then the cluster; s0 before the first session has ended."""
    return b'"%b-s%d"' % (RFM_LABELS[label].encode(), number)


def load_decisions(
    actions_file: Path | None,
    experiments_file: Path | None,
    steps: Sequence[str],
    partitions: int,
) -> Decisions:
    """Read and check both files; without a name the shipped actions, and no experiments.

    Raises :class:`~stream_app.errors.ConfigurationError` naming file, entry and cure.
    """
    if actions_file is None:
        text, name = (files("stream_app") / "actions.toml").read_text(), "actions.toml"
    else:
        text, name = _read(actions_file, "ACTIONS_FILE"), str(actions_file)
    actions = parse_actions(text, name)
    experiments: tuple[Experiment, ...] = ()
    if experiments_file is not None:
        text = _read(experiments_file, "EXPERIMENTS_FILE")
        experiments = parse_experiments(text, str(experiments_file))
    policy = Policy(actions.compiled(steps, partitions), compile_experiments(experiments))
    return Decisions(actions, experiments, policy)


def _read(path: Path, variable: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(
            f"STREAM_APP_{variable}={path}: cannot be read ({exc}); give the worker's user read"
            " access or correct the path"
        ) from exc
