"""Rows of CSV as the Retailrocket data set has them.

Columns: ``timestamp,visitorid,event,itemid,transactionid``. Times are milliseconds; the
transaction's id is empty but for purchases.
"""

from stream_app.errors import EventRejected
from stream_app.formats.common import Ignored, kind_of
from stream_app.wire import Event

RETAILROCKET_NAMES = {"view": "view", "addtocart": "add_to_cart", "transaction": "purchase"}
HEADER = "timestamp"
_COLUMNS = 5


def retailrocket_events(value: bytes) -> list[Event]:
    """The event of one row; raises ``Ignored`` or ``EventRejected``.

    >>> retailrocket_events(b"1433221332117,257597,view,355908,")[0].ts
    1433221332.117
    """
    try:
        row = value.decode().strip().split(",")
    except UnicodeDecodeError as exc:
        raise EventRejected("not_utf8", str(exc)) from exc
    if row[0] == HEADER:
        raise Ignored("(header)")
    if len(row) != _COLUMNS:
        raise EventRejected("wrong_type", f"{len(row)} columns, not {_COLUMNS}")
    time, visitor, name, item, transaction = (field.strip() for field in row)
    kind = kind_of(RETAILROCKET_NAMES, name)
    if not time.isdecimal():
        raise EventRejected("wrong_type", f"timestamp {time[:50]!r} is not in milliseconds")
    return [
        Event(
            event=kind,
            ts=int(time) / 1000.0,
            user_id=visitor or None,
            item_id=item or None,
            event_id=f"{transaction}.{item}" if transaction else None,
        )
    ]
