"""Settings fail at start and say which variable is wrong, what it was and what would be right."""

from pathlib import Path

import pytest

from stream_app.errors import ConfigurationError
from stream_app.settings import PREFIX, Settings, load_settings


def test_without_variables_everything_has_a_default() -> None:
    assert load_settings({}) == load_settings({"PATH": "/bin", "HOME": "/"})
    assert load_settings({}).bootstrap == "127.0.0.1:9092"


def test_values_are_read_from_their_variables() -> None:
    settings = load_settings(
        {
            "STREAM_APP_KAFKA_URL": "kafka://a:1,b:2",
            "STREAM_APP_REDIS_URL": "redis+cluster://c:3",
            "STREAM_APP_LIST_SIZE": "25",
            "STREAM_APP_EXCLUDE_SEEN": "true",
        }
    )
    assert settings.bootstrap == "a:1,b:2"
    assert (settings.list_size, settings.exclude_seen) == (25, True)


@pytest.mark.parametrize(
    ("variable", "value", "cure"),
    [
        ("LIST_SIZE", "0", "greater than or equal to 1"),
        ("LIST_SIZE", "ten", "valid integer"),
        ("BATCH_EVENTS_MAX", "100000", "less than or equal to 10000"),
        ("REDIS_TIMEOUT_S", "-1", "greater than 0"),
        ("REFRESH_S", "nan", "finite|greater than 0|less than or equal"),
        ("KAFKA_URL", "localhost:9092", "kafka://host:port"),
        ("KAFKA_URL", "kafka://", "kafka://host:port"),
        ("REDIS_URL", "http://localhost", "redis://, rediss://, unix://"),
        ("REDIS_PREFIX", "{x}", "pattern"),
        ("CLICKSTREAM_TOPIC", "a topic", "pattern"),
        ("WEB_PORT", "99999", "65535"),
        ("SOURCE_TOPICS", "web", "must look like topic=format"),
        ("SOURCE_TOPICS", "a topic=ga4", "must look like topic=format"),
        ("SOURCE_TOPICS", "web=matomo", "one of own, ga4, segment, snowplow, retailrocket"),
        ("SOURCE_TOPICS", "web=ga4,web=segment", "web is there twice"),
        ("SOURCE_TOPICS", "web=ga4,support=own", "support is a topic of this application itself"),
        ("EXCLUDE_SEEN", "perhaps", "valid boolean"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS", "PLAINTEXT"),
        ("ITEM_TABLES_MAX", "3000000", "must not exceed items_max"),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL", "kafka_username and kafka_password_file"),
    ],
)
def test_a_wrong_value_is_named_with_its_cure(variable: str, value: str, cure: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s)wrong configuration.*({cure})") as caught:
        load_settings({PREFIX + variable: value})
    if "exceed" not in cure and "password" not in cure:  # these are about two variables
        assert f"{PREFIX}{variable}={value!r}" in str(caught.value)


def test_topics_to_copy_have_a_format_each_and_there_may_be_none() -> None:
    assert load_settings({}).source_formats() == {}
    given = load_settings({"STREAM_APP_SOURCE_TOPICS": "web-1=ga4, app.x=segment,"})
    assert given.source_formats() == {"web-1": "ga4", "app.x": "segment"}
    renamed = {"STREAM_APP_SOURCE_TOPICS": "mine=own", "STREAM_APP_RULES_TOPIC": "mine"}
    with pytest.raises(ConfigurationError, match="mine is a topic of this application itself"):
        load_settings(renamed)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"STREAM_APP_LIST_SIZE": "x", "STREAM_APP_WEB_PORT": "0", "STREAM_APP_X": ""})
    assert len(str(caught.value).splitlines()) == 4


def test_a_misspelt_variable_is_an_error_with_a_hint() -> None:
    with pytest.raises(ConfigurationError, match="did you mean STREAM_APP_LIST_SIZE") as caught:
        load_settings({"STREAM_APP_LISTSIZE": "3"})
    assert "STREAM_APP_LISTSIZE: there is no such setting" in str(caught.value)
    load_settings({"STREAM_APP_TEST_KAFKA": "a switch of the test suite"})


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).list_size = 3


def test_passwords_come_from_files_and_are_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2\n")
    settings = load_settings({"STREAM_APP_REDIS_PASSWORD_FILE": str(file)})
    password = settings.redis_password()
    assert password is not None
    assert password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr((settings, password))
    assert settings.kafka_password() is None


def test_a_password_file_that_cannot_be_read_is_named_with_its_cure(tmp_path: Path) -> None:
    settings = load_settings({"STREAM_APP_KAFKA_PASSWORD_FILE": str(tmp_path / "none")})
    with pytest.raises(ConfigurationError, match=r"STREAM_APP_KAFKA_PASSWORD_FILE=.*correct the"):
        settings.kafka_password()


def test_every_setting_says_what_it_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
