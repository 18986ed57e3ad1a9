"""The items that a list is drawn from: recent, in the cart, the last one, bought, of interest."""

from stream_app.core.jit import kernel, signed
from stream_app.core.list_kinds import BOUGHT, IN_CART, LAST, RECENT
from stream_app.core.model import BOUGHT_DRAWN
from stream_app.core.revisits import Recent, Row, recent_items


@kernel
def _interests(user: Row, recent: Recent) -> int:
    """The user vector's items, strongest first; ties by id."""
    items, at_place = recent.items, recent.last
    n: int = signed(user.vector_n)
    for k in range(n):
        at = k
        while at > 0:
            other = at_place[at - 1]
            ahead = user.vector_weight[other] > user.vector_weight[k] or (
                user.vector_weight[other] == user.vector_weight[k]
                and user.vector_item[other] < user.vector_item[k]
            )
            if ahead:
                break
            at_place[at] = other
            at -= 1
        at_place[at] = k
    for k in range(n):
        items[k] = user.vector_item[at_place[k]]
    return n


@kernel
def anchors_of(user: Row, anchor: int, recent: Recent) -> tuple[int, int]:
    """Fill ``recent.items``, the most telling first; returns how many, and how many may come back.

    Of ``recent`` the other fields mean something only where items may come back.
    """
    if anchor == RECENT:
        n, _ = recent_items(user, recent)
        return n, n
    items = recent.items
    if anchor == IN_CART:
        n = signed(user.cart_n)
        for k in range(n):
            items[k] = user.cart_item[n - 1 - k]
    elif anchor == BOUGHT:
        bought_n: int = signed(user.bought_n)
        n = min(bought_n, BOUGHT_DRAWN)
        for k in range(n):
            items[k] = user.bought_item[bought_n - 1 - k]
    elif anchor == LAST:
        n = min(signed(user.ring_n), 1)
        if n > 0:
            items[0] = user.ring_item[signed(user.ring_n) - 1]
    else:
        n = _interests(user, recent)
    return n, 0
