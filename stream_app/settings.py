"""Every setting, its unit and its default. The only reader of ``STREAM_APP_*`` variables."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stream_app.errors import ConfigurationError
from stream_app.setting_lists import TOPIC, cycles_of, formats_of, known_sources_of, names_of

PREFIX = "STREAM_APP_"
CONSOLE_TOKEN_CHARS_MIN = 12
Format = Literal["own", "ga4", "segment", "snowplow", "retailrocket"]


class Settings(BaseModel):
    """What an operator can set. Read once at start; wrong values stop the worker there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka_url: str = Field(
        "kafka://127.0.0.1:9092", description="Kafka bootstrap servers, kafka://host:port[,...]"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how to talk to Kafka"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism, with a SASL_* protocol"
    )
    kafka_username: str = Field("", description="SASL user name")
    kafka_password_file: Path | None = Field(None, description="file with the SASL password")
    kafka_ca_file: Path | None = Field(None, description="CA certificates, default the system's")
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL",
    )
    redis_password_file: Path | None = Field(None, description="file with the Redis password")
    redis_ca_file: Path | None = Field(None, description="CA certificates, default the system's")
    plaintext_credentials: bool = Field(
        False, description="let passwords go to other machines unencrypted"
    )
    redis_timeout_s: float = Field(5.0, gt=0, le=600, description="seconds to wait for a reply")
    redis_prefix: str = Field(
        "sa1:", pattern=r"^[\w.:-]{1,32}$", description="prefix of internal keys"
    )

    app_id: str = Field(
        "stream_app", pattern=r"^[\w.-]{1,100}$", description="Faust app and consumer group"
    )
    clickstream_topic: str = Field("clickstream", pattern=TOPIC, description="events")
    event_format: Format = Field(
        "own", description="of clickstream records whose headers name none (docs/events.md)"
    )
    cooccurrence_topic: str = Field(
        "cooccurrence", pattern=TOPIC, description="internal: pair counts by item"
    )
    recommendations_topic: str = Field(
        "recommendations", pattern=TOPIC, description="refreshed lists"
    )
    dead_letter_topic: str = Field(
        "clickstream.dlq", pattern=TOPIC, description="records that are no events"
    )
    catalog_topic: str = Field("catalog", pattern=TOPIC, description="items, by item_id")
    rules_topic: str = Field("rules", pattern=TOPIC, description="merchandising rules, by rule id")
    rules_audit_topic: str = Field(
        "rules-audit", pattern=TOPIC, description="who changed which merchandising rule, when"
    )
    rules_audit_days: float = Field(
        1_100.0, gt=0, le=36_500, description="days that changes of rules are kept"
    )
    rules_file: Path | None = Field(None, description="merchandising rules (docs/rules.md)")
    users_topic: str = Field("users", pattern=TOPIC, description="customers, by user_id")
    erasures_topic: str = Field(
        "erasures", pattern=TOPIC, description="who was erased and when, by hash"
    )
    sales_topic: str = Field("sales", pattern=TOPIC, description="internal: units sold by item")
    inventory_topic: str = Field(
        "inventory-alerts", pattern=TOPIC, description="low stock, replenishment"
    )
    support_topic: str = Field("support", pattern=TOPIC, description="messages to customer service")
    support_assist_topic: str = Field(
        "support-assist", pattern=TOPIC, description="suggestions for who answers"
    )
    support_labels_topic: str = Field(
        "support-labels", pattern=TOPIC, description="what messages were about"
    )
    support_knowledge_topic: str = Field(
        "support-knowledge", pattern=TOPIC, description="questions with their answers, by id"
    )
    source_topics: str = Field(  # after our own, none of which it may name
        "", description="topics to copy to the clickstream: web=ga4,app=segment (docs/events.md)"
    )
    clickstream_partitions: int = Field(4, ge=1, le=10_000, description="of events and lists")
    cooccurrence_partitions: int = Field(4, ge=1, le=10_000, description="of item state")
    replication_factor: int = Field(1, ge=1, le=10, description="of topics created here")
    clickstream_retention_days: float = Field(
        14.0, gt=0, le=36_500, description="days of events to keep; what a rebuild can use"
    )

    batch_events_max: int = Field(10_000, ge=1, le=10_000, description="events per micro-batch")
    event_bytes_max: int = Field(65_536, ge=256, le=1_000_000, description="bytes of one event")
    id_chars_max: int = Field(128, ge=8, le=512, description="characters of an id")
    minute_events_max: int = Field(
        0, ge=0, le=1_000_000, description="events of one customer in a minute; 0 = no limit"
    )
    day_events_max: int = Field(
        0, ge=0, le=100_000_000, description="events of one customer in a day; 0 = no limit"
    )
    future_tolerance_s: float = Field(
        86_400.0, ge=0, description="seconds an event may lie after its record's own time"
    )
    drain_timeout_s: float = Field(
        20.0, gt=0, le=600, description="seconds to finish work at SIGTERM"
    )
    stuck_after_s: float = Field(
        120.0, ge=5, le=86_400, description="seconds without progress until /live says so"
    )
    memory_max_mib: int = Field(
        0, ge=0, description="MiB a worker may take before it warns; 0 = 90 % of its cgroup's limit"
    )
    session_timeout_s: float = Field(
        10.0, ge=6, le=25, description="silent seconds until a worker's partitions go to others"
    )

    web_host: str = Field("127.0.0.1", description="address of the worker's web server")
    web_port: int = Field(6066, ge=1, le=65535, description="port of the worker's web server")

    pseudonym_key_file: Path | None = Field(
        None, description="file with the HMAC key of customers' pseudonyms (docs/privacy.md)"
    )
    console_token_file: Path | None = Field(
        None, description="file with the console's token; without one it is there on loopback only"
    )
    log_format: Literal["text", "json"] = Field("text", description="of the worker's log lines")
    traces: Literal["off", "otlp"] = Field(
        "off",
        description="OpenTelemetry traces; needs the extra `otel`, reads OTEL_EXPORTER_OTLP_*",
    )
    trace_share: float = Field(
        0.001, ge=0, le=1, description="share of batches traced that carry no sampled trace"
    )

    relate_linger_s: float = Field(
        2.0, ge=0, le=60, description="seconds between two merges of an item partition"
    )
    actions_file: Path | None = Field(None, description="TOML of actions, promotions; default ours")
    experiments_file: Path | None = Field(
        None, description="TOML file of experiments, default none"
    )
    journey_file: Path | None = Field(None, description="TOML file of the journey, default ours")
    timers_max: int = Field(
        500_000, ge=1_000, le=50_000_000, description="near deadlines kept in memory per partition"
    )
    list_size: int = Field(10, ge=1, le=100, description="items per list")
    similar_size: int = Field(20, ge=1, le=50, description="items per similar:<item_id>")
    extra_sources: str = Field(
        "content,segment",
        description="sources beside the tables: of these, user_knn, embedding, trending, jaccard",
    )
    similar_reading: Literal["cosine", "jaccard"] = Field(
        "cosine", description="how counts of pairs are read for similar:<item_id>"
    )
    trending_size: int = Field(50, ge=1, le=200, description="items of trending:all")
    exclude_seen: bool = Field(False, description="leave recently seen items out of the lists")
    exclude_cart: bool = Field(
        False, description="leave what is in the cart out of all lists, not only the cart's"
    )
    exclude_bought_days: float = Field(
        0.0, ge=0, le=36_500, description="days the last 200 bought items stay out of the lists"
    )
    repurchase_days: str = Field(
        "", description="the same by category: Coffee=21,Pets/Food=30 (whole path or its top)"
    )
    repurchase_share: float = Field(0.75, ge=0, le=2, description="of its usual cycle, if learned")
    excluded_items: str = Field("", description="ids of items never to list, comma-separated")
    price_min: float = Field(0.0, ge=0, description="least price of a listed item")
    price_max: float = Field(0.0, ge=0, description="highest price of a listed item, 0 = no limit")
    category_max: int = Field(0, ge=0, description="items of a category in a list, 0 = no limit")
    brand_max: int = Field(0, ge=0, description="items of a brand in a list, 0 = no limit")
    diversity: float = Field(
        0.0, ge=0, le=1, description="weight of unlikeness against score in a list (MMR)"
    )
    exploration_share: float = Field(
        0.0, ge=0, le=1, description="share of a list's places that new items get"
    )
    blend_weights: str = Field(
        "learned", description="weights of the sources: learned, published, or those of this file"
    )
    model_file: Path | None = Field(
        None, description="model parameters, as `tune` writes them; default: the published ones"
    )
    refresh_s: float = Field(
        2.0, gt=0, le=600, description="seconds between refreshes of similar: and trending: keys"
    )
    item_cache_age_s: float = Field(
        2.0, gt=0, le=600, description="seconds another worker's item table may be reused"
    )
    item_tables_max: int = Field(
        200_000, ge=1_000, le=50_000_000, description="neighbour tables in a worker's memory"
    )
    items_max: int = Field(
        2_000_000, ge=1_000, le=100_000_000, description="items in a worker's memory"
    )
    erasures_max: int = Field(
        1_000_000, ge=1, le=100_000_000, description="erased customers remembered, the newest"
    )
    held_lists_max: int = Field(
        200_000, ge=1, le=50_000_000, description="customers whose published lists are remembered"
    )
    users_max: int = Field(
        1_000_000, ge=1, le=100_000_000, description="customers of the users topic in memory"
    )
    user_cache_max: int = Field(
        100_000, ge=0, le=50_000_000, description="customer states in a worker's memory"
    )
    profile_attributes: str = Field(
        "", description="of the users topic that profiles repeat: names with commas; * = all"
    )
    lead_time_days: int = Field(7, ge=1, le=56, description="days from an order to its delivery")
    review_days: int = Field(7, ge=1, le=56, description="days between two orders of an item")
    service_level: float = Field(
        0.95, ge=0.5, le=0.999, description="share of lead times that stock should last"
    )
    overstock_days: float = Field(
        180.0, gt=0, le=3650, description="days of cover from which stock is too much"
    )
    support_train_file: Path | None = Field(
        None, description="CSV of labelled messages; with it the worker serves customer service"
    )
    support_text_column: str = Field("text", min_length=1, description="of that file: the message")
    support_label_column: str = Field("intent", min_length=1, description="there: its intent")
    support_knowledge_file: Path | None = Field(
        None, description="CSV with question, answer and perhaps id, intent"
    )
    support_embedding: str = Field("", description="word vectors: wordllama or a model2vec folder")
    support_rules_file: Path | None = Field(
        None, description="TOML of urgency and routing, default the shipped support.toml"
    )
    user_ttl_days: float = Field(180.0, gt=0, le=36_500, description="life of customer state")
    item_ttl_days: float = Field(400.0, gt=0, le=36_500, description="life of item state")
    list_ttl_days: float = Field(30.0, gt=0, le=36_500, description="life of public keys")

    @field_validator("kafka_url")
    @classmethod
    def _kafka_scheme(cls, value: str) -> str:
        if not value.startswith("kafka://") or len(value) <= len("kafka://"):
            raise ValueError("must look like kafka://host:port[,host:port...]")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        schemes = ("redis://", "rediss://", "unix://", "redis+sentinel://", "redis+cluster://")
        if not value.startswith(schemes):
            raise ValueError(f"must start with one of {', '.join(schemes)}")
        return value

    @field_validator("repurchase_days")
    @classmethod
    def _cycles(cls, value: str) -> str:
        cycles_of(value)
        return value

    @field_validator("source_topics")
    @classmethod
    def _others_topics(cls, value: str, info: ValidationInfo) -> str:
        own = {topic for name, topic in info.data.items() if name.endswith("_topic")}
        formats_of(value, get_args(Format), own)
        return value

    @field_validator("extra_sources")
    @classmethod
    def _known_sources(cls, value: str) -> str:
        known_sources_of(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.item_tables_max > self.items_max:
            raise ValueError("item_tables_max must not exceed items_max: raise items_max")
        if self.kafka_security_protocol.startswith("SASL") and not (
            self.kafka_username and self.kafka_password_file
        ):
            raise ValueError("SASL needs kafka_username and kafka_password_file")
        return self

    def repurchase_cycles(self) -> dict[str, float]:
        """Days by category."""
        return cycles_of(self.repurchase_days)

    def source_formats(self) -> dict[str, str]:
        """The format of each topic in ``source_topics``."""
        return formats_of(self.source_topics, get_args(Format), ())

    def excluded(self) -> list[str]:
        """Ids of items never to list."""
        return names_of(self.excluded_items)

    def sources_given(self) -> frozenset[str]:
        """The names in ``extra_sources``."""
        return known_sources_of(self.extra_sources)

    @property
    def bootstrap(self) -> str:
        """Kafka servers without the scheme, ``host:port[,...]``."""
        return self.kafka_url.removeprefix("kafka://")

    def kafka_password(self) -> SecretStr | None:
        """The SASL password, read from its file."""
        return _secret(self.kafka_password_file, "KAFKA_PASSWORD_FILE")

    def redis_password(self) -> SecretStr | None:
        """The Redis password, read from its file."""
        return _secret(self.redis_password_file, "REDIS_PASSWORD_FILE")

    def console_token(self) -> SecretStr | None:
        """The token of the console, read from its file; an empty one would be no lock."""
        token = _secret(self.console_token_file, "CONSOLE_TOKEN_FILE")
        if token is not None and len(token.get_secret_value()) < CONSOLE_TOKEN_CHARS_MIN:
            raise ConfigurationError(
                f"{PREFIX}CONSOLE_TOKEN_FILE={self.console_token_file}: a token needs at least"
                f" {CONSOLE_TOKEN_CHARS_MIN} characters, such as of `openssl rand -hex 16`"
            )
        return token


def own_topics(prefix: str) -> dict[str, str]:
    """``STREAM_APP_*_TOPIC`` variables that give every topic a name of this prefix: on a shared
    broker nobody reads another one's.
    """
    topics = [name for name in Settings.model_fields if name.endswith("_topic")]
    return {f"{PREFIX}{name.upper()}": f"{prefix}{name.removesuffix('_topic')}" for name in topics}


def _secret(path: Path | None, name: str) -> SecretStr | None:
    if path is None:
        return None
    try:
        return SecretStr(path.read_text().strip())
    except OSError as exc:
        raise ConfigurationError(
            f"{PREFIX}{name}={path}: cannot be read ({exc.strerror}); give the worker's user"
            " read access or correct the path"
        ) from exc


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from ``STREAM_APP_*`` variables.

    Raises :class:`~stream_app.errors.ConfigurationError` naming every wrong variable, its value and
    what would be right; unknown variables with our prefix are errors, not silence.
    """
    environment = os.environ if environment is None else environment
    given = {k: v for k, v in environment.items() if k.upper().startswith(PREFIX)}
    problems = []
    values: dict[str, str] = {}
    for variable, value in given.items():
        name = variable[len(PREFIX) :].lower()
        if name in Settings.model_fields:
            values[name] = value
        elif not name.startswith("test_"):  # the test suite's own switches
            close = difflib.get_close_matches(name, Settings.model_fields, n=1)
            hint = f"; did you mean {PREFIX}{close[0].upper()}?" if close else ""
            problems.append(f"{variable}: there is no such setting{hint}")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as exc:
        for error in exc.errors():
            if not error["loc"]:  # of several settings together
                problems.append(error["msg"])
                continue
            name = str(error["loc"][0])
            shown = "" if "password" in name else f"={values.get(name, '')!r}"
            help_text = Settings.model_fields[name].description
            problems.append(f"{PREFIX}{name.upper()}{shown}: {error['msg']} ({help_text})")
    if problems:
        raise ConfigurationError("wrong configuration:\n  " + "\n  ".join(problems))
    return settings
