"""What an event file says about its items: the catalog that evaluation may know by then."""

from collections.abc import Iterable

from stream_app.core.catalog import CatalogItem
from stream_app.offline.eventfile import EventTable

_SEPARATORS = ("/", ">", "|")


class Describer:
    """Catalog records of items, each made of the first event that names it."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def new_items(self, events: EventTable, rows: Iterable[int]) -> list[CatalogItem]:
        """Records of the items that ``rows`` name for the first time; none without such columns."""
        if not {"title", "category", "brand"} & events.texts.keys():
            return []
        found = []
        for row in rows:
            item = events.item_id[row]
            if item and item not in self._known:
                self._known.add(item)
                found.append(_record(events, row, item))
        return found


def _record(events: EventTable, row: int, item: str) -> CatalogItem:
    texts = {name: column[row] or "" for name, column in events.texts.items()}
    prices = events.numbers.get("price")
    price = None if prices is None or not prices[row] > 0 else float(prices[row])
    return CatalogItem(
        item,
        title=texts.get("title", ""),
        category=category_path(texts.get("category", "")),
        brand=texts.get("brand", ""),
        price=price,
        ts=float(events.ts[row]),
    )


def category_path(text: str) -> tuple[str, ...]:
    """The parts of a category as files write it.

    >>> category_path("Shoes > Boots"), category_path("Shoes"), category_path("")
    (('Shoes', 'Boots'), ('Shoes',), ())
    """
    for separator in _SEPARATORS:
        if separator in text:
            return tuple(part.strip() for part in text.split(separator) if part.strip())
    return (text,) if text else ()
