"""Names, kinds and parameters of the model. Read by every stage; knows nothing of time or place."""

from typing import NamedTuple

import numpy as np

KINDS = (
    "impression",
    "search",
    "view",
    "click",
    "add_to_cart",
    "remove_from_cart",
    "wishlist",
    "begin_checkout",
    "purchase",
    "refund",
    "rate",
    "review",
    "share",
    "support",
    "erase",  # forget the customer; sent by the erase command
    # Internal records: this application sends them to itself, through the log, so that a replay
    # repeats them. They are believed only as far as the customer's state bears them out.
    "timeout",  # a journey timer of the customer has run out
    "refresh",  # rank anew, nothing happened
    "link",  # an anonymous session belongs to a known customer: hand its state over
    "merge",  # the state of an anonymous session, for the known customer
)
INTERNAL = KINDS[-4:]
KIND = {name: number for number, name in enumerate(KINDS)}

# How much one event says about what belongs together; 0 = says nothing, negative = takes back.
KIND_WEIGHTS = np.array(
    [
        0.0,  # impression: shown, not chosen
        0.0,  # search
        1.0,  # view
        1.0,  # click
        2.0,  # add_to_cart
        -2.0,  # remove_from_cart takes back the add_to_cart
        1.5,  # wishlist
        0.0,  # begin_checkout
        3.0,  # purchase
        -3.0,  # refund takes back the purchase
        1.5,  # rate
        1.5,  # review
        1.5,  # share
        0.0,  # support
        0.0,  # erase
        0.0,  # timeout
        0.0,  # refresh
        0.0,  # link
        0.0,  # merge: what it brings was learned when it happened
    ]
)

DEVICE = 2  # an anonymous customer whose session id is a device's; of any other session it is 1

PREVIOUS_MAX = 3  # an event forms pairs with this many events before it
CONTEXT_MAX = 6  # distinct recent items that candidates are drawn from
RING_MAX = 16  # recent item events kept per customer
SEEN_MAX = 16  # recent event ids kept per customer, for de-duplication
VECTOR_MAX = 12  # entries of the sparse user vector
SEGMENTS_OF_EVENT = 2  # channel and region
CART_MAX = 10
BOUGHT_MAX = 200  # bought items kept per customer: what the filter of bought ones knows
BOUGHT_DRAWN = 10  # of them, the last, that lists are drawn from
QUERY_MAX = 8  # words of a search that are kept
STEPS_MAX = 16  # steps of a journey


class Model(NamedTuple):
    """Global parameters. A NamedTuple, because kernels take it as it is.

    Times are in seconds of event time; ``*_max`` are table sizes.
    """

    session_gap_s: float = 1800.0
    minute_events_max: float = 0.0  # of one customer, in a minute and a day; 0 = no limit
    day_events_max: float = 0.0
    pair_half_life_s: float = 21 * 86400.0
    popularity_half_life_s: float = 2 * 86400.0 * 0.6931471805599453
    vector_half_life_s: float = 30 * 86400.0
    trend_short_s: float = 3600.0  # half-lives: what is asked for now, and usually
    trend_long_s: float = 86400.0
    churn_after_s: float = 30 * 86400.0  # without a session: gone
    segments_n: int = 8  # clusters of customers; at most insight_fields.SEGMENTS_MAX
    thin_moves: float = 10.0  # decayed moves to another item, below which counts know too little
    distance_power: float = 1.5
    pair_gap_s: float = 60.0  # a pair so long apart counts 1/sqrt(2) of one at once
    neighbours_max: int = 50
    context_decay: float = 0.9
    two_hop_max: int = 30
    popular_max: int = 30
    repeat_prior: float = 30.0
    mass_prior: float = 0.3
    hub_power: float = 0.3  # how much a well-known item on the way counts less, two hops
    found_prior: float = 5.0  # moves that found_rate stands for
    found_rate: float = 0.02
    blend_share: float = 1.75  # what one of full confidence gives to the blend
    return_share: float = 0.5  # of the blend, beside the probability of coming back
    weight_direct: float = 2.0
    weight_two_hop: float = 12.0
    weight_forward: float = 2.5
    weight_popular: float = 3.0
    weight_content: float = 1.0
    weight_embedding: float = 1.0
    weight_user_knn: float = 1.0
    weight_segment: float = 0.5
    weight_trending: float = 0.5
    weight_jaccard: float = 1.0


GAP_MAX_S = 65_535  # longer gaps between two items of a session count as this
LANDMARK_HALF_LIVES = 16  # a landmark moves by whole half-lives: rescaling by 2**-16 is exact
