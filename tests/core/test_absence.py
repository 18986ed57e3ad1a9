"""Why an item is not in a customer's list: one test for each thing that can keep it out."""

from collections.abc import Sequence

import pytest

from stream_app.absence import Answer, why_not
from stream_app.core.catalog import CatalogItem
from stream_app.core.merchandising import Rule
from stream_app.core.rules import BARS
from stream_app.errors import StreamAppError
from stream_app.offline.engine import Engine
from stream_app.reasons import Explainer
from stream_app.settings import load_settings
from tests.core.test_why import ONE, learned

LATER = 1_700_000_000.0  # when it is asked, years after the customer's last event
VIEWED = (("view", "x"),)


class Asking:
    """A shop that has learned, and what it answers about customer ``new``."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.catalog = engine, engine.stages.catalog

    async def of(self, item: str, name: str = "home") -> Answer:
        stages, store = self.engine.stages, self.engine.store
        explainer = Explainer(stages, store, 0, stages.learn.owned[0].partition)
        await explainer.load("new")
        return await why_not(stages, explainer, item, name, now=LATER)

    async def reason(self, item: str, name: str = "home") -> str:
        answer = await self.of(item, name)
        assert bool(answer.place) != bool(answer.reason), "in the list, or a reason why not"
        return answer.reason

    def rules(self, *rules: Rule) -> None:
        self.engine.stages.merchandise.set_rules(rules)


async def shop(
    *items: CatalogItem, events: Sequence[tuple[str, str]] = VIEWED, **settings: str
) -> Asking:
    """Lists of 3. By score the customer's home list is y, z3, z2; then z4, z1, z0, x, z6, z5."""
    given = {f"STREAM_APP_{name}": value for name, value in settings.items()}
    engine = await learned(load_settings({**ONE, "STREAM_APP_LIST_SIZE": "3", **given}))
    for k, (kind, item) in enumerate(events):
        text = f'{{"user_id":"new","item_id":"{item}","event":"{kind}","ts":{1_600_900_000 + k}}}'
        await engine.apply([text.encode()])
    if items:
        engine.stages.catalog.upsert(items)
    return Asking(engine)


async def test_an_item_is_placed_barred_or_not_named_and_each_source_says_its_part() -> None:
    asking = await shop()
    first = await asking.of("y")
    assert (first.place, first.rank, first.reason, first.source) == (1, 1, "", "next_item")
    assert first.shares["next_item"] == pytest.approx(1.0), "nothing else follows x"
    assert sum(first.parts.values()) == pytest.approx(first.score, rel=1e-5)
    last = await asking.of("z5")
    assert (last.place, last.rank, last.reason) == (0, 9, "behind")
    assert last.parts == {"popularity": pytest.approx(last.score, rel=1e-5)}
    strange = await asking.of("never heard of")
    assert strange == Answer("home", reason="no_candidate")
    own = await asking.of("x")
    assert (own.rank, list(own.parts)) == (7, ["repeat"]), "a chance of its own"
    stages = asking.engine.stages
    explainer = Explainer(stages, asking.engine.store, 0, stages.learn.owned[0].partition)
    with pytest.raises(StreamAppError, match="nothing is known of customer 'nobody'"):
        await explainer.load("nobody")


async def test_what_the_catalog_and_the_settings_bar_is_named() -> None:
    asking = await shop(
        CatalogItem("z3", stock=0.0),
        CatalogItem("z4", hidden=True),
        CatalogItem("z5", price=9.0),
        CatalogItem("z2"),
        events=[("view", "x"), ("purchase", "z1"), ("add_to_cart", "z0")],
        EXCLUDED_ITEMS="z6",
        PRICE_MAX="5",
        EXCLUDE_SEEN="1",
        EXCLUDE_CART="1",
        EXCLUDE_BOUGHT_DAYS="30",
    )
    asking.catalog.delete(asking.catalog.ids[asking.catalog.rows_n - 1 : asking.catalog.rows_n])
    reasons = {f"z{k}": await asking.reason(f"z{k}") for k in range(7)}
    assert reasons == {
        "z0": "in_cart",
        "z1": "bought",
        "z2": "deleted",
        "z3": "not_available",
        "z4": "hidden",
        "z5": "price",
        "z6": "excluded",
    }
    assert await asking.reason("x") == "seen"
    told = {*reasons.values(), "seen"}
    assert told == set(BARS) - {"", "category_full", "brand_full"}, "those have tests of their own"
    bought = (await asking.of("z1")).bought
    assert bought["until"] == float(bought["at"]) + 30 * 86_400
    assert "STREAM_APP_EXCLUDE_BOUGHT_DAYS" in str(bought["because"])
    answer = await asking.of("y")
    assert (answer.place, answer.rank) == (1, 1)
    excluded = await asking.of("z6")
    assert excluded.rank == 2 and excluded.score > 0, "where it would be without that"
    assert await asking.reason("z1", "cart_items") == "kind", "not in the cart"


