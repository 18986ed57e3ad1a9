"""STOCK: one batch of the ``sales`` topic into the demand of the items one partition owns.

decode → drop what was seen → load → learn → forecast → commit → publish demand:<item_id>, alerts
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.books import Books, decoded
from stream_app.codec import json_text
from stream_app.core.catalog import Catalog
from stream_app.core.demand import (
    ALERTS,
    DAY_S,
    UNSOLD,
    Mixture,
    add_sales,
    advance,
    cover_days,
    decode_demand,
    encode_demand,
    forecast,
    learn,
    learn_weekdays,
    new_demand,
    new_mixture,
    stock_alerts,
)
from stream_app.hashing import stable_hash
from stream_app.ports import (
    ACCOUNTS_ID,
    Claim,
    Commit,
    Log,
    PublicStore,
    RawBatch,
    Record,
    StateStore,
)
from stream_app.rejects import dead_letter
from stream_app.retrying import retrying
from stream_app.sales import SALE, Sales, decode_sales
from stream_app.settings import Settings

STOCK = "s"  # state space of demand, partitioned like the sales topic
RECHECK_MAX = 500  # items looked at again per commit after the catalog changed
WEEK_DAYS = 7

Floats = NDArray[np.float64]


class Meta(Books):
    """A sales partition's own state: counters, watermarks per source, and what was learned."""

    what = "demand partition"

    late: int = 0  # sales older than the ring of days: not counted
    day: int = -1  # of the latest sale, days since 1970
    loss: list[float] = msgspec.field(default_factory=list)
    sold: float = 0.0
    weekday: list[float] = msgspec.field(default_factory=list)
    watermarks: dict[int, int] = msgspec.field(default_factory=dict)

    def mixture(self) -> Mixture:
        """What the forecast has learned in this partition."""
        if not self.loss:
            return new_mixture()
        return Mixture(
            np.array(self.loss), np.array(self.sold), np.array(self.weekday), np.array(self.day)
        )

    def keep(self, mixture: Mixture) -> None:
        """Remember ``mixture``."""
        self.loss, self.sold = mixture.loss.tolist(), float(mixture.sold)
        self.weekday, self.day = mixture.weekday.tolist(), int(mixture.day)


class Told(msgspec.Struct):
    """The outbox: what a commit said about items, published after it."""

    values: list[tuple[str, bytes]] = []  # public keys and their JSON
    alerts: list[tuple[str, bytes]] = []  # item id, record


_pack = msgspec.msgpack.Encoder().encode
_unpack_told = msgspec.msgpack.Decoder(Told).decode


@dataclass(slots=True)
class Owned:
    """A sales partition this worker owns; ``seen_version`` is the catalog's, as last looked at."""

    claim: Claim
    cursor: int | None
    meta: Meta
    seen_version: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # a batch or a recheck, not both


