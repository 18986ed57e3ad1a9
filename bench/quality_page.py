"""Show results of evaluations as Markdown, for docs/quality.md and docs/ranking.md."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
SHOWN = {
    "hit_rate": "hit rate",
    "mrr": "MRR",
    "ndcg": "NDCG",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "average_precision": "average precision",
    "coverage": "coverage",
    "diversity": "diversity",
    "novelty_bits": "novelty (bits)",
    "popularity_percentile": "popularity percentile",
    "gini": "Gini",
}
WITH_INTERVAL = ("hit_rate", "mrr", "ndcg")
REST = tuple(name for name in SHOWN if name not in WITH_INTERVAL)
PARTS = (("step", "by_step"), ("event", "by_event"), ("source alone", "by_source"))
BASKET = ("hit_rate", "recall", "precision", "f1", "ndcg", "average_precision")
CHECKPOINTS = (3, 5, 7)  # of the eight that evaluate-blend tells


def row(cells: Iterable[str]) -> str:
    """A line of a table.

    >>> row(["a", "b"])
    '| a | b |'
    """
    return "| " + " | ".join(cells) + " |"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A whole table."""
    return "\n".join([row(head), row(["---"] * len(head)), *map(row, rows)])


def spread(low_high: Sequence[float], sign: str = "") -> str:
    """An interval.

    >>> spread([0.1, 0.25]), spread([-0.1, 0.2], "+")
    ('0.1000 … 0.2500', '-0.1000 … +0.2000')
    """
    low, high = low_high
    return f"{low:{sign}.4f} … {high:{sign}.4f}"


def within(part: Result, name: str) -> str:
    """A measure with its interval."""
    return f"{part[name]:.4f} ({spread(part[f'{name}_interval'])})"


def section(command: str, result: Result) -> str:
    """What ``evaluate`` found."""
    return _evaluation(command, result, WITH_INTERVAL, REST)


def basket_section(command: str, result: Result) -> str:
    """What ``evaluate --basket`` found."""
    rest = [name for name in REST if name not in BASKET]
    of = f"{result['basket_items']:.1f} different items in a basket on average."
    return _evaluation(command, result, BASKET, rest, of)


def _evaluation(
    command: str, result: Result, measures: Sequence[str], rest: Sequence[str], note: str = ""
) -> str:
    names = [SHOWN[name] for name in measures]
    blocks = [f"`{command}`", note] if note else [f"`{command}`"]
    whole = [f"{result['n']:,}", *(within(result, name) for name in measures)]
    blocks.append(table(["n", *(f"{name} (95 %)" for name in names)], [whole]))
    others = [name for name in rest if name in result]
    blocks.append(table([SHOWN[name] for name in others], [[f"{result[n]:.4f}" for n in others]]))
    for title, key in PARTS:
        if len(result.get(key, ())) > 1:
            rows = [
                [label, f"{part['n']:,}", *(within(part, name) for name in measures)]
                for label, part in result[key].items()
            ]
            blocks.append(table([title, "n", *names], rows))
    if len(result.get("by_event", ())) > 1 and result["by_source"]:
        blocks.append(sources_by_event(result))
    if result["gain"]:
        blocks.append(gain_table(result["gain"]))
    if result["by_ablation"]:
        blocks.append(ablation_table(result["by_ablation"], measures))
    return "\n\n".join(blocks) + "\n"


def sources_by_event(result: Result) -> str:
    """Hit rate and MRR of the blend and of each source, by event type."""
    events = list(result["by_event"])
    head = [f"{event}: {SHOWN[name]}" for event in events for name in WITH_INTERVAL]
    sources = {name: part["by_event"] for name, part in result["by_source"].items()}
    rows = [
        [name, *(f"{parts[event][m]:.4f}" for event in events for m in WITH_INTERVAL)]
        for name, parts in ({"the blend": result["by_event"]} | sources).items()
    ]
    return table(["source alone", *head], rows)


