"""A busy shop's live events, drawn from a seed: visits, carts, orders, sign-ins, repeats, late tellings.

They come in portions. ``flow`` is what happens in between; ``close`` is what ties profiles together, all of it told in
one instant, when everything before has been applied: sign-ins that bring an anonymous visit to its customer, and
stragglers of visits that are tied already. So whatever order the partitions are worked in, no command between shards
comes behind its time (RELIABILITY §1: while nothing is ``reordered``, a replay gives the same bytes).

With ``mixed`` the ties are told in the middle of the flow instead, where they happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random  # noqa: TID251 - a seeded stream is the same stream
from typing import Any, Final

from profiles.moments import DAY_MS, HOUR_MS, SECOND_MS, parse_instant
from profiles.taxonomy import canonical, resolve
from profiles.wire import Event

START_MS: Final = parse_instant("2026-03-02T00:00:00Z")
PORTION_MS: Final = 12 * HOUR_MS
CURRENCY: Final = "USD"
PRODUCTS: Final = [(f"p-{number}", 5 + number * 7 % 90, f"c{number % 7}/d{number % 3}") for number in range(200)]


@dataclass(slots=True)
class Portion:
    """What happens between two instants, in order of time; and what is told at the second."""

    flow: list[Event] = field(default_factory=list)
    close: list[Event] = field(default_factory=list)


@dataclass(slots=True)
class _Shopper:
    number: int
    devices: int = 0
    visitor: str = ""  # an anonymous visit of his that nobody knows to be his
    tied: list[str] = field(default_factory=list)
    cart: dict[int, int] = field(default_factory=dict)
    visitor_cart: dict[int, int] = field(default_factory=dict)
    orders: int = 0
    is_registered: bool = False

    @property
    def address(self) -> str:
        return f"user:u-{self.number}"


class _Maker:
    def __init__(self, seed: int, customers: int) -> None:
        self.random = Random(seed)
        self.shoppers = [_Shopper(number) for number in range(customers)]
        self.made = 0

    def event(
        self,
        at_ms: int,
        name: str,
        address: str,
        raw: dict[str, Any],
        *others: str,
        traits: dict[str, Any] | None = None,
    ) -> Event:
        self.made += 1
        kind = resolve(name)
        draw = self.random.random()
        # Most are told within two seconds; a few by a telephone that was off.
        late_ms = int(draw * 2_000) if draw < 0.98 else int(self.random.random() * HOUR_MS)
        return Event(
            message_id=f"m-{self.made}",
            source="web",
            type=kind.name,
            at_ms=at_ms - late_ms,
            received_ms=at_ms,
            address=address,
            identifiers=others,
            props=canonical(kind, raw),
            traits=traits or {},
        )

    def visit(self, shopper: _Shopper, start_ms: int, end_ms: int) -> Iterator[Event]:
        draw = self.random.random
        is_visitor = bool(shopper.visitor) or draw() < 0.35
        if is_visitor and not shopper.visitor:
            shopper.devices += 1
            shopper.visitor = f"anon:a-{shopper.number}-{shopper.devices}"
        address = shopper.visitor if is_visitor else shopper.address
        others = tuple(shopper.tied[-1:]) if not is_visitor else ()
        cart = shopper.visitor_cart if is_visitor else shopper.cart
        at_ms = start_ms

        def tell(name: str, **raw: Any) -> Event:
            return self.event(at_ms, name, address, raw, *others)

        for _ in range(1 + int(draw() * 6)):
            at_ms += int((5 + draw() * 180) * SECOND_MS)
            if at_ms >= end_ms:
                return
            product = int(draw() * draw() * len(PRODUCTS))
            item = _item(product)
            what = draw()
            if what < 0.2:
                yield tell("Page Viewed", path=f"/page/{product}", url=f"https://shop.example/page/{product}")
            elif what < 0.6:
                yield tell("Product Viewed", **item)
            elif what < 0.85:
                cart[product] = cart.get(product, 0) + 1
                yield tell("Product Added", **item, quantity=1)
            elif what < 0.9 and cart:
                gone = min(cart)
                del cart[gone]
                yield tell("Product Removed", **_item(gone))
            elif what < 0.93:
                yield tell("Checkout Started", currency=CURRENCY)
            elif what < 0.96 and not is_visitor:
                yield tell("Email Link Clicked", campaign="spring", url="https://shop.example/")
            elif what < 0.98 and not is_visitor and not shopper.is_registered:
                shopper.is_registered = True
                yield tell("Signed Up", method="email")
            elif not is_visitor and shopper.orders:
                back = f"o-{shopper.number}-{1 + int(draw() * shopper.orders)}"
                yield tell("Order Cancelled", order_id=back) if draw() < 0.5 else tell("Order Refunded", order_id=back)
            else:
                yield tell("Quiz Finished", score=int(draw() * 10))
        if cart and not is_visitor and draw() < 0.5:
            at_ms += int((20 + draw() * 120) * SECOND_MS)
            if at_ms >= end_ms:
                return
            shopper.orders += 1
            bought = [{**_item(product), "quantity": quantity} for product, quantity in sorted(cart.items())]
            cart.clear()
            yield tell(
                "Order Completed",
                order_id=f"o-{shopper.number}-{shopper.orders}",
                currency=CURRENCY,
                total=sum(one["price"] * one["quantity"] for one in bought),
                products=bought,
            )

    def sign_in(self, shopper: _Shopper, at_ms: int) -> Event:
        visitor, shopper.visitor = shopper.visitor, ""
        shopper.tied.append(visitor)
        for product, quantity in shopper.visitor_cart.items():
            shopper.cart[product] = shopper.cart.get(product, 0) + quantity
        shopper.visitor_cart.clear()
        traits = {"email": f"u{shopper.number}@shop.example", "plan": "gold" if shopper.number % 9 == 0 else "basic"}
        return self.event(at_ms, "Identify", shopper.address, {}, visitor, traits=traits)

    def straggler(self, shopper: _Shopper, at_ms: int) -> Event:
        product = int(self.random.random() * len(PRODUCTS))
        return self.event(at_ms, "Product Viewed", shopper.tied[-1], _item(product))

    def ties(self, at_ms: int) -> Iterator[Event]:
        """At most one for each shopper: of two, nobody could say which comes first."""
        for shopper in self.shoppers:
            if shopper.visitor and self.random.random() < 0.6:
                yield self.sign_in(shopper, at_ms)
            elif shopper.tied and self.random.random() < 0.05:
                yield self.straggler(shopper, at_ms)

    def portion(self, start_ms: int, events: int, *, mixed: bool) -> Portion:
        end_ms = start_ms + PORTION_MS
        flow: list[Event] = []
        while len(flow) < events:
            shopper = self.shoppers[int(self.random.random() ** 1.5 * len(self.shoppers))]
            at_ms = start_ms + int(self.random.random() * PORTION_MS)
            flow.extend(self.visit(shopper, at_ms, end_ms))
        flow += [
            _again(told, min(end_ms - 1, told.received_ms + int(self.random.random() * HOUR_MS)))
            for told in self.random.sample(flow, len(flow) // 70)
        ]
        close = list(self.ties(end_ms))
        if mixed:
            flow += [_again(tie, start_ms + int(self.random.random() * PORTION_MS)) for tie in close]
            close = []
        flow.sort(key=lambda event: event.received_ms)
        flow.append(self.tick(end_ms))
        return Portion(flow, [*close, self.tick(end_ms + 1)])

    def tick(self, at_ms: int) -> Event:
        """Somebody whom nothing else is about; he tells the log what time it is."""
        return self.event(at_ms, "Page Viewed", "anon:tick", {"path": "/"})


def live(seed: int, *, events: int, customers: int, portions: int, mixed: bool = False) -> list[Portion]:
    """The stream: about ``events`` events of ``customers`` in ``portions``; then only time passes: four days, in which
    the second letters come, and a hundred, in which everybody becomes a lapsed buyer."""
    maker = _Maker(seed, customers)
    told = [
        maker.portion(START_MS + number * PORTION_MS, events // portions, mixed=mixed) for number in range(portions)
    ]
    end_ms = START_MS + portions * PORTION_MS
    return [*told, Portion([maker.tick(end_ms + 4 * DAY_MS)]), Portion([maker.tick(end_ms + 100 * DAY_MS)])]


def _again(event: Event, at_ms: int) -> Event:
    return Event(
        event.message_id,
        event.source,
        event.type,
        min(event.at_ms, at_ms),
        at_ms,
        event.address,
        event.identifiers,
        event.props,
        event.traits,
    )


def _item(product: int) -> dict[str, Any]:
    name, price, category = PRODUCTS[product]
    return {"product_id": name, "price": price, "category": category, "currency": CURRENCY}
