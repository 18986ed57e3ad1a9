"""PROFILE: a batch of the users topic (JSON, key ``user_id``) into the audience in memory."""

from collections.abc import Set
from dataclasses import replace

import msgspec
import numpy as np

from stream_app.catalog_wire import Scalar, attribute_texts, decode_keyed, texts
from stream_app.core.audience import ALL_CONSENT, ANALYSE, EMAIL, PERSONALISE, Audience, Customer
from stream_app.errors import EventRejected
from stream_app.events import Reject
from stream_app.hashing import stable_hash
from stream_app.ports import RawBatch
from stream_app.pseudonyms import load_pseudonyms
from stream_app.settings import Settings

CONSENTS = {"personalization": PERSONALISE, "email": EMAIL, "analytics": ANALYSE}
ALL_ATTRIBUTES = "*"
DESCRIBED_BYTES_MAX = 4_096  # of one customer, in every profile of theirs


class UserRecord(msgspec.Struct):
    """One customer on the wire. ``consent`` maps a purpose to false where it is denied."""

    user_id: str | int | None = None
    region: str | None = None
    channel: str | None = None
    language: str | None = None
    tags: str | list[str] | None = None
    attributes: dict[str, Scalar | list[Scalar]] | None = None
    consent: dict[str, bool] | None = None
    deleted: bool | None = None


_decode = msgspec.json.Decoder(UserRecord).decode


def decode_user(
    key: bytes | None,
    value: bytes | None,
    *,
    chars_max: int,
    attributes: Set[str] = frozenset(),
) -> tuple[str, Customer | None]:
    """Id and customer of a record, ``None`` for one that deletes.

    Of their attributes only those named in ``attributes`` are kept. Raises
    :class:`~stream_app.errors.EventRejected` as for items of the catalog.

    >>> _, anna = decode_user(b"anna", b'{"consent":{"email":false}}', chars_max=9)
    >>> anna.consent & EMAIL, anna.consent & PERSONALISE
    (0, 1)
    """
    user_id, record = decode_keyed(_decode, "user_id", key, value, chars_max=chars_max)
    if record is None:
        return user_id, None
    denied = 0
    for purpose, given in (record.consent or {}).items():
        denied |= 0 if given else CONSENTS.get(purpose, 0)
    return user_id, Customer(
        user_id,
        region=record.region or "",
        channel=record.channel or "",
        language=record.language or "",
        consent=ALL_CONSENT & ~denied,
        described=_described(record, attributes),
    )


def _described(record: UserRecord, wanted: Set[str]) -> bytes:
    """Members of a JSON object for the customer's profile; empty when there is nothing to say.

    >>> _described(UserRecord(tags="vip, b2b", attributes={"tier": "gold", "age": 7}), {"tier"})
    b'"tags":["vip","b2b"],"attributes":{"tier":"gold"}'
    """
    everything = ALL_ATTRIBUTES in wanted
    kept = {n: v for n, v in (record.attributes or {}).items() if everything or n in wanted}
    said = {
        "region": record.region,
        "channel": record.channel,
        "language": record.language,
        "tags": texts(record.tags, ","),
        "attributes": attribute_texts(kept),
    }
    members, room = [], DESCRIBED_BYTES_MAX
    for name, value in said.items():
        member = msgspec.json.encode({name: value})[1:-1]
        if value and len(member) < room:  # one that is too long is left out, not cut
            members.append(member)
            room -= len(member) + 1
    return b",".join(members)


class AudienceStage:
    """Keeps ``audience`` as the users topic says."""

    def __init__(self, audience: Audience, settings: Settings) -> None:
        self.audience = audience
        self._chars_max = settings.id_chars_max
        self._attributes = frozenset(
            name.strip() for name in settings.profile_attributes.split(",")
        )
        self._pseudonyms = load_pseudonyms(settings.pseudonym_key_file)

    def apply(self, batch: RawBatch) -> list[Reject]:
        """Apply a batch of one partition; returns what is wrong with its bad records."""
        latest: dict[str, tuple[int, Customer | None]] = {}
        rejects: list[Reject] = []
        for row, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            try:
                user_id, customer = decode_user(
                    key, value, chars_max=self._chars_max, attributes=self._attributes
                )
            except EventRejected as exc:
                rejects.append(Reject(row, exc.reason, exc.detail))
            else:
                if self._pseudonyms is not None:
                    user_id = self._pseudonyms.of(user_id, anonymous=False)
                    customer = customer and replace(customer, user_id=user_id)
                latest[user_id] = row, customer
        gone = [stable_hash(user_id) for user_id, (_, said) in latest.items() if said is None]
        self.audience.delete(np.array(gone, np.uint64))
        known = [(row, customer) for row, customer in latest.values() if customer is not None]
        rows = self.audience.upsert([customer for _, customer in known])
        for (row, customer), at in zip(known, rows.tolist(), strict=True):
            if at < 0:
                detail = f"customer {customer.user_id!r} is left out: raise STREAM_APP_USERS_MAX"
                rejects.append(Reject(row, "no_room", detail))
        return sorted(rejects)
