"""Put the stages together over given adapters: the worker's way and replay's way are this one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.admission import Admission
from stream_app.audience import AudienceStage
from stream_app.candidates import Candidates
from stream_app.cataloging import Cataloging
from stream_app.core.audience import EMAIL, PERSONALISE, Audience
from stream_app.core.catalog import Catalog
from stream_app.core.insight_fields import MARKETING, PERSONAL
from stream_app.core.merchandising import Merchandise
from stream_app.core.model import Model
from stream_app.core.permitted import Permitted
from stream_app.core.tables import ItemTables
from stream_app.decisions import load_decisions
from stream_app.following import Apply, Follower
from stream_app.items import ItemReader
from stream_app.journeys import load_journey
from stream_app.model_file import load_model
from stream_app.offers import Offers
from stream_app.pipeline import Learn
from stream_app.ports import Log, PublicKeys, StateStore
from stream_app.profiles import Profiles
from stream_app.publishing import Publisher
from stream_app.relating import Relate
from stream_app.rule_records import read_rules
from stream_app.ruling import Ruling
from stream_app.settings import Settings
from stream_app.stocking import Stock
from stream_app.suppression import Suppression
from stream_app.telemetry import SILENT, Telemetry
from stream_app.withdrawing import Withdraw


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of a worker, the item tables they share, and the topics read whole."""

    learn: Learn
    relate: Relate
    stock: Stock
    items: ItemReader
    catalog: Catalog
    audience: Audience
    withdraw: Withdraw
    merchandise: Merchandise
    ruling: Ruling
    followers: tuple[Follower, ...]


def guarded(model: Model, settings: Settings) -> Model:
    """``model`` with the limits of one customer's events that ``settings`` have."""
    return model._replace(
        minute_events_max=float(settings.minute_events_max),
        day_events_max=float(settings.day_events_max),
    )


def compose(
    settings: Settings,
    *,
    store: StateStore,
    public: PublicKeys,
    log: Log,
    clock: Callable[[], float],
    timer: Callable[[], float] | None = None,
    model: Model | None = None,
    telemetry: Telemetry = SILENT,
) -> Stages:
    """Stages over the given adapters; ``clock`` gives unix seconds, ``timer`` measures durations.

    They are two, because a clock that is set back an hour must not stop anything for an hour.
    """
    timer = timer or clock
    model = guarded(model or load_model(settings.model_file), settings)
    tables = ItemTables(model, rows_max=settings.item_tables_max, nodes_max=settings.items_max)
    items = ItemReader(
        store,
        tables,
        partitions=settings.cooccurrence_partitions,
        cache_age_s=settings.item_cache_age_s,
        refresh_s=settings.refresh_s,
        clock=timer,
        telemetry=telemetry,
    )
    journey = load_journey(settings.journey_file)
    decisions = load_decisions(
        settings.actions_file,
        settings.experiments_file,
        journey.names,
        settings.clickstream_partitions,
    )
    catalog = Catalog(items_max=settings.items_max)
    offers = Offers(catalog, items, settings, timer)
    permitted = Permitted(catalog, offers.rules)
    publisher = Publisher(log, public, items, settings, journey, catalog, permitted)
    audience = Audience(customers_max=settings.users_max)
    suppression = Suppression(customers_max=settings.erasures_max)
    admission = Admission(suppression, audience)
    candidates = Candidates(items, catalog, audience, sources=settings.sources_given())
    merchandise = Merchandise(catalog, permitted)
    learn = Learn(
        settings, store, log, publisher, items, candidates, offers,
        clock, admission, journey, decisions, Profiles(catalog, audience, journey.names),
        _refusals(audience), telemetry, merchandise,
    )  # fmt: skip
    relate = Relate(
        settings, store, public, log, items, timer, telemetry,
        lambda ids: merchandise.shown(ids, clock()),
    )  # fmt: skip
    withdraw = Withdraw(
        settings, merchandise, journey, log, public, relate, items, learn.turns, clock
    )
    publisher.on_published = withdraw.published
    ruling = _ruling(settings, merchandise, journey.names, withdraw)
    applied = _applied(settings, audience, suppression, ruling, withdraw)
    return Stages(
        learn,
        relate,
        Stock(settings, store, public, log, catalog),
        items,
        catalog,
        audience,
        withdraw,
        merchandise,
        ruling,
        tuple(Follower(topic, apply, settings, log, public) for topic, apply in applied.items()),
    )


def _ruling(
    settings: Settings, merchandise: Merchandise, steps: Sequence[str], withdraw: Withdraw
) -> Ruling:
    """The rules of the file, to which live ones come."""
    rules = read_rules(settings.rules_file, steps)
    return Ruling(merchandise, settings, rules, steps, withdraw.changed)


def _applied(
    settings: Settings,
    audience: Audience,
    suppression: Suppression,
    ruling: Ruling,
    withdraw: Withdraw,
) -> dict[str, Apply]:
    """What applies the records of each topic that is read whole."""
    cataloging = Cataloging(ruling.merchandise, settings, withdraw.changed, withdraw.repriced)
    return {
        settings.catalog_topic: cataloging.apply,
        settings.rules_topic: ruling.apply,
        settings.users_topic: AudienceStage(audience, settings).apply,
        settings.erasures_topic: suppression.apply,
    }


def _refusals(audience: Audience) -> Callable[[NDArray[np.uint64]], NDArray[np.uint8]]:
    """What customers have refused, as the bits that decisions know."""

    def refused(ids: NDArray[np.uint64]) -> NDArray[np.uint8]:
        if not len(audience):
            return np.zeros(len(ids), np.uint8)
        personal = np.where(audience.may(ids, PERSONALISE), 0, PERSONAL)
        marketing = np.where(audience.may(ids, EMAIL), 0, MARKETING)
        return (personal | marketing).astype(np.uint8)

    return refused