class Stock:
    """The STOCK stage. One batch of a partition at a time; partitions may run side by side."""

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        public: PublicStore,
        log: Log,
        catalog: Catalog,
    ) -> None:
        self._settings = settings
        self._store = store
        self._public = public
        self._log = log
        self._catalog = catalog
        self.owned: dict[int, Owned] = {}

    async def process(self, batch: RawBatch) -> None:
        """Learn ``batch``; errors as for :meth:`stream_app.pipeline.Learn.process`."""
        owned = self.owned[batch.partition]
        async with owned.lock:
            await self._process(owned, batch.since(owned.cursor))

    async def _process(self, owned: Owned, batch: RawBatch) -> None:
        if owned.cursor is not None and batch.next_offset <= owned.cursor:
            return  # a redelivery of what is stored
        messages, rejects = decoded(batch, decode_sales)
        await dead_letter(self._log, self._settings.dead_letter_topic, batch, rejects)
        meta = msgspec.structs.replace(owned.meta, watermarks=dict(owned.meta.watermarks))
        sales = _unseen(messages, meta)
        names = {stable_hash(name): name for message in messages for name in message.names}
        ids = np.unique(sales["item"])
        days = np.floor(sales["ts"] / DAY_S).astype(np.int64)
        today = int(max(meta.day, days.max(initial=-1)))
        rows, texts = await self._load(batch.partition, ids, today, names)
        advance(rows, today)
        mixture = learn(rows, meta.mixture())
        at = np.searchsorted(ids, sales["item"]).astype(np.int64)
        meta.late += add_sales(rows, at, sales["units"], days)
        meta.keep(learn_weekdays(mixture, sales["units"], days))
        start = owned.cursor if owned.cursor is not None else 0
        meta.dead_lettered += len(rejects)
        meta.skipped += batch.next_offset - start - len(batch)
        await self._commit(owned, batch.next_offset, rows, texts, meta)

    async def _load(
        self, partition: int, ids: NDArray[np.uint64], day: int, names: dict[int, str]
    ) -> tuple[NDArray[np.void], list[str]]:
        """Demand of the items ``ids``, new where there is none yet."""
        keys = [key.tobytes() for key in ids]
        blobs = await retrying(
            lambda: self._store.load(STOCK, [partition] * len(keys), keys), "reading demand"
        )
        rows, texts = new_demand(ids, day), [names.get(key, "") for key in ids.tolist()]
        known = [k for k, blob in enumerate(blobs) if blob]
        stored, stored_names = decode_demand([blobs[k] or b"" for k in known])
        rows[known] = stored
        for k, name in zip(known, stored_names, strict=True):
            texts[k] = name
        return rows, texts

    async def _commit(
        self, owned: Owned, cursor: int, rows: NDArray[np.void], names: list[str], meta: Meta
    ) -> None:
        told = self._tell(rows, names, meta)
        step = Commit(
            owned.cursor,
            cursor,
            [
                *zip(
                    [key.tobytes() for key in rows["id"]],
                    encode_demand(rows, names),
                    strict=True,
                ),
                (ACCOUNTS_ID, meta.accounts(cursor)),
            ],
            meta.encode(),
            _pack(told),
        )
        await retrying(lambda: self._store.commit(owned.claim, step), "committing demand")
        owned.cursor, owned.meta = cursor, meta
        await self._publish(owned.claim.partition, told)

    def _tell(self, rows: NDArray[np.void], names: list[str], meta: Meta) -> Told:
        """Forecasts of the items, and alerts where an item's state of stock has changed."""
        if not len(rows):
            return Told()
        settings, mixture = self._settings, meta.mixture()
        level = settings.service_level
        week = forecast(rows, mixture, horizon_days=WEEK_DAYS, service_level=level)
        lead = forecast(
            rows, mixture, horizon_days=settings.lead_time_days, service_level=level
        ).upper
        target = forecast(
            rows,
            mixture,
            horizon_days=settings.lead_time_days + settings.review_days,
            service_level=level,
        ).upper
        at = self._catalog.rows(rows["id"])
        stock = np.where(at >= 0, self._catalog.stock[at], np.nan).astype(np.float64)
        alert = stock_alerts(stock, week.total, lead, overstock_days=settings.overstock_days)
        changed = alert != rows["alert"]
        rows["alert"], rows["stock"] = alert, stock
        cover = cover_days(stock, week.total)
        # Rounded first: a sum of daily shares is a hair above the whole number it means.
        suggested = np.ceil(np.maximum(np.nan_to_num(target - stock), 0.0).round(6))
        told = Told()
        for k, name in enumerate(names):
            text = _demand_json(
                name, int(rows["day"][k]), week.daily[k], week.upper[k], stock[k], cover[k]
            )
            told.values.append((f"demand:{name}", text))
            if changed[k]:
                kind = ALERTS[alert[k]]
                told.alerts.append((name, _alert_json(text, kind, suggested[k])))
        return told

    async def _publish(self, partition: int, told: Told) -> None:
        if told.values:
            await retrying(lambda: self._public.put_values(told.values), "writing demand")
        if told.alerts:
            records = [Record(name.encode(), text) for name, text in told.alerts]
            topic = self._settings.inventory_topic
            await retrying(lambda: self._log.send(topic, partition, records), f"sending to {topic}")

    async def assign(self, partition: int) -> int | None:
        """Claim a partition, finish what its last owner published; returns where to read on."""
        held = self.owned.get(partition)
        epoch_min = held.claim.epoch if held else 0
        claim = await retrying(
            lambda: self._store.claim(STOCK, partition, epoch_min=epoch_min), "claiming demand"
        )
        self.owned[partition] = Owned(claim, claim.cursor, Meta.decode(claim.meta))
        if claim.outbox:
            await self._publish(partition, _unpack_told(claim.outbox))
        return claim.cursor

    def revoke(self, partition: int) -> None:
        """Forget a partition that another worker owns now."""
        self.owned.pop(partition, None)

    async def refresh(self) -> None:
        """Look again at items whose stock was changed in the catalog, without a sale.

        Before the first sale in a partition there is no day to forecast from, and no cursor to
        commit: its items are looked at after that.
        """
        partitions = np.uint64(self._settings.cooccurrence_partitions)
        for partition, owned in list(self.owned.items()):
            if owned.cursor is None or owned.meta.day < 0:
                continue
            version = self._catalog.version
            changed = self._catalog.changed_since(owned.seen_version)
            ids = self._catalog.ids[changed]
            ids = np.unique(ids[(ids != 0) & (ids % partitions == np.uint64(partition))])
            for at in range(0, len(ids), RECHECK_MAX):
                async with owned.lock:
                    if self.owned.get(partition) is not owned:
                        break
                    await self._recheck(partition, owned, ids[at : at + RECHECK_MAX])
            owned.seen_version = version

    async def _recheck(self, partition: int, owned: Owned, ids: NDArray[np.uint64]) -> None:
        """Alerts of items that sold before, or are out of stock; the cursor stays where it is."""
        assert owned.cursor is not None
        rows, names = await self._load(partition, ids, owned.meta.day, {})
        at = self._catalog.rows(rows["id"])
        stock = np.where(at >= 0, self._catalog.stock[at], np.nan).astype(np.float32)
        same = (stock == rows["stock"]) | (np.isnan(stock) & np.isnan(rows["stock"]))
        for k in np.flatnonzero(stock <= 0.0).tolist():
            if not names[k]:  # it never sold, perhaps because it is not there
                names[k], rows["first_day"][k] = self._catalog.texts(at[k]).item_id, UNSOLD
        use = np.flatnonzero([bool(name) for name in names] & ~same)
        if not len(use):
            return
        advance(rows, owned.meta.day)
        rows, names = rows[use], [names[k] for k in use.tolist()]
        await self._commit(owned, owned.cursor, rows, names, owned.meta)


