"""How fast one customer may come: what is above it is set aside, and spoils no counts.

The generic cell rate algorithm (ITU-T I.371, 1993) in event time: per limit, state keeps when the
events so far would have come at the highest rate. A burst as large as the limit passes at once.
Nothing is lost for good: the events stay in the log, and a recompute with other limits counts them.
"""

from typing import Any

from stream_app.core.jit import kernel
from stream_app.core.model import Model

MINUTE_S, DAY_S = 60.0, 86_400.0


@kernel
def is_too_fast(user: Any, ts: float, model: Model) -> bool:
    """Whether one more event at ``ts`` is above a limit; if not, it is counted.

    Late events count at the customer's latest time, or a bot could come as from long ago.
    """
    now = max(ts, user.last_ts)
    minute, day = max(user.minute_paced, now), max(user.day_paced, now)
    by_minute, by_day = model.minute_events_max, model.day_events_max
    if by_minute > 0.0 and minute - now > MINUTE_S - MINUTE_S / by_minute:
        return True
    if by_day > 0.0 and day - now > DAY_S - DAY_S / by_day:
        return True
    if by_minute > 0.0:
        user.minute_paced = minute + MINUTE_S / by_minute
    if by_day > 0.0:
        user.day_paced = day + DAY_S / by_day
    return False
