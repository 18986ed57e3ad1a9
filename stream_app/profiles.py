"""Customers' profiles, read from their states: what ``profile:<user_id>`` holds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream_app.codec import json_text
from stream_app.core.segments import RFM_LABELS, rfm_labels

_TEMPLATE = (
    b'{"user_id":%b,"anonymous":%b,"step":%b,"previous_step":%b,"entered_at":%.3f,'
    b'"last_seen":%.3f,"session_start":%.3f,"events":%d,"sessions":%d,"purchases":%d,'
    b'"monetary":%.2f,"cart_items":%d,"bought_items":%d,"recent_items":%d,'
    b'"purchase_in_session":%.4f,"purchase_in_week":%.4f,"churn":%.4f,"order_value":%.2f,'
    b'"cluster":%d,"value_segment":"%b"}'
)
_NUMBERS = (
    "entered_at",
    "last_ts",
    "session_start",
    "events",
    "sessions",
    "purchases",
    "monetary",
    "cart_n",
    "bought_n",
    "ring_n",
    "p_session",
    "p_week",
    "p_churn",
    "order_value",
    "segment",
)


def profiles_json(
    users: NDArray[np.void], customers: Sequence[str], steps: Sequence[str]
) -> list[bytes]:
    """JSON profiles of ``(n,) USER`` records: value, journey and predictions.

    ``steps`` are the names of the journey's steps by number.

    Times are unix seconds; items are counted, not named: their ids are hashes in the state.
    """
    names = [json_text(step) for step in steps]
    labels = [RFM_LABELS[k].encode() for k in rfm_labels(users, users["last_ts"]).tolist()]
    return [
        _TEMPLATE
        % (
            json_text(customer),
            b"true" if anonymous else b"false",
            names[step],
            names[previous],
            *numbers,
            label,
        )
        for customer, label, anonymous, step, previous, *numbers in zip(
            customers,
            labels,
            users["anonymous"].tolist(),
            users["step"].tolist(),
            users["previous_step"].tolist(),
            *(users[name].tolist() for name in _NUMBERS),
            strict=True,
        )
    ]
