"""What predictions, segments, decisions and feedback keep: per customer, and per partition.

Customers' fields are spliced into :data:`stream_app.core.state.USER`, the partition's record is its
field ``insight``. Neither has padding: blobs must be reproducible.
"""

import numpy as np

from stream_app.core.moments import CLASSES, CODES_MAX, FEATURES_N, SLOTS_N, STEPS_SHOWN
from stream_app.core.prequential import BUCKETS_N, GAUGES_N

HEADS = ("purchase_in_session", "purchase_in_week", "churn")
IN_SESSION, IN_WEEK, CHURN = range(3)
GAUGED = (*HEADS, "next_event")  # what has a row of prequential measures
NEXT_EVENT = 3
CONTEXT_N = 6  # numbers that a decision depends on
ARMS_MAX = 16  # actions, each promotion an action of its own
OFFERS_MAX = 8  # remembered per customer, for caps
CREDITS_MAX = 4  # clicks on our lists remembered per customer, for conversions
SEGMENTS_MAX = 8
PLACE_N = 16  # numbers that a customer's place among the segments depends on
ROWS_MAX = 96  # of feedback counters: lists, steps, sources, segments, variants
COUNTS_N = 4  # impressions, clicks, carts, purchases
EXPERIMENTS_MAX, VARIANTS_MAX, SUMS_N = 4, 4, 6
NO_SEGMENT = 255
MARKETING, PERSONAL = 1, 2  # bits of ``refused``: no promotions, no personal decisions at all

# Sizes: 104 bytes of every customer in memory.
USER_FIELDS: list[tuple[str, str]] = [
    ("add_ts", "u4"),  # of the last add_to_cart
    ("absence_s", "f4"),  # between the session before and this one
    ("pause_s", "f4"),  # before the last event
    ("price_level", "f4"),  # mean log price looked at
    ("p_session", "f4"),  # predictions as of the last event, in the order of HEADS
    ("p_week", "f4"),
    ("p_churn", "f4"),
    ("order_value", "f4"),  # expected, should there be a purchase in the session
    ("moment_p", "f4"),  # the session's sampled moment: what was predicted,
    ("moment_value", "f4"),  # and bought since
    ("logged_reward", "f4"),  # earned since the session's sampled decision,
    ("logged_propensity", "f4"),  # which had been drawn with this chance
    ("week_p", "f4"),
    ("week_ts", "u4"),
    ("ripe_p", "f4"),
    ("ripe_ts", "u4"),
    ("action_ts", "u4"),
    ("action_propensity", "f4"),
    ("action_value", "f4"),
    ("session_value", "f4"),  # bought in the session
    ("query_n", "u1"),  # words of the session's last search, see core.state
    ("reserved_insight", "u1"),
    ("reserved_insight_2", "u2"),
    ("session_moves", "u2"),  # events in the session that say what the customer does
    ("moment_n", "u2"),  # moments that the sampled one stands for
    ("week_n", "u2"),
    ("ripe_n", "u2"),
    ("last_class", "u1"),
    ("session_adds", "u1"),
    ("session_open", "u1"),
    ("moment_bought", "u1"),
    ("week_bought", "u1"),
    ("ripe_bought", "u1"),
    ("churned", "u1"),  # the label of the last session is known
    ("price_n", "u1"),
    ("segment", "u1"),  # number + 1, 0 before the first session has ended
    ("action", "u1"),  # arm + 1, 0 = none yet
    ("logged_action", "u1"),
    ("refused", "u1"),  # consent withdrawn: bits MARKETING, PERSONAL
]
# Stored as far as they are filled; 24 codes or none, so the counts also say "pending".
USER_ARRAYS: list[tuple[str, str, tuple[int]]] = [
    ("credit_item", "u8", (CREDITS_MAX,)),
    ("context", "f4", (CONTEXT_N,)),  # of the sampled decision
    ("offer_ts", "u4", (OFFERS_MAX,)),
    ("moment_codes", "u1", (CODES_MAX,)),
    ("week_codes", "u1", (CODES_MAX,)),
    ("ripe_codes", "u1", (CODES_MAX,)),
    ("offer_arm", "u1", (OFFERS_MAX,)),
    ("credit_list", "u1", (CREDITS_MAX,)),
    ("credit_source", "u1", (CREDITS_MAX,)),
]
USER_COUNTS = {
    "credit_item": "credit_n",
    "credit_list": "credit_n",
    "credit_source": "credit_n",
    "context": "context_n",
    "offer_ts": "offer_n",
    "offer_arm": "offer_n",
    "moment_codes": "moment_on",
    "week_codes": "week_on",
    "ripe_codes": "ripe_on",
}
USER_COUNTERS: list[tuple[str, str]] = [
    ("credit_n", "u1"),
    ("context_n", "u1"),
    ("offer_n", "u1"),
    ("moment_on", "u1"),
    ("week_on", "u1"),
    ("ripe_on", "u1"),
    ("decisions_n", "u1"),  # in the session
    ("last_kind", "u1"),
]

