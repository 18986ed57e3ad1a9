"""What `make quality` writes: sections made of real results."""

from pathlib import Path

from bench.quality import BLEND, END, SECTIONS, START, rewritten, sections_of, with_sections
from bench.quality_page import basket_section, cold_start_section, regret_tables, section
from stream_app.offline.blending import SHOPS, regret
from stream_app.offline.coldstart import cold_start
from stream_app.offline.evaluate import evaluate, split_by_time
from stream_app.offline.evaluate_baskets import evaluate_baskets
from tests.core.test_coldstart import OLD, shop
from tests.core.test_evaluate import SETTINGS, question
from tests.core.test_evaluate_report import orders

ROOT = Path(__file__).parents[2]


async def test_a_section_shows_all_measures_parts_gains_and_ablations(tmp_path: Path) -> None:
    halves = split_by_time(orders(tmp_path / "orders.csv"), 0.5)
    asked = question("live", group="user_id", compare=True, ablate=True, k=5, exclude_seen=False)
    result = await evaluate(*halves, asked, SETTINGS)
    text = section("evaluate --x", result)
    assert text.startswith("`evaluate --x`\n\n| n | hit rate (95 %) |")
    low, high = result["ndcg_interval"]
    assert f"{result['ndcg']:.4f} ({low:.4f} … {high:.4f})" in text
    for name in ("precision", "recall", "f1", "diversity", "novelty_bits", "gini"):
        assert f"{result[name]:.4f}" in text
    for title in ("precision", "F1", "diversity", "novelty (bits)", "the blend beside it"):
        assert title in text
    assert all(f"| {label} |" in text for label in result["by_ablation"])
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| without ")}
    assert widths == {5}, "label and three measures"
    baskets = basket_section("evaluate --basket", await evaluate_baskets(*halves, asked, SETTINGS))
    assert "2.0 different items in a basket" in baskets and "average precision" in baskets


async def test_new_items_and_regret_are_shown_with_their_intervals(tmp_path: Path) -> None:
    halves = split_by_time(shop(tmp_path / "shop.csv"), OLD / 300)
    found = await cold_start(*halves, SETTINGS, group="user_id", k=20, every=3)
    text = cold_start_section("evaluate-cold-start --x", found)
    assert "12 new items" in text and "| with content, catalog beforehand |" in text
    first = found["variants"]["with content, catalog beforehand"]["first"]
    assert f"{first['hit_rate']:.4f} ({first['hit_rate_interval'][0]:.4f} …" in text
    shops = {"mixed": await regret(SHOPS["mixed"], SETTINGS, moves=1_000)}
    table = regret_tables(shops)
    assert "regret at 650 | 800 | 1,000 |" in table and "| mixed: 0.30, 0.40, 0.30 |" in table
    best = min(v[-1] for name, v in shops["mixed"]["regret"].items() if name.endswith("only"))
    assert f"| {best:,.0f} (`" in table


def test_sections_that_were_not_measured_now_stay_and_those_of_no_command_go() -> None:
    first, second, *_ = SECTIONS
    old = f"head\n{START}\n`{second}`\n\nold\n\n`evaluate --gone`\n\nx\n\n{END}tail\n"
    page = rewritten(old, with_sections({first: f"`{first}`\n\nnew\n"}))
    assert page == f"head\n{START}\n`{first}`\n\nnew\n\n`{second}`\n\nold\n\n{END}tail\n"
    assert rewritten(page, with_sections({})) == page


def test_the_pages_have_their_marks_and_say_what_was_measured() -> None:
    for name in ("quality.md", "ranking.md"):
        text = (ROOT / "docs" / name).read_text()
        assert text.count(START) == text.count(END) == 1
    figures = (ROOT / "docs" / "quality.md").read_text().split(START)[1].split(END)[0]
    stamped = [text.count("\nMeasured at ") for text in sections_of(figures).values()]
    assert stamped and set(stamped) == {1}, "every figure says of which revision it is"
    assert BLEND not in SECTIONS, "its table stands in docs/ranking.md"