def gain_table(gain: Result) -> str:
    """How far the blend is ahead of the best source of each measure, event by event."""
    rows = [
        [event, SHOWN[name], part["source"], f"{part['gain']:+.4f}", spread(part["interval"], "+")]
        for event, measures in gain.items()
        for name, part in measures.items()
    ]
    return table(["event", "measure", "best source alone", "the blend beside it", "95 %"], rows)


def ablation_table(ablations: Result, measures: Sequence[str]) -> str:
    """What is lost without a source; the intervals are those of the loss."""
    head = ["blend", *(f"{SHOWN[name]}: lost without it (95 %)" for name in measures)]
    rows = []
    for label, part in ablations.items():
        lost = (part["gain"][name] for name in measures)
        rows.append([label, *(f"{x['gain']:+.4f} ({spread(x['interval'], '+')})" for x in lost)])
    return table(head, rows)


def cold_start_section(command: str, result: Result) -> str:
    """What becomes of new items."""
    n = f"{result['new_items']:,} new items, {result['first_events']:,} first events of known"
    note = f"{n} customers, {result['predictions_of_new_items']:,} events 2 to 10."
    head = ["", "recommended while new", "hit rate, first event (95 %)"]
    head += ["hit rate, events 2 to 10 (95 %)", "beside without content (95 %)"]
    rows = []
    for name, part in result["variants"].items():
        gain = part["later_gain"]
        ahead = f"{gain['hit_rate']:+.4f} ({spread(gain['hit_rate_interval'], '+')})"
        rates = within(part["first"], "hit_rate"), within(part["later"], "hit_rate")
        rows.append([name, f"{part['recommended']:.3f}", *rates, ahead])
    return "\n\n".join([f"`{command}`", note, table(head, rows)]) + "\n"


def diversity_section(command: str, result: Result) -> str:
    """What diversity costs."""
    head = ("weight", "n", "hit rate", "MRR", "categories in a list", "pairs unlike", "1 - cosine")
    rows = []
    for weight, part in result["by_weight"].items():
        shown = f"{part['hit_rate']:.4f}", f"{part['mrr']:.4f}", f"{part['categories']:.1f}"
        rest = f"{part['unlike']:.3f}", f"{part['diversity']:.3f}"
        rows.append((weight, f"{result['n']:,}", *shown, *rest))
    return f"`{command}`\n\n{table(head, rows)}\n"


def regret_tables(shops: Result) -> str:
    """Regret of the learned blend by shop, beside fixed blends, and its gain in the later half."""
    moves = [next(iter(shops.values()))["moves"][at] for at in CHECKPOINTS]
    head = ["shop: popular, alike, following", f"learned: regret at {moves[0]:,}"]
    head += [f"{n:,}" for n in moves[1:]]
    head += [f"published at {moves[-1]:,}", "equal weights", "best single source"]
    late = ["hit rate of the later half: learned", "published", "best source", "best possible"]
    rows, gains = [], []
    for name, shop in shops.items():
        regret = {policy: found[CHECKPOINTS[-1]] for policy, found in shop["regret"].items()}
        single = {policy: lost for policy, lost in regret.items() if policy.endswith(" only")}
        best = min(single, key=lambda policy: single[policy])
        kind = ", ".join(f"{share:.2f}" for share in shop["shop"].values())
        learned = [f"{shop['regret']['learned'][at]:,.0f}" for at in CHECKPOINTS]
        fixed = [f"{regret[policy]:,.0f}" for policy in ("published weights", "equal weights")]
        alone = f"{single[best]:,.0f} (`{best.removesuffix(' only')}`)"
        reached = ("learned", "published weights", best, "best possible")
        rates = [f"{shop['late'][policy]:.4f}" for policy in reached]
        rows.append([f"{name}: {kind}", *learned, *fixed, alone, *rates])
        gains.append([name, f"{shop['gain']:+.4f}", spread(shop["gain_interval"], "+")])
    ahead = table(["shop", "learned beside published, later half", "95 %"], gains)
    return f"\n{table([*head, *late], rows)}\n\n{ahead}"
