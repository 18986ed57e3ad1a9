"""Ids of customers in decoded events become pseudonyms. Called by the decoder, where a key is set.

Behind it nobody sees an id: state, keys, topics and logs have the pseudonyms alone.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.core.model import INTERNAL
from stream_app.hashing import customer_id, public_name
from stream_app.pseudonyms import Pseudonyms
from stream_app.wire import Event
from stream_app.wire_columns import text_of

_INTERNAL = frozenset(INTERNAL)


class Aliases(NamedTuple):
    """What the decoder knows of a batch's customers besides their pseudonyms.

    ``formers`` are their public names under the former key by event, empty for records of our own;
    none at all without such a key. ``session_keys`` are the keys that decide the partition of
    events of sessions, by pseudonym: producers know nothing of pseudonyms.
    """

    formers: Sequence[str] = ()
    session_keys: Mapping[str, bytes] = {}

    def former_ids(self) -> NDArray[np.uint64] | None:
        """``(n,)`` ids of the former names, 0 for none; ``None`` without a former key."""
        if not self.formers:
            return None
        ids = [customer_id(name) if name else 0 for name in self.formers]
        return np.array(ids, np.uint64)


NO_ALIASES = Aliases()


def aliased(
    parsed: Sequence[Event], rows: Sequence[int], pseudonyms: Pseudonyms
) -> tuple[list[Event], list[int], Aliases]:
    """The events under pseudonyms, changed in place, with the rows of their records.

    Our own records have them already. An erasure is also one of who the customer was before the
    key was changed: a second event of the same record.
    """
    events: list[Event] = []
    of: list[int] = []
    formers: list[str] = []
    keys: dict[str, bytes] = {}
    for event, row in zip(parsed, rows, strict=True):
        events.append(event)
        of.append(row)
        if event.event in _INTERNAL:
            formers.append("")
            continue
        anonymous = event.user_id is None
        text = text_of(event.session_id if anonymous else event.user_id)
        if event.session_id is not None:
            session = text_of(event.session_id)
            event.session_id = pseudonyms.of(session, anonymous=True)
            keys[event.session_id] = session.encode("utf-8", "surrogatepass")
        if not anonymous:
            event.user_id = pseudonyms.of(text, anonymous=False)
        if not pseudonyms.rotating:
            continue
        before = pseudonyms.of(text, anonymous=anonymous, former=True)
        formers.append(public_name(before, anonymous=anonymous))
        if event.event == "erase":
            who = {"session_id": before} if anonymous else {"user_id": before}
            events.append(msgspec.structs.replace(event, **who))
            of.append(row)
            formers.append("")
    return events, of, Aliases(formers if pseudonyms.rotating else (), keys)
