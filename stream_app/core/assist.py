"""Judge a support message: how urgent it is and who should see it. Called by SUPPORT."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stream_app.core.support import normalised

URGENCIES = ("low", "normal", "high")


@dataclass(frozen=True, slots=True)
class Route:
    """Which messages go to ``queue``: those that meet every condition; an empty one always holds.

    ``intents`` of the model, ``urgencies`` of :data:`URGENCIES`, ``steps`` of the journey.
    """

    queue: str
    intents: frozenset[str] = frozenset()
    urgencies: frozenset[str] = frozenset()
    steps: frozenset[str] = frozenset()

    def takes(self, intent: str, urgency: str, step: str) -> bool:
        """Whether a message goes here; ``intent`` is empty for one that is like none known."""
        return (
            (not self.intents or intent in self.intents)
            and (not self.urgencies or urgency in self.urgencies)
            and (not self.steps or step in self.steps)
        )


@dataclass(frozen=True, slots=True)
class AssistRules:
    """What ``support.toml`` says. Shares of urgency add up, at most to 1."""

    default_queue: str
    out_of_scope_queue: str
    routes: Sequence[Route] = ()  # the first that takes a message
    words: frozenset[str] = frozenset()
    word: float = 0.4
    negative: float = 0.5
    steps: Mapping[str, float] = field(default_factory=dict)
    intents: Mapping[str, float] = field(default_factory=dict)
    high_from: float = 0.6
    normal_from: float = 0.25


def urgency(
    rules: AssistRules, message: str, *, sentiment: float, intent: str, step: str
) -> tuple[str, Sequence[str]]:
    """One of :data:`URGENCIES` and what it was judged by; ``sentiment`` from -1 to 1.

    >>> words = frozenset({"urgent"})
    >>> rules = AssistRules("general", "human", words=words, steps={"checkout": 0.3})
    >>> urgency(rules, "This is URGENT!", sentiment=0.0, intent="", step="checkout")
    ('high', ['word: urgent', 'step: checkout'])
    >>> urgency(rules, "Thanks", sentiment=0.8, intent="", step="browse")
    ('low', [])
    """
    score, because = 0.0, []
    if sentiment < 0.0:
        score += rules.negative * -sentiment
        because.append("negative")
    spoken = {word.strip(".,;:!?¡¿\"'()") for word in normalised(message).split()}
    said = sorted(rules.words & spoken)
    if said:
        score += rules.word
        because.append(f"word: {said[0]}")
    if step in rules.steps:
        score += rules.steps[step]
        because.append(f"step: {step}")
    if intent in rules.intents:
        score += rules.intents[intent]
        because.append(f"intent: {intent}")
    level = (score >= rules.normal_from) + (score >= rules.high_from)
    return URGENCIES[level], because


def queue(rules: AssistRules, intent: str, *, urgency: str, step: str) -> str:
    """Who should see a message; ``intent`` is empty for one that is like none known.

    >>> fast = Route("fast", urgencies=frozenset({"high"}))
    >>> routes = [fast, Route("pay", frozenset({"payment"}))]
    >>> rules = AssistRules("general", "human", routes)
    >>> [queue(rules, intent, urgency="low", step="") for intent in ("payment", "review", "")]
    ['pay', 'general', 'human']
    >>> queue(rules, "payment", urgency="high", step="cart")
    'fast'
    """
    for route in rules.routes:
        if route.takes(intent, urgency, step):
            return route.queue
    return rules.default_queue if intent else rules.out_of_scope_queue
