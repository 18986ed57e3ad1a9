"""Records of state as schema 1 stored them, for the migration in :mod:`stream_app.core.state`.

Never changed again: the numbers are those of the blobs that lie in stores.
"""

import numpy as np

USER_1 = np.dtype(
    [
        ("schema", "u1"),
        ("step", "u1"),
        ("previous_step", "u1"),
        ("ring_n", "u1"),
        ("session_n", "u1"),
        ("seen_n", "u1"),
        ("vector_n", "u1"),
        ("cart_n", "u1"),
        ("bought_n", "u1"),
        ("anonymous", "u1"),
        ("session_events", "u2"),
        ("session", "u4"),
        ("events", "u4"),
        ("sessions", "u4"),
        ("purchases", "u4"),
        ("monetary", "f4"),
        ("id", "u8"),
        ("offset", "i8"),
        ("last_ts", "f8"),
        ("session_start", "f8"),
        ("entered_at", "f8"),
        ("ring_item", "u8", (16,)),
        ("cart_item", "u8", (10,)),
        ("bought_item", "u8", (10,)),
        ("vector_item", "u8", (12,)),
        ("vector_weight", "f4", (12,)),
        ("ring_ts", "u4", (16,)),
        ("seen", "u4", (16,)),
        ("ring_kind", "u1", (16,)),
    ],
    align=True,
)

PARTITION_1 = np.dtype(
    [
        ("schema", "u1"),
        ("reserved", "u1", (7,)),
        ("applied", "i8"),
        ("rejected", "i8"),
        ("dead_lettered", "i8"),
        ("skipped", "i8"),
        ("transitions", "f8"),
        ("repeats", "f8"),
        ("revisit_weights", "f4", (371,)),
        ("revisit_squares", "f4", (371,)),
        ("step_counts", "f8", (7, 7)),
    ],
    align=True,
)
