"""Read what the worker publishes: a small typed client for storefronts, on any Redis client.

    from redis import Redis
    from stream_app.reader import Reader

    reader = Reader(Redis())
    answer = reader.recommend("ada", "home", item_id="sku-1")

Needs nothing of the worker; :class:`Newest` drops outdated records when following the topic.
"""

from stream_app.pseudonyms import Pseudonyms, load_pseudonyms
from stream_app.reader.client import Answer, AsyncReader, Reader
from stream_app.reader.following import Newest
from stream_app.reader.records import (
    Affinity,
    DeadLetter,
    Decision,
    Entry,
    PriceAffinity,
    Profile,
    Reason,
    Recommendations,
    Source,
    UnreadableRecord,
    decode_entries,
    decode_profile,
    decode_recommendations,
)
from stream_app.reader.signals import (
    Aggregates,
    Demand,
    InventoryAlert,
    ItemCount,
    RuleChange,
    SupportAnswer,
    SupportAssist,
    decode_aggregates,
    decode_alert,
    decode_assist,
    decode_demand,
)

__all__ = [
    "Affinity",
    "Aggregates",
    "Answer",
    "AsyncReader",
    "DeadLetter",
    "Decision",
    "Demand",
    "Entry",
    "InventoryAlert",
    "ItemCount",
    "Newest",
    "PriceAffinity",
    "Profile",
    "Pseudonyms",
    "Reader",
    "Reason",
    "Recommendations",
    "RuleChange",
    "Source",
    "SupportAnswer",
    "SupportAssist",
    "UnreadableRecord",
    "decode_aggregates",
    "decode_alert",
    "decode_assist",
    "decode_demand",
    "decode_entries",
    "decode_profile",
    "decode_recommendations",
    "load_pseudonyms",
]
