"""What keeps an item out of a list, and the learned weights, as the commands tell them."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from stream_app.candidates import no_segments
from stream_app.commands.why import learned_weights, weights_file
from stream_app.core.hybrid import prior_of, trust
from stream_app.core.model import Model
from stream_app.core.scoring import SOURCES
from stream_app.errors import ConfigurationError, StreamAppError
from stream_app.hashing import stable_hash
from stream_app.offline.engine import Engine
from stream_app.reasons import Explainer, Reason
from stream_app.settings import Settings, load_settings
from tests.core.test_evaluate import pairs

ONE = {"STREAM_APP_CLICKSTREAM_PARTITIONS": "1", "STREAM_APP_COOCCURRENCE_PARTITIONS": "1"}


async def learned(settings: Settings) -> Engine:
    engine = Engine(settings, list_size=5, exclude_seen=False)
    await engine.start()
    for who, item, kind, ts in pairs(0, 60, 1_600_000_000):
        text = f'{{"user_id":"{who}","item_id":"{item}","event":"{kind}","ts":{ts}}}'
        await engine.apply([text.encode()])
    return engine


async def test_the_score_of_a_listed_item_is_the_sum_of_what_the_sources_gave() -> None:
    settings = load_settings(ONE)
    engine = await learned(settings)
    for item, kind, ts in (("y2", "view", 0), ("x", "add_to_cart", 60)):
        text = f'{{"user_id":"new","item_id":"{item}","event":"{kind}","ts":{1_600_900_000 + ts}}}'
        await engine.apply([text.encode()])
    explainer = Explainer(engine.stages, engine.store, 0, engine.stages.learn.owned[0].partition)
    await explainer.load("new")
    found = explainer.explain("home", ["x", "y", "y2", "never heard of"])
    users, when = explainer.customers(), np.array([1_600_900_060.0])
    lists = engine.stages.learn.listing.rank(
        users, users, no_segments(1), engine.stages.learn.owned[0].partition,
        engine.stages.learn.owned[0].blend,
    )[2]  # fmt: skip
    assert when == users["last_ts"]
    tables = engine.stages.items.tables
    scores = dict(zip(tables.nodes["id"][lists.nodes[0]].tolist(), lists.scores[0], strict=True))
    for item in ("x", "y", "y2"):
        reason = found.items[item]
        assert reason.score == pytest.approx(scores[int(stable_hash(item))], rel=1e-5)
        assert sum(reason.parts.values()) == pytest.approx(reason.score, rel=1e-5)
        assert all(0.0 < share <= 1.0 + 1e-6 for share in reason.shares.values())
    assert next(iter(found.items["x"].parts)) == "repeat"
    assert "return" in found.items["y2"].parts and "next_item" in found.items["y"].parts
    assert found.items["never heard of"] == Reason(0.0, {}, {})
    assert list(found.weights.values()) == sorted(found.weights.values(), reverse=True)
    assert found.weights["two_hop"] > found.weights["next_item"] > 0
    assert explainer.event_with("x") == ("add_to_cart", 1_600_900_060.0)
    assert explainer.event_with("y") is None
    with pytest.raises(StreamAppError, match="nothing is known of customer 'nobody'"):
        await explainer.load("nobody")


async def test_a_source_by_request_tells_its_part_of_a_score() -> None:
    settings = load_settings(ONE | {"STREAM_APP_EXTRA_SOURCES": "jaccard"})
    engine = await learned(settings)
    await engine.apply([b'{"user_id":"new","item_id":"x","event":"view","ts":1600900000}'])
    explainer = Explainer(engine.stages, engine.store, 0, engine.stages.learn.owned[0].partition)
    await explainer.load("new")
    found = explainer.explain("home", ["y"])
    assert found.weights["jaccard"] > 0.0
    reason = found.items["y"]
    assert 0.0 < reason.parts["jaccard"] < reason.score == pytest.approx(sum(reason.parts.values()))
    assert reason.shares["jaccard"] > 0.9, "nearly all who looked at x looked at y next"


async def test_weights_are_shown_by_partition_and_step_with_what_they_gained() -> None:
    settings = load_settings(ONE)
    engine = await learned(settings)
    found = await learned_weights(engine.store, settings)
    assert found["use"] == "learned"
    assert sum(found["published"].values()) == pytest.approx(1.0, abs=1e-3)
    (steps,) = found["partitions"].values()
    assert sum(step["version"] for step in steps.values()) > 3
    for step in steps.values():
        assert sum(step["weights"].values()) == pytest.approx(1.0, abs=1e-3)
    empty = Engine(settings, list_size=5, exclude_seen=False)
    await empty.start()
    assert (await learned_weights(empty.store, settings))["partitions"] == {}


async def test_the_published_weights_shown_are_those_of_the_model_file(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    file.write_bytes(orjson.dumps({"weight_forward": 40.0, "weight_two_hop": 1.0}))
    settings = load_settings(ONE | {"STREAM_APP_MODEL_FILE": str(file)})
    engine = Engine(settings, list_size=5, exclude_seen=False)
    await engine.start()
    published = (await learned_weights(engine.store, settings))["published"]
    assert published["next_item"] / published["two_hop"] == pytest.approx(40.0, rel=0.1)
    assert max(published, key=published.__getitem__) == "next_item"


async def test_a_written_version_of_the_weights_is_what_lists_rank_with_when_it_is_pinned(
    tmp_path: Path,
) -> None:
    engine = await learned(load_settings(ONE))
    file = tmp_path / "blend.json"
    file.write_bytes(await weights_file(engine.store, load_settings(ONE)))
    said = orjson.loads(file.read_bytes())
    (shown,) = (await learned_weights(engine.store, load_settings(ONE)))["partitions"].values()
    assert said["observed"] == {step: row["version"] for step, row in shown.items()}
    step = next(iter(said["steps"]))
    said["steps"] = {step: {"popularity": 3.0, "next_item": 1.0}}
    file.write_bytes(orjson.dumps(said))
    settings = load_settings(ONE | {"STREAM_APP_BLEND_WEIGHTS": str(file)})
    learn = (await learned(settings)).stages.learn
    ranked = learn.listing.weights(learn.owned[0].blend.repeat(3))
    assert ranked is not None and len(ranked) == 3 and (trust(ranked[:1]) == 1.0).all()
    names = learn.journey.names
    pinned = ranked["weights"][2][names.index(step)]
    by_name = {SOURCES[s]: float(pinned[s]) for s in np.flatnonzero(pinned)}
    assert by_name == {"popularity": 0.75, "next_item": 0.25}
    assert "jaccard" not in by_name, "as of a file of a release that did not know it"
    other = next(k for k, name in enumerate(names) if name not in ("", step))
    np.testing.assert_allclose(ranked["weights"][0][other], prior_of(Model()), rtol=1e-15)
    assert learn.owned[0].blend["observed"].sum() > 3, "it learns beside it"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, r"cannot be read .*weights --out FILE"),
        ("{", r"cannot be read .*weights --out FILE"),
        ("[]", r"must hold .*weights --out FILE"),
        ('{"steps": {"nowhere": {"popularity": 1}}}', "'nowhere' is none of the journey's steps"),
        ('{"steps": {"browse": 3}}', "browse must hold weights by source"),
        ('{"steps": {"browse": {"magic": 1}}}', r"browse\.magic is none of co_occurrence"),
        ('{"steps": {"browse": {"popularity": -1}}}', r"browse\.popularity=-1 must be"),
        ('{"steps": {"browse": {"content": 1}}}', "browse must give weight to one of co_occ"),
    ],
)
def test_a_wrong_file_of_weights_stops_the_start_and_is_named(
    tmp_path: Path, content: str | None, match: str
) -> None:
    file = tmp_path / "blend.json"
    if content is not None:
        file.write_text(content)
    settings = load_settings(ONE | {"STREAM_APP_BLEND_WEIGHTS": str(file)})
    with pytest.raises(ConfigurationError, match=f"STREAM_APP_BLEND_WEIGHTS=.*{match}"):
        Engine(settings, list_size=5)