@pytest.mark.parametrize(
    ("fields", "settings", "reason"),
    [
        ({"category": ("A",)}, {"CATEGORY_MAX": "1"}, "category_full"),
        ({"brand": "A"}, {"BRAND_MAX": "1"}, "brand_full"),
        ({"brand": "A", "category": ("A",)}, {"DIVERSITY": "0.9"}, "diversity"),
        (
            {"brand": "A", "category": ("A",)},
            {"BRAND_MAX": "1", "CATEGORY_MAX": "1"},
            "category_full",
        ),
    ],
)
async def test_a_cap_or_diversity_that_an_item_gives_way_to_is_named(
    fields: dict[str, object], settings: dict[str, str], reason: str
) -> None:
    alike = [CatalogItem(name, **fields) for name in ("z3", "z2")]  # type: ignore[arg-type]
    asking = await shop(*alike, events=VIEWED, **settings)
    assert [await asking.reason(name) for name in ("y", "z3", "z2")] == ["", "", reason]
    assert await asking.reason("z5") == "behind", "it would be without the cap, too"
    assert (await asking.of("z2")).rank == 3


async def test_a_new_item_in_its_place_is_named() -> None:
    fresh = [CatalogItem(f"new-{k}", added_ts=1.6e9 + k) for k in range(9)]
    asking = await shop(*fresh, EXPLORATION_SHARE="0.4")
    assert [await asking.reason(name) for name in ("y", "z2")] == ["", "exploration"]
    found = [await asking.of(item.item_id) for item in fresh]
    assert {answer.source for answer in found if answer.place} == {"exploration"}


@pytest.mark.parametrize(
    ("rule", "item"),
    [
        (Rule("r", "exclude", items=("z3",)), "z3"),
        (Rule("r", "exclude", ("brand=Acme",)), "z3"),
        (Rule("r", "include", items=("y", "z2")), "z3"),
        (Rule("r", "bury", items=("z3",), factor=0.01), "z3"),
        (Rule("r", "boost", ("brand=Bolt",), factor=9.0), "z2"),
        (Rule("r", "pin", items=("z5",)), "z2"),
        (Rule("r", "cap", by="category", most=1), "z2"),
        (Rule("r", "exclude", items=("z3",), lists=("home",), starts=LATER - 9), "z3"),
    ],
)
async def test_a_merchandising_rule_is_named_by_its_id(rule: Rule, item: str) -> None:
    asking = await shop(
        CatalogItem("z3", brand="Acme", category=("A",)),
        CatalogItem("z2", category=("A",)),
        CatalogItem("z4", brand="Bolt"),
    )
    assert await asking.reason(item) == ""
    asking.rules(Rule("another", "boost", items=("y",), factor=2.0), rule)
    answer = await asking.of(item)
    assert (answer.reason, answer.rules) == ("rule", ("r",))


async def test_rules_that_do_not_hold_here_are_not_named_and_pins_are() -> None:
    asking = await shop()
    asking.rules(
        Rule("over", "exclude", items=("z3",), ends=LATER - 9),
        Rule("elsewhere", "exclude", items=("z3",), lists=("cart",)),
        Rule("not-yet", "exclude", items=("z3",), steps=("checkout",)),
        Rule("hero", "pin", items=("z5",), place=2),
    )
    assert await asking.reason("z3") == ""
    pinned = await asking.of("z5")
    assert (pinned.place, pinned.source, pinned.rank) == (3, "pinned", 9)
    asking.rules(Rule("1", "pin", items=("z5",)), Rule("2", "pin", items=("z6",)))
    assert (await asking.of("z3")).rules == ("1", "2"), "each alone would leave it room"
    asking.rules(*(Rule(str(k), "pin", items=(f"z{k + 4}",)) for k in range(3)))
    assert (await asking.of("y")).rules == ("0", "1", "2")


async def test_a_list_of_another_kind_is_asked_about_as_it_would_be_made() -> None:
    asking = await shop(CatalogItem("x", category=("A",)), CatalogItem("y", category=("B",)))
    assert await asking.reason("y", "product_similar") == "kind", "of another category"
    assert await asking.reason("y", "product_complementary") == ""
    assert await asking.reason("y", "cart_items") == "no_list", "nothing is in the cart"