# Every field of a customer that depends on what the partition has learned, and on when.
USER_NAMES = (
    *(name for name, _ in USER_FIELDS + USER_COUNTERS if name != "query_n"),
    *(name for name, _, _ in USER_ARRAYS),
    "action_step",
    "exposed",
    "session_bought",
)

INSIGHT_SCHEMA = 1
_CLASSES_N = len(CLASSES)

INSIGHT = np.dtype(
    [
        ("schema", "i8"),
        ("gauges", "f8", (len(GAUGED), GAUGES_N)),
        ("buckets", "f8", (len(GAUGED), BUCKETS_N, 3)),
        # expected order value: orders, mean, squared error, the same of the mean, absolute error
        ("value", "f8", (8,)),
        ("price", "f8", (4,)),  # seen, mean and variance of log prices; one spare
        ("segment_n", "f8", (SEGMENTS_MAX,)),
        ("segment_quality", "f8", (4,)),  # placed, mean distance to own, to next, silhouette
        ("arms", "f8", (ARMS_MAX, 6)),  # resolved, reward, its square, 1/p, reward/p, chosen
        ("reward", "f8", (4,)),  # decisions resolved, mean, mean of squares, mean order reward
        ("budget", "f8", (ARMS_MAX + 1,)),  # chosen on the day in the last column
        ("feedback", "f8", (ROWS_MAX, COUNTS_N)),
        ("experiments", "f8", (EXPERIMENTS_MAX, VARIANTS_MAX, SUMS_N)),
        ("belief_mean", "f4", (len(HEADS), SLOTS_N)),
        ("belief_variance", "f4", (len(HEADS), SLOTS_N)),
        ("value_weight", "f4", (SLOTS_N,)),
        ("value_square", "f4", (SLOTS_N,)),
        ("next", "f4", (STEPS_SHOWN, _CLASSES_N, _CLASSES_N)),
        ("next_any", "f4", (_CLASSES_N, _CLASSES_N)),
        ("segment_centre", "f4", (SEGMENTS_MAX, PLACE_N)),
        ("place_mean", "f4", (PLACE_N,)),
        ("place_variance", "f4", (PLACE_N,)),
        ("arm_inverse", "f4", (ARMS_MAX, CONTEXT_N, CONTEXT_N)),
        ("arm_sum", "f4", (ARMS_MAX, CONTEXT_N)),
    ]
)
assert INSIGHT.itemsize % 8 == 0


def new_insight() -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """A ``(1,) INSIGHT`` record that knows nothing."""
    insight = np.zeros(1, INSIGHT)
    start_insight(insight)
    return insight


def start_insight(insight: np.ndarray[tuple[int], np.dtype[np.void]]) -> None:
    """Set prior beliefs in a zeroed ``(1,) INSIGHT``, in place."""
    insight["schema"] = INSIGHT_SCHEMA
    insight["belief_variance"] = 4.0 / FEATURES_N  # log odds of standard deviation 2
    insight["arm_inverse"] = np.eye(CONTEXT_N, dtype=np.float32)
