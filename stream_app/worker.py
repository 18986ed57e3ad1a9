"""A worker's life: what is claimed, where reading starts, what is closed at the end."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from urllib.parse import quote, urlsplit, urlunsplit

import orjson

from stream_app.adapters.credentials import refuse_plaintext
from stream_app.adapters.generations import GenerationStore
from stream_app.adapters.kafka import KafkaLog, Security
from stream_app.adapters.measured import MeasuredLog, MeasuredPublic, MeasuredStore
from stream_app.adapters.redis_url import host_names
from stream_app.adapters.telemetry import Accounts, Metrics
from stream_app.adapters.topics import TopicSpec, check_partitions
from stream_app.adapters.tracing import Tracing
from stream_app.broadcasts import Broadcasts
from stream_app.composition import Stages, compose
from stream_app.copying import Copy
from stream_app.errors import StoreUnavailable
from stream_app.following import Follower
from stream_app.journeys import load_journey
from stream_app.keeping import HasBooks, Kept
from stream_app.ports import ACCOUNTS_ID, ITEMS, RECORD_BYTES_MAX, USERS, Log, PublicKeys, RawBatch
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.source_topics import check_sources, committed_by_group
from stream_app.stocking import STOCK
from stream_app.support_embedding import load_embedding
from stream_app.support_files import fit_model, read_knowledge, read_rules
from stream_app.support_knowledge import KnowledgeBase
from stream_app.supporting import SUPPORT, Judge, Support, vader
from stream_app.timers import Timers

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
Partition = tuple[str, int]
Handler = Callable[[RawBatch], Awaitable[None]]


def security(settings: Settings) -> Security:
    """How to reach Kafka."""
    protocol = settings.kafka_security_protocol
    password = settings.kafka_password()
    if protocol == "SASL_PLAINTEXT":
        refuse_plaintext(
            (server.rpartition(":")[0] for server in settings.bootstrap.split(",")),
            what="Kafka",
            cure="use STREAM_APP_KAFKA_SECURITY_PROTOCOL=SASL_SSL",
            allowed=settings.plaintext_credentials,
        )
    context = None
    if protocol.endswith("SSL"):
        import ssl

        context = ssl.create_default_context(
            cafile=str(settings.kafka_ca_file) if settings.kafka_ca_file else None
        )
    return Security(
        protocol=protocol,
        mechanism=settings.kafka_sasl_mechanism,
        username=settings.kafka_username or None,
        password=password.get_secret_value() if password else None,
        ssl_context=context,
    )


def redis_store(settings: Settings, *, generation: int | None = None) -> GenerationStore:
    """The store, not yet connected; in one ``generation`` of the state, or the current one."""
    url = settings.redis_url
    password = settings.redis_password()
    if password is not None:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        user = parts.username or ""
        secret = quote(password.get_secret_value(), safe="")
        url = urlunsplit(parts._replace(netloc=f"{user}:{secret}@{host}"))
    parts = urlsplit(url)
    if parts.password and parts.scheme.partition("+")[0] == "redis":
        refuse_plaintext(
            host_names(parts.netloc),
            what="Redis",
            cure="use rediss://",
            allowed=settings.plaintext_credentials,
        )
    if settings.redis_ca_file and parts.scheme.startswith("rediss"):
        query = "&".join(filter(None, (parts.query, f"ssl_ca_certs={settings.redis_ca_file}")))
        url = urlunsplit(parts._replace(query=query))
    return GenerationStore(
        url,
        prefix=settings.redis_prefix,
        pinned=generation,
        state_ttl_ms={
            USERS: int(settings.user_ttl_days * DAY_MS),
            ITEMS: int(settings.item_ttl_days * DAY_MS),
            STOCK: int(settings.item_ttl_days * DAY_MS),
        },
        public_ttl_ms=int(settings.list_ttl_days * DAY_MS),
        timeout_ms=int(settings.redis_timeout_s * 1000),
    )


def kafka_log(settings: Settings) -> KafkaLog:
    """The producer, not yet connected."""
    return KafkaLog(
        settings.bootstrap.split(","),
        security=security(settings),
        client_id=settings.app_id,
        request_bytes_max=RECORD_BYTES_MAX,
    )


def topic_specs(settings: Settings) -> list[TopicSpec]:
    """The topics of the product, as ``topics`` creates and checks them."""
    keep = str(int(settings.clickstream_retention_days * DAY_MS))
    large = {"max.message.bytes": str(RECORD_BYTES_MAX)}
    users, items = settings.clickstream_partitions, settings.cooccurrence_partitions
    copies = settings.replication_factor
    of_users, of_items = "STREAM_APP_CLICKSTREAM_PARTITIONS", "STREAM_APP_COOCCURRENCE_PARTITIONS"
    compact = {"cleanup.policy": "compact", **large}
    kept = {"retention.ms": keep, **large}
    # Tombstones live as long as what was learned of an item, which could bring it back.
    gone = str(int(settings.item_ttl_days * DAY_MS))
    described = {"cleanup.policy": "compact", "delete.retention.ms": gone}
    lasting = str(int(settings.rules_audit_days * DAY_MS))
    audited = {"cleanup.policy": "delete", "retention.ms": lasting}
    return [
        TopicSpec(settings.clickstream_topic, users, copies, {"retention.ms": keep}, of_users),
        TopicSpec(settings.cooccurrence_topic, items, copies, kept, of_items),
        TopicSpec(settings.erasures_topic, users, copies, compact, of_users),
        TopicSpec(settings.sales_topic, items, copies, kept, of_items),
        TopicSpec(settings.inventory_topic, items, copies, kept, of_items),
        *_support_topics(settings, described),
        TopicSpec(settings.recommendations_topic, users, copies, compact, of_users),
        TopicSpec(
            settings.dead_letter_topic, max(users, items), copies, kept, f"{of_users} or {of_items}"
        ),
        TopicSpec(settings.catalog_topic, items, copies, described),
        TopicSpec(settings.users_topic, users, copies, described),
        TopicSpec(settings.rules_topic, 1, copies, described),
        TopicSpec(settings.rules_audit_topic, 1, copies, audited),
    ]


def _support_topics(settings: Settings, followed: Mapping[str, str]) -> list[TopicSpec]:
    """Topics of customer service, where it is served; ``followed`` configures those read whole."""
    if settings.support_train_file is None:
        return []
    keep = {"retention.ms": str(int(settings.clickstream_retention_days * DAY_MS))}
    users, of_users = settings.clickstream_partitions, "STREAM_APP_CLICKSTREAM_PARTITIONS"
    copies = settings.replication_factor
    return [
        TopicSpec(settings.support_topic, users, copies, keep, of_users),
        TopicSpec(settings.support_assist_topic, users, copies, keep, of_users),
        # Learned from by every worker that starts: no retention may take a correction away.
        TopicSpec(settings.support_labels_topic, users, copies, followed),
        TopicSpec(settings.support_knowledge_topic, 1, copies, followed),
    ]


class Worker:
    """Holds the stages and adapters of one Faust worker; its methods are the transport's hooks."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: GenerationStore | None = None,
        public: PublicKeys | None = None,
        log: Log | None = None,
    ) -> None:
        """Over the deployment's adapters, apart from those given: a rebuild publishes nothing."""
        self.settings = settings
        self.store = store or redis_store(settings)
        self.log = kafka_log(settings)
        self.metrics = Metrics()
        self.tracing = (
            Tracing(service=settings.app_id, share=settings.trace_share)
            if settings.traces == "otlp"
            else None
        )
        measured = MeasuredStore(self.store, self.metrics)
        public = public or MeasuredPublic(self.store, self.metrics)
        log = log or MeasuredLog(
            self.log,
            self.metrics,
            dead_letter_topic=settings.dead_letter_topic,
            headers=self.tracing.headers if self.tracing else tuple,
        )
        self.stages: Stages = compose(
            settings,
            store=measured,
            public=public,
            log=log,
            clock=time.time,
            timer=time.monotonic,
            telemetry=self.metrics,
        )
        self.support: Support | None = None
        followers = list(self.stages.followers)
        self.kept = [
            Kept("learn", settings.clickstream_topic, USERS, self.stages.learn),
            Kept("relate", settings.cooccurrence_topic, ITEMS, self.stages.relate),
            Kept("stock", settings.sales_topic, STOCK, self.stages.stock),
        ]
        if settings.support_train_file is not None:
            self.support = Support(settings, measured, public, log)
            self.kept.append(Kept("support", settings.support_topic, SUPPORT, self.support))
            for topic, apply in (
                (settings.support_labels_topic, self.support.apply_labels),
                (settings.support_knowledge_topic, self.support.apply_knowledge),
            ):
                followers.append(Follower(topic, apply, settings, log, public))
        committed = committed_by_group(settings, security(settings))
        self.copies = [
            Copy(settings, topic, store=measured, log=log, committed=committed)
            for topic in settings.source_formats()
        ]
        self.kept += [Kept(copy.name, copy.topic, copy.space, copy) for copy in self.copies]
        self.broadcasts = Broadcasts(settings, self.stages, security(settings), followers)
        self._by_topic = {kept.topic: kept for kept in self.kept}
        self.timers = Timers(
            settings, self.store, self.store, self.log, self.stages.learn, time.time
        )
        self._checked = False

    def prepare(self) -> None:
        """What takes long, before partitions are claimed; a wrong file stops the start here."""
        settings = self.settings
        if self.support is not None:
            log.info("learning to name support messages from %s", settings.support_train_file)
            steps = load_journey(settings.journey_file).names
            rules = read_rules(settings.support_rules_file, steps)
            embed = load_embedding(settings.support_embedding)
            entries = read_knowledge(settings.support_knowledge_file)
            knowledge = KnowledgeBase(settings, entries, embed=embed)
            self.support.judge = Judge(fit_model(settings, embed), rules, knowledge, vader())

    def handlers(self) -> list[tuple[str, str, Handler, float]]:
        """Name, topic, handler (measured, perhaps traced), seconds between calls; of each stage."""
        found = []
        for kept in self.kept:
            handler: Handler = kept.keeper.process
            if self.tracing is not None:
                handler = self.tracing.traced(kept.name, handler)
            handler = self.metrics.watched(kept.name, handler, fresh=kept.name == "learn")
            # LEARN writes to every partition of counts with every hand-over, and they may lag.
            gathers = kept.name in ("relate", "stock")
            every_s = self.settings.relate_linger_s if gathers else 0.0
            found.append((kept.name, kept.topic, handler, every_s))
        return found

    def accounts(self) -> Iterator[Accounts]:
        """What became of the records of every partition of this worker, as its state has it."""
        names = ("applied", "rejected", "dead_lettered", "skipped")
        for p, owned in self.stages.learn.owned.items():
            outcomes = {name: int(owned.partition[name][0]) for name in names}
            yield Accounts("learn", p, owned.cursor or 0, outcomes)
        others: list[tuple[str, Mapping[int, HasBooks]]] = [
            ("relate", self.stages.relate.owned),
            ("stock", self.stages.stock.owned),
            *((copy.name, copy.owned) for copy in self.copies),
        ]
        if self.support is not None:
            others.append(("support", self.support.owned))
        for stage, held in others:
            for p, one in held.items():
                yield Accounts(stage, p, one.cursor or 0, one.meta.outcomes())

    def ignored(self) -> Counter[str]:
        """Well-formed records that mean nothing here, by the name of their event."""
        found = Counter(self.stages.learn.ignored)
        for copy in self.copies:
            found.update(copy.formats.ignored)
        return found

    def sizes(self) -> dict[str, int]:
        """Entries of this worker's tables and caches."""
        tables = self.stages.items.tables
        return {
            "items": tables.nodes_n,
            "customers": sum(len(owned.users) for owned in self.stages.learn.owned.values()),
            "catalog": len(self.stages.catalog),
            "items_waiting": sum(len(held.pending) for held in self.stages.relate.owned.values()),
        }

    async def hand_over(self) -> None:
        """Let counts of pairs and of sales follow the customers."""
        owned = list(self.stages.learn.owned.values())
        await asyncio.gather(*(one.waiting.hand_over() for one in owned))

    async def announce(self) -> None:
        """Announce the time-outs that have fallen due."""
        await self.timers.announce()

    async def survey(self) -> None:
        """Look for deadlines in the states of partitions that are new here."""
        try:
            await self.timers.survey()
        except StoreUnavailable as exc:
            log.info("deadlines are looked for later: %s", exc)

    async def start_offsets(self, partitions: set[Partition]) -> Mapping[Partition, int | None]:
        """Claim ``partitions`` in the store, whose cursor is the truth, and say where to read."""
        if not self._checked:
            await retrying(self._check_counts, "checking the topics")
            self._checked = True
        ordered = sorted(partitions)
        offsets = await asyncio.gather(*(self._assign(*partition) for partition in ordered))
        return dict(zip(ordered, offsets, strict=True))

    async def _check_counts(self) -> None:
        """State is kept by partition: with other counts than the topics' none may be claimed."""
        await check_partitions(
            [spec for spec in topic_specs(self.settings) if spec.setting],
            brokers=self.settings.bootstrap.split(","),
            security=security(self.settings),
        )

    async def check_sources(self) -> None:
        """Stop the start where a topic to copy is missing."""
        given = self.settings
        await retrying(lambda: check_sources(given, security(given)), "looking for source topics")

    async def _assign(self, topic: str, partition: int) -> int | None:
        offset = await self._by_topic[topic].keeper.assign(partition)
        log.info("%s-%d: going on at offset %s", topic, partition, offset or 0)
        return offset

    async def on_revoked(self, partitions: set[Partition]) -> None:
        """Forget partitions that other workers own from now on."""
        for topic, partition in partitions:
            self._by_topic[topic].keeper.revoke(partition)

    async def rolled_back(self) -> list[Partition]:
        """Partitions to claim again: stored cursors behind ours, or a new generation of state.

        A commit would find out as well, but where no event arrives there is none. Empty while the
        store does not answer.
        """
        try:
            if await self.store.moved():
                log.warning("the state has been rebuilt: going over to its new generation")
                return [(kept.topic, p) for kept in self.kept for p in kept.keeper.owned]
        except StoreUnavailable as exc:
            log.info("the generation is not compared: %s", exc)
            return []
        held = [  # before the store is asked: from then on its cursors only move up
            (kept.space, kept.topic, p, owned.cursor)
            for kept in self.kept
            for p, owned in kept.keeper.owned.items()
        ]
        behind: list[Partition] = []
        for space, topic, p, cursor in held:
            try:
                (blob,) = await self.store.load(space, [p], [ACCOUNTS_ID])
            except StoreUnavailable as exc:
                log.info("cursors are not compared: %s", exc)
                return []
            stored = orjson.loads(blob)["cursor"] if blob else 0
            if cursor is not None and stored < cursor:
                log.warning("%s-%d: the store is at %d, we were at %d", topic, p, stored, cursor)
                behind.append((topic, p))
        return behind

    async def refresh(self) -> None:
        """Publish item lists that wait for their turn, and what is trending."""
        await self.stages.relate.refresh()
        await self.broadcasts.dead_letter()
        await self.stages.stock.refresh()

    async def reindex(self) -> None:
        """Let messages be answered with what the knowledge base says by now."""
        if self.support is not None:
            await self.support.reindex()

    async def close(self) -> None:
        """Disconnect."""
        await self.broadcasts.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
        await self.log.stop()
        await self.store.close()
