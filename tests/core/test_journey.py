"""The journey: where events lead, what the state decides, and what time does."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_app.core.insight_fields import USER_NAMES
from stream_app.core.journey import STAY, STEP, STEPS, Journey, deadlines
from stream_app.core.learn import APPLIED, EVENT, NO_TIMER, STALE, learn
from stream_app.core.model import INTERNAL, KIND, KINDS, STEPS_MAX, Model
from stream_app.core.ranking import LISTS
from stream_app.core.state import new_partition, new_users
from stream_app.errors import ConfigurationError
from stream_app.journeys import load_journey, parse_journey
from stream_app.offline.recompute import Customers

SHIPPED = load_journey()
TABLE = SHIPPED.plan.moves
START_S, HOUR_S, DAY_S = 1_700_000_000.0, 3_600.0, 86_400.0


def walk(*kinds: str, start: str = "discover") -> str:
    """The step that ``kinds`` lead to, one after the other."""
    step = STEP[start]
    for kind in kinds:
        step = int(TABLE[KIND[kind], step])
    return STEPS[step]


@pytest.mark.parametrize(
    ("kinds", "step"),
    [
        ("impression", "discover"),
        ("search", "discover"),
        ("view", "browse"),
        ("view view search", "discover"),
        ("view wishlist", "consider"),
        ("share", "consider"),
        ("view add_to_cart", "cart"),
        ("add_to_cart view", "cart"),
        ("add_to_cart begin_checkout", "checkout"),
        ("add_to_cart begin_checkout view", "cart"),
        ("add_to_cart begin_checkout remove_from_cart", "cart"),
        ("add_to_cart begin_checkout purchase", "post_purchase"),
        ("purchase review", "post_purchase"),
        ("purchase view", "browse"),
        ("purchase refund", "post_purchase"),
        ("purchase support", "post_purchase"),
    ],
)
def test_a_customer_walks_through_the_steps(kinds: str, step: str) -> None:
    assert walk(*kinds.split()) == step


def test_whatever_a_dormant_customer_does_wakes_them() -> None:
    asleep = {kind for kind in KINDS if walk(kind, start="dormant") == "dormant"}
    assert asleep == {"impression", "erase", *INTERNAL}, "none is something the customer did"


def test_every_step_but_dormant_is_reached_by_events_and_every_step_is_left() -> None:
    for step in STEPS[:-1]:
        assert any(walk(kind, start=other) == step for kind in KINDS for other in STEPS), step
    assert not any(walk(kind, start=step) == "dormant" for kind in KINDS for step in STEPS[:-1])
    for step in STEPS:
        assert any(walk(kind, start=step) != step for kind in KINDS)


def test_a_step_that_is_no_more_reads_as_the_start() -> None:
    assert SHIPPED.names[:7] == STEPS
    assert set(SHIPPED.names[7:]) == {"discover"}
    assert TABLE[KIND["view"], 12] == STEP["browse"]
    assert TABLE[KIND["impression"], 12] == STEP["discover"]
    assert SHIPPED.lists.shape == (STEPS_MAX, len(LISTS))
    assert SHIPPED.lists.any(axis=1).all(), "every step has a list"


def test_the_likely_next_step_is_the_one_most_took_and_another_one() -> None:
    counts = np.zeros((STEPS_MAX, STEPS_MAX))
    likely = SHIPPED.likely_next(counts)
    assert likely[STEP["discover"]] == STEP["browse"]
    assert likely[STEP["cart"]] == STEP["discover"]
    counts[STEP["cart"], [STEP["cart"], STEP["checkout"], STEP["browse"]]] = 99.0, 5.0, 4.0
    assert SHIPPED.likely_next(counts)[STEP["cart"]] == STEP["checkout"]
    assert counts[STEP["cart"], STEP["cart"]] == 99.0


class One:
    """One customer, event by event; the plain recompute must agree after each."""

    def __init__(self, journey: Journey = SHIPPED) -> None:
        self.users, self.partition = new_users(np.array([1], np.uint64)), new_partition()
        self.journey, self.reference = journey, Customers(journey)
        self.offset = 0

    def __call__(self, kind: str, ts: float, item: int = 0, **fields: int) -> tuple[int, int]:
        """Status and timer of an event ``ts`` seconds after the start."""
        event = np.zeros(1, EVENT)
        event["customer"], event["item"], event["ts"] = 1, item, START_S + ts
        event["kind"], event["offset"] = KIND[kind], self.offset
        for name, value in fields.items():
            event[name] = value
        self.offset += 1
        rows: NDArray[np.int64] = np.zeros(1, np.int64)
        learned = learn(self.users, rows, event, self.partition, Model(), self.journey.plan)
        self.reference.apply(event)
        who = self.reference.customers[1]
        names = ("step", "previous_step", "entered_at", "timer_ts", "category_views", "offset")
        assert [getattr(who, name) for name in names] == [self.users[name][0] for name in names]
        return int(learned.status[0]), int(learned.timers[0])

    @property
    def step(self) -> str:
        """The name of the step they are in."""
        return str(self.journey.names[int(self.users["step"][0])])

    @property
    def due(self) -> float:
        """Seconds after the start of the next time-out to be announced."""
        return float(deadlines(self.users, self.journey.plan)[0]) - START_S


def test_a_cart_that_is_left_alone_is_announced_once() -> None:
    one = One()
    one("view", 0, 7)
    assert one.due == 30 * DAY_S, "nothing but silence can make them dormant"
    one("add_to_cart", 10, 7)
    assert one.due == 10 + HOUR_S
    assert one("timeout", 10 + HOUR_S) == (APPLIED, SHIPPED.timers.index("cart_left"))
    assert (one.step, one.users["last_ts"][0]) == ("cart", START_S + 10)
    assert one("timeout", 10 + HOUR_S) == (STALE, NO_TIMER), "a repetition"
    assert one.due == 10 + 30 * DAY_S
    one("view", 2 * HOUR_S, 8)
    assert one.due == 3 * HOUR_S, "they are back, and leave it again"


def test_a_timeout_is_believed_only_as_the_state_has_it() -> None:
    one = One()
    one("add_to_cart", 0, 7)
    for wrong in (HOUR_S - 1e-6, HOUR_S + 1, 30 * DAY_S, 0.0):
        assert one("timeout", wrong) == (STALE, NO_TIMER)
    one("view", 60, 8)
    assert one("timeout", HOUR_S) == (STALE, NO_TIMER), "they came back before it was applied"
    assert one.partition["rejected"][0] == 5
    assert one("refresh", 99) == (APPLIED, NO_TIMER)
    assert one.users["offset"][0] == one.offset - 1


def test_time_that_nobody_announced_has_passed_all_the_same() -> None:
    told, untold = One(), One()
    for one in (told, untold):
        one("add_to_cart", 0, 7)
    told("timeout", HOUR_S)
    told("timeout", 30 * DAY_S)
    told("timeout", 60 * DAY_S)
    for one in (told, untold):
        one("view", 70 * DAY_S, 8)
        assert (one.step, STEPS[one.users["previous_step"][0]]) == ("browse", "dormant")
        assert one.users["timer_ts"][0] == START_S + 60 * DAY_S
    # What is predicted and decided does depend on when the customer is thought of.
    names = set(told.users.dtype.names or ()) - {"offset", *USER_NAMES}
    assert all((told.users[name] == untold.users[name]).all() for name in names)


def test_what_was_bought_is_asked_about_and_replenished() -> None:
    one = One()
    one("purchase", 0, 7)
    seen = []
    while np.isfinite(one.due):
        status, timer = one("timeout", one.due)
        assert status == APPLIED
        seen.append(SHIPPED.timers[timer])
    assert seen == ["review_due", "replenishment_due", "gone_quiet", "still_quiet"]
    assert one.step == "dormant"
    actions = [SHIPPED.timer_actions[SHIPPED.timers.index(name)] for name in seen]
    assert actions == ["ask_for_review", "replenish", "win_back", "win_back"]


def test_a_late_event_takes_no_timeout_back() -> None:
    one = One()
    one("view", 0, 7)
    one("timeout", 30 * DAY_S)
    one("view", 29 * DAY_S, 8)
    assert one.step == "browse"
    assert one.due == 59 * DAY_S


OWN = """
start = "hello"
[steps.hello]
number = 7
lists = ["home"]
on.view = "hello"
[[steps.hello.when]]
after = ["view"]
category_views = 3
to = "keen"
[[steps.hello.when]]
session_events = 5
cart = "empty"
to = "lost"
[steps.keen]
number = 9
lists = ["home", "cart"]
actions = ["offer_coupon", "show_list"]
[steps.lost]
number = 10
lists = ["home"]
on.purchase = "dormant"
[steps.dormant]
lists = ["home"]
[timeouts.session_ended]
steps = ["keen"]
since = "session"
after = "30 minutes"
to = "lost"
announce = "all"
[timeouts.given_up]
steps = ["lost"]
since = "entry"
after = "1.5 hours"
to = "dormant"
announce = "none"
"""


def test_a_shop_has_steps_conditions_and_timeouts_of_its_own() -> None:
    journey = parse_journey(OWN)
    one = One(journey)
    for k in range(2):
        one("view", k, k + 1, category=5)
    assert one.step == "hello"
    one("view", 2, 3)  # names no category, which says nothing
    one("view", 3, 4, category=5)
    assert one.step == "keen"
    assert one.due == 1800, "from the session's beginning"
    one("view", 4, 5, category=5, anonymous=1)
    assert one.due == 1800, "also for those who are not known"
    assert one("timeout", 1800) == (APPLIED, 0)
    assert (one.step, one.users["entered_at"][0]) == ("lost", START_S + 1800)
    assert one.due == np.inf, "this one is not announced"
    one("impression", 1800 + 5401)
    assert one.step == "dormant", "but it takes effect"
    assert journey.actions[9] == ("offer_coupon", "show_list")


def test_conditions_count_what_the_session_held() -> None:
    one = One(parse_journey(OWN))
    for k in range(4):
        one("view", k, k + 1, category=k + 1)
    assert one.step == "hello"
    one("view", 4, 9)
    assert one.step == "lost"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            'start = "hello"',
            'start = "helo"',
            "start: there is no step 'helo'; did you mean 'hello'",
        ),
        ('lists = ["home"]', 'lists = ["hoem"]', "no list 'hoem'; did you mean 'home'"),
        ("on.view", "on.veiw", "steps.hello.on: there is no event 'veiw'; did you mean 'view'"),
        ("on.view", "on.timeout", "there is no event 'timeout'"),
        ("number = 9", "number = 7", "steps.keen.number: 7 is that of 'hello'"),
        ("number = 9", "number = 16", "steps.keen.number=16"),
        ("number = 9", "", "steps.keen.number: an own step needs one from 7 to 15"),
        ('"30 minutes"', '"30"', "timeouts.session_ended.after='30': must be a time such as"),
        ('since = "entry"', 'since = "now"', "timeouts.given_up.since='now'"),
        ("category_views", "category_view", "category_view=3: Extra inputs are not permitted"),
        ('to = "keen"', 'to = "ken"', "steps.hello.when.to: there is no step 'ken'"),
        ("[steps.lost]", "[steps.lost", "is not TOML"),
        ("[steps.dormant]", "[steps.dormant]\nnumber = 8", "dormant always has 6"),
    ],
)
def test_a_wrong_word_is_told_with_its_place_and_the_cure(old: str, new: str, told: str) -> None:
    assert old in OWN
    with pytest.raises(ConfigurationError) as caught:
        parse_journey(OWN.replace(old, new, 1))
    assert told in str(caught.value)


def test_time_alone_does_not_lead_in_circles() -> None:
    again = 'steps = ["dormant"]\nsince = "entry"\nafter = "1 hour"\nto = "lost"\n'
    with pytest.raises(ConfigurationError, match="time alone leads through more than"):
        parse_journey(f"{OWN}[timeouts.again]\n{again}")


def test_the_shipped_timeouts_come_one_after_the_other() -> None:
    after = SHIPPED.plan.timeouts["after_s"].tolist()
    assert all(a < b for a, b in pairwise(after[:4]))
    assert (SHIPPED.plan.timeouts["to"] != STAY).tolist() == [False, False, False, True, False]
