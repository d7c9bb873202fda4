"""Which orders a refund takes back, when it names none: the customer's latest earlier ones that hold its products.

A till's return or a credit note often names the goods and not the order. Each of its lines is laid against the
customer's orders before it, newest first, by product and remaining quantity; what one order cannot cover goes on to
the next older one. What no known order covers is left over: a purchase from before the file, a manual credit, a
discount. It must not lower orders that it has nothing to do with.

Inputs come in order of time. Only the newest ``ORDERS_MAX`` orders of a customer are kept, as in the order book.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

ORDERS_MAX: Final = 200


class OrderMemory:
    """What customers have bought and not yet given back."""

    def __init__(self) -> None:
        self._orders: dict[str, deque[tuple[str, dict[str, int]]]] = {}

    def bought(self, address: str, order_id: str, items: list[dict[str, Any]]) -> None:
        """Remember an order's lines (canonical items)."""
        pieces: dict[str, int] = {}
        for item in items:
            pieces[item["product_id"]] = pieces.get(item["product_id"], 0) + item["quantity"]
        self._orders.setdefault(address, deque(maxlen=ORDERS_MAX)).append((order_id, pieces))

    def match(self, address: str, items: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
        """Lay the lines of a refund against the customer's orders, and count them as given back.

        Args:
            address: the customer's.
            items: canonical items; one that is split keeps its total ``amount_minor`` to the last unit.
        Returns:
            (order id, its part of the lines), newest order first; "" for what no order covers, last.
        """
        parts: dict[str, list[dict[str, Any]]] = {}
        for item in items:
            left, amount_left = item["quantity"], item.get("amount_minor", 0)
            for order_id, pieces in reversed(self._orders.get(address, ())):
                taken = min(left, pieces.get(item["product_id"], 0))
                if taken:
                    amount = amount_left * taken // left
                    parts.setdefault(order_id, []).append(item | {"quantity": taken, "amount_minor": amount})
                    pieces[item["product_id"]] -= taken
                    left, amount_left = left - taken, amount_left - amount
                if not left:
                    break
            if left:
                parts.setdefault("", []).append(item | {"quantity": left, "amount_minor": amount_left})
        rest = parts.pop("", None)
        newest_first = [order_id for order_id, _ in reversed(self._orders.get(address, ()))]
        found = sorted(parts.items(), key=lambda part: newest_first.index(part[0]))
        return [*found, ("", rest)] if rest else found