def _demand_json(
    name: str, day: int, daily: Floats, upper: float, stock: float, cover: float
) -> bytes:
    value: dict[str, object] = {
        "item_id": orjson.Fragment(json_text(name)),
        "from": np.datetime_as_string(np.datetime64(day, "D")),
        "forecast_7d": round(float(daily.sum()), 2),
        "upper_7d": round(float(upper), 2),
        "daily": [round(float(units), 3) for units in daily],
    }
    if np.isfinite(stock):
        value["stock"] = round(float(stock), 2)
        value["days_of_cover"] = round(float(cover), 1) if np.isfinite(cover) else None
    return orjson.dumps(value)


def _alert_json(demand: bytes, kind: str, suggested: float) -> bytes:
    wanted = float(suggested) if kind in ("low_stock", "out_of_stock") else 0.0
    extra = b'{"alert":%b,"suggested_quantity":%d,' % (json_text(kind), int(wanted))
    return extra + demand[1:]


def _unseen(messages: Sequence[Sales], meta: Meta) -> NDArray[np.void]:
    """Rows above the watermarks, which they raise: a republished or replayed batch adds nothing."""
    fresh = []
    for message in messages:
        seen = meta.watermarks.get(message.source_partition, -1)
        rows = message.rows[message.rows["offset"] > seen]
        if len(rows):
            meta.watermarks[message.source_partition] = int(rows["offset"].max())
            meta.applied += 1
            fresh.append(rows)
        else:
            meta.repeated += 1
    return np.concatenate(fresh) if fresh else np.zeros(0, SALE)
