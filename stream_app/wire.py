"""One event as it is sent, before anything was checked. Decoder and formats meet here."""

import msgspec


class Event(msgspec.Struct):
    """One event on the wire (JSON). Unknown fields are ignored; ids may be strings or integers."""

    event: str | None = None
    ts: float | None = None
    user_id: str | int | None = None
    session_id: str | int | None = None
    item_id: str | int | None = None
    event_id: str | int | None = None
    channel: str | None = None
    category: object = None  # text or a number; any other shape says nothing
    region: object = None
    quantity: float | None = None
    price: float | None = None
    rating: float | None = None
    query: str | None = None
    list: str | None = None  # of ours, that shows the item
    list_source: str | None = None  # that had put the item there, as its reason says
    position: int | None = None
    sa_data: str | None = None  # of internal records


class DeviceEvent(Event):
    """An event whose ``session_id`` is a device's, or a browser's: the same visit after visit.

    Other systems tell people apart by it before they are known. Pauses end its sessions.
    """
