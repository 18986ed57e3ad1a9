"""Rows to JSON bytes. Every field is looked up in a table of finished fragments, none formatted."""

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.simulator.catalog import Catalog
from stream_app.simulator.customers import Customers
from stream_app.simulator.dirt import DIRT, lateness_s, soil
from stream_app.simulator.wire import FRAGMENTS
from stream_app.simulator.words import BRANDS, CHANNELS

Objects = NDArray[np.object_]
low_bits = 12


def _table(fragments: list[bytes]) -> Objects:
    table = np.empty(len(fragments), object)
    table[:] = fragments
    return table


def _looked_up(numbers: NDArray[np.int64], template: bytes) -> list[bytes]:
    """``template % number`` for each, formatting each distinct number once."""
    distinct, which = np.unique(numbers, return_inverse=True)
    fragments: list[bytes] = _table([template % n for n in distinct.tolist()])[which].tolist()
    return fragments


class Renderer:
    """Turns rows into (key, value) records. Holds the fragments of one shop."""

    def __init__(self, catalog: Catalog, customers: Customers, seed: int) -> None:
        self._head = b'{"event_id":"%x-' % seed
        self._what = _table([b'",' + fragment for fragment in FRAGMENTS])
        self._channel = _table([f',"channel":"{channel}"'.encode() for channel in CHANNELS])
        self._user = _table([b',"user_id":"u%d"' % who for who in range(len(customers))] + [b""])
        self._key = _table([b"u%d" % who for who in range(len(customers))] + [b""])
        plain, detailed = [], []
        for item in range(len(catalog)):
            record = {"item_id": catalog.ids[item], "price": float(catalog.price[item])}
            plain.append(b"," + orjson.dumps(record)[1:-1] + b',"ts":')
            record |= {
                "category": catalog.path(item),
                "brand": BRANDS[catalog.brand[item]],
                "title": catalog.titles[item],
            }
            detailed.append(b"," + orjson.dumps(record)[1:-1] + b',"ts":')
        self._item = _table([*plain, *detailed, b',"ts":'])
        digits = range(1 << low_bits)
        self._low = _table([b"%03x" % low for low in digits])
        self._low_quoted = _table([b'%03x"' % low for low in digits])
        self._millis = _table([b".%03d}" % ms for ms in range(1000)])

    def records(self, rows: NDArray[np.void], ts: NDArray[np.float64]) -> list[tuple[bytes, bytes]]:
        """(key, JSON) of each row, happening at ``ts`` ``(n,)`` unix seconds."""
        millis = np.rint((ts - lateness_s(rows)) * 1000.0).astype(np.int64)
        mask = (1 << low_bits) - 1
        nobody = len(self._user) - 1
        who = np.where(rows["known"], rows["who"], nobody)
        n_items = (len(self._item) - 1) // 2
        item = rows["item"] + n_items * rows["detail"]
        session, seq = rows["session"], rows["seq"]
        session_high = _looked_up(session >> low_bits, b',"session_id":"s%x')
        session_low = self._low_quoted[session & mask].tolist()
        columns = (
            _looked_up(seq >> low_bits, self._head + b"%x"),
            self._low[seq & mask].tolist(),
            self._what[rows["what"]].tolist(),
            self._user[who].tolist(),
            session_high,
            session_low,
            self._channel[rows["channel"]].tolist(),
            self._item[item].tolist(),
            _looked_up(millis // 1000, b"%d"),
            self._millis[millis % 1000].tolist(),
        )
        values = list(map(b"".join, zip(*columns, strict=True)))
        keys = self._key[who].tolist()
        for i in np.flatnonzero(~rows["known"]).tolist():
            keys[i] = session_high[i][15:] + session_low[i][:-1]
        for i in np.flatnonzero(rows["dirt"]).tolist():
            values[i] = soil(DIRT[rows["dirt"][i] - 1], values[i], int(seq[i]))
        return list(zip(keys, values, strict=True))
