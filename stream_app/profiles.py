"""A customer's profile, read from their state."""

from typing import Any

from stream_app.core.journey import STEPS


def profile_of(user: Any) -> dict[str, Any]:
    """Recency, frequency, monetary value and journey of one ``USER`` record.

    Times are unix seconds; items are counted, not named: their ids are hashes in the state.
    """
    return {
        "anonymous": bool(user["anonymous"]),
        "step": STEPS[int(user["step"])],
        "previous_step": STEPS[int(user["previous_step"])],
        "entered_at": float(user["entered_at"]),
        "last_seen": float(user["last_ts"]),
        "session_start": float(user["session_start"]),
        "events": int(user["events"]),
        "sessions": int(user["sessions"]),
        "purchases": int(user["purchases"]),
        "monetary": round(float(user["monetary"]), 2),
        "cart_items": int(user["cart_n"]),
        "bought_items": int(user["bought_n"]),
        "recent_items": int(user["ring_n"]),
        "vector": [
            round(float(weight), 4) for weight in user["vector_weight"][: int(user["vector_n"])]
        ],
    }
