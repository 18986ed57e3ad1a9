"""How often the knowledge base finds the answer, measured on a table of labelled messages.

python -m stream_app.offline.answers FILE LABEL TEXT [--embedding NAME] [--entries 1]

Some messages of each label become the questions of the base, all others ask. An entry of the
asking message's label is the answer; its intent is not told. Means over draws.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import orjson

from stream_app.core.knowledge import Entry, Knowledge
from stream_app.core.support import Embed, normalised
from stream_app.offline.crossval import drawn
from stream_app.offline.tables import Table, read_table
from stream_app.support_embedding import load_embedding

RANKS = (1, 3, 5)
DRAWS = 10


def found(
    table: Table, label: str, text: str, *, embed: Embed | None, per_label: int = 1, seed: int = 0
) -> dict[str, float]:
    """Share of questions whose answer is among the first ranks, and its mean reciprocal rank."""
    messages = [normalised(message) for message in table.column(text)]
    _, labels = np.unique(np.asarray(table.column(label)), return_inverse=True)
    known = drawn(labels, per_label, seed)
    entries = [Entry(str(row), messages[row], "", str(labels[row])) for row in known]
    asking = np.setdiff1d(np.arange(labels.size), known)
    index = Knowledge.of(entries, embed)
    likeness = index.likeness([messages[row] for row in asking])
    ranks = np.array(
        [
            int((labels[known][np.argsort(-scores, kind="stable")] == truth).argmax())
            for scores, truth in zip(likeness, labels[asking], strict=True)
        ]
    )
    shares = {f"found_at_{rank}": float((ranks < rank).mean()) for rank in RANKS}
    return {**shares, "mrr": float((1.0 / (1.0 + ranks)).mean())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON object with the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("label")
    parser.add_argument("text")
    parser.add_argument("--embedding", default="", help="as STREAM_APP_SUPPORT_EMBEDDING")
    parser.add_argument("--entries", type=int, default=1, help="of each label in the base")
    options = parser.parse_args(arguments)
    table, embed = read_table(options.file), load_embedding(options.embedding)
    draws = [
        found(table, options.label, options.text, embed=embed, per_label=options.entries, seed=n)
        for n in range(DRAWS)
    ]
    means = {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}
    print(orjson.dumps(means).decode())


if __name__ == "__main__":
    main()
