"""What a message is about: the parts of an emit's ``payload``, each read at the moment of sending.

    payload: {cart: current, viewed: {last: 4}, similar: 4, coupon: $coupon}

A *selection* chooses goods out of the catalogue. Its name is one of ``SELECTIONS``, or it says so itself:
``pick: {select: on_sale, count: 6}``. ``exclude`` and ``price`` beside selections hold for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import tzinfo
from decimal import Decimal
from itertools import chain, islice
from typing import Any, Final, NamedTuple

from profiles import carts, orders
from profiles.aggregates import latest, recent
from profiles.catalogue import LOOKED_AT_MAX, Catalogue, Product, levels
from profiles.greeting import greeting
from profiles.moments import Duration, iso
from profiles.money import decimal_of, major, price_text, to_e6
from profiles.state import STATUSES, Instance, Profile
from profiles.taxonomy import EVENT_TYPES
from profiles.wire import Event, coupon_code
from rules.compare import normal
from rules.copurchases import BOUGHT_TOGETHER, partners
from rules.documents import Node
from rules.entities import matching
from rules.predicates import of_people
from rules.program import Need, Payload, PayloadPart, TriggerScope
from rules.slips import did_you_mean
from rules.spec import Judged, once, reasons

SELECTIONS: Final = ("co_purchased", "arrived_since", "on_sale", "similar", "personal")
SEEDS: Final = ("viewed", "cart", "bought", "order")
COUNT_MAX: Final = 20
RECENT_MAX: Final = 20
SEEDS_MAX: Final = 20
PRODUCT_CONTENT: Final = "product_content"
"""The list of contents that the catalogue itself holds."""

_FILTERS: Final = ("exclude", "price")
_OF_EVENT: Final = "$event."
_ACTIVITY: Final = tuple(sorted(name for name, one in EVENT_TYPES.items() if one.activity))

Ids = Callable[[Profile, Instance, int], Iterable[str]]
Owned = Callable[[Profile, int], frozenset[str]]


class Filters(NamedTuple):
    """What a selection leaves out: what is owned, and what costs less or more (millionths)."""

    owned: Owned | None = None
    least_e6: int = 0
    most_e6: int | None = None

    def takes(self, price_e6: int) -> bool:
        """Whether a price is one of those wanted."""
        return self.least_e6 <= price_e6 and (self.most_e6 is None or price_e6 <= self.most_e6)


def parts_of(
    payload: Node | None,
    scope: TriggerScope,
    key: str,
    asks: Callable[[str], Judged | None],
    of_event: Callable[[str, Node], str],
) -> tuple[PayloadPart, ...]:
    """Compile a payload.

    Args:
        key: the trigger's ``key``: which property of the opening event tells its instances apart.
        asks: a key -> the trigger's condition.
        of_event: (property, where it is named) -> under which name the journey keeps it of the event heard last.
    """
    named = payload.items() if payload is not None else []
    chosen = [name for name, node in named if _selects(name, node)]
    filters = Filters()
    if payload is not None and chosen:
        filters = _filters(payload, scope, filters)
        named = [(name, node) for name, node in named if name not in _FILTERS]
    parts = []
    for name, node in named:
        if name in chosen:
            read, need = _selection(name, node, filters, scope, key)
        else:
            said = _meant(name, node, scope) if node.value is True else None
            read, need = said or _part(node, scope, asks, of_event), _need(node)
        parts.append((name, read, need))
    return tuple(parts)


def coupon(profile: Profile, run: Instance, now_ms: int, goods: Catalogue) -> Any:
    """The journey's coupon; its code is completed by the shell."""
    given = run.context.get("coupon")
    if given is None:
        return None
    return {"code": coupon_code(given["stem"]), "offer": given["offer"], "valid_until": given["valid_until"]}


def _need(node: Node) -> Need:
    """A message about a cart, viewed products or what to read of one makes no sense without any."""
    is_list = node.is_map() and (node.get("last") is not None or node.get("map") is not None)
    return Need.THIS if node.value == "current" or is_list else Need.NOTHING


def _part(
    node: Node, scope: TriggerScope, asks: Callable[[str], Judged | None], of_event: Callable[[str, Node], str]
) -> Payload:
    """What a part of the payload is: a constant, ``current`` (the cart), ``{last: 4}`` (products viewed), ``{in: P3D}`` (the
    instant so long ahead), ``{any_item: pets}`` (those of them that match), ``{match: pets}`` (the one that the product is for),
    ``{map: product_content}`` (what to read of what was bought), ``$event.text`` (of the event heard last), ``$name``."""
    if node.value == "current":
        return _cart(scope.currency)
    if node.is_map() and node.get("last") is not None:
        return _last(node, scope)
    if node.is_map() and node.get("map") is not None:
        return _content(node, scope)
    if node.is_map() and (ahead := node.get("in")) is not None:
        node.known(("in",))
        length, zone = ahead.duration(), scope.zone
        return lambda profile, run, now_ms, goods: iso(length.after(now_ms, zone))
    if node.is_map() and (named := node.get("any_item")) is not None:
        node.known(("any_item", "where"))
        matches, _ = matching(named, node.get("where"), scope)
        return lambda profile, run, now_ms, goods: [one for one, _ in matches(profile, now_ms)]
    if node.is_map() and node.get("match") is not None:
        return _whose(node, scope)
    if node.value == "$explain":
        return lambda profile, run, now_ms, goods: [*run.context["because"], *reasons(asks(run.key), profile, now_ms)]
    if isinstance(node.value, str) and node.value.startswith(_OF_EVENT):
        kept = of_event(node.value.removeprefix(_OF_EVENT), node)
        return lambda profile, run, now_ms, goods: run.context.get("event", {}).get(kept)
    if isinstance(node.value, str) and node.value.startswith("$"):
        return _named(node, scope.currency)
    constant = node.plain()
    return lambda profile, run, now_ms, goods: constant


def _named(node: Node, currency: str) -> Payload:
    name = node.value[1:]
    if name == "key":
        return lambda profile, run, now_ms, goods: run.key
    if name == "due":
        return lambda profile, run, now_ms, goods: iso(now_ms)
    if name == "coupon":
        return coupon
    if name == "product":
        return lambda profile, run, now_ms, goods: _completed({"product_id": run.key}, goods, currency)
    known = ("run_out", "because", "news", "nth", "year", "level", "arm")
    if name not in known:
        all_of = ", ".join(f"${one}" for one in ("key", "due", "coupon", "product", "explain", "event.…", *known))
        node.wrong(f"one of {all_of} wanted, got {node.value!r}")
    return lambda profile, run, now_ms, goods: run.context.get(name)


def _meant(name: str, node: Node, scope: TriggerScope) -> Payload | None:
    """What is meant by ``greeting: true`` and ``free_delivery_gap: true``; of other names ``true`` is what it says."""
    if name == "greeting":
        locale = scope.locale
        return lambda profile, run, now_ms, goods: greeting(profile.traits, locale)
    if name != "free_delivery_gap":
        return None
    least_minor, currency = scope.free_delivery_minor, scope.currency
    if least_minor is None:
        node.wrong(
            "free_delivery_gap: the amount from which delivery is free wanted (defaults/free_delivery_from), got none"
        )
        return lambda profile, run, now_ms, goods: None

    def gap(profile: Profile, run: Instance, now_ms: int, goods: Catalogue) -> Any:
        """How much is missing of the journey's order, else of the cart; of money that cannot be compared nothing is said."""
        placed = [one for one in orders.fold(profile, STATUSES, currency) if one.order_id == run.key]
        cart = profile.carts.get(run.key) or carts.current(profile)
        if not placed and (cart is None or (cart.currency or currency) != currency):
            return None
        has_minor = placed[0].amount_minor if placed else carts.total_minor(cart) if cart is not None else 0
        missing_minor = max(0, least_minor - has_minor)
        return {
            "from": major(least_minor, currency),
            "gap": major(missing_minor, currency),
            "gap_minor": missing_minor,
            "currency": currency,
        }

    return gap


def _whose(node: Node, scope: TriggerScope) -> Payload:
    """``{match: pets}``: the first of a customer's pets of which something (its species, say) is a level of the category of
    the journey's product (dog: ``pets/dog/food``), or what a list of that name says of that level (``{dogs: dog}``)."""
    node.known(("match",))
    named = node.get("match")
    path = named.text() if named is not None else ""
    listed = scope.lists.get(path)
    said_of = {str(key): one.text() for key, one in listed.items()} if listed is not None and listed.is_map() else {}
    matches, _ = matching(named if named is not None else node.made(""), None, scope)

    def read(profile: Profile, run: Instance, now_ms: int, goods: Catalogue) -> Any:
        of_key = {line.product_id: line.category for order in profile.orders.values() for line in order.lines}
        product = goods.products.get(run.key)
        category = (product.said.get("category") if product is not None else "") or of_key.get(run.key) or run.key
        level_words = category.split("/")
        wanted = {normal(one) for one in (*level_words, *(said_of[one] for one in level_words if one in said_of))}
        for one, _ in matches(profile, now_ms):
            if any(isinstance(value, str) and normal(value) in wanted for value in one.values()):
                return one
        return None

    return read


# --- what the customer did ------------------------------------------------------------------------------------------


def _cart(currency: str) -> Payload:
    def read(profile: Profile, run: Instance, now_ms: int, goods: Catalogue) -> Any:
        cart = profile.carts.get(run.key) or carts.current(profile)
        if cart is None:
            return None
        money = cart.currency or currency
        total = carts.total_minor(cart)
        return {
            "cart_id": run.key or None,
            "currency": money,
            "total_minor": total,
            "total": major(total, money),
            "items": [_completed(one, goods, money) for one in carts.payload(cart)],
        }

    return read


def _last(node: Node, scope: TriggerScope) -> Payload:
    node.known(("last", "of", "distinct", "in_stock", *_FILTERS))
    last, of, distinct, in_stock = node.get("last"), node.get("of"), node.get("distinct"), node.get("in_stock")
    if distinct is not None and distinct.value is not True:
        distinct.wrong(f"distinct: true wanted, as each product is told once in any case, got {distinct.found()}")
    filters, is_sold = _filters(node, scope, Filters()), in_stock is not None and in_stock.truth()
    count = last.integer(least=1, most=RECENT_MAX, default=4) if last is not None else 4
    is_whole = filters == Filters() and not is_sold
    agg = _recent(scope, scope.event_types(of) if of is not None else ("product_viewed",), count if is_whole else 0)
    currency = scope.currency

    def read(profile: Profile, run: Instance, now_ms: int, goods: Catalogue) -> list[dict[str, Any]]:
        left_out = filters.owned(profile, now_ms) if filters.owned is not None else frozenset()

        def is_shown(product_id: str, said: dict[str, Any]) -> bool:
            """By what the catalogue knows now, else by what was said when it was seen."""
            product = goods.products.get(product_id)
            if product_id in left_out or (is_sold and product is not None and not product.is_sold):
                return False
            return filters.takes((product.price_e6 if product is not None else 0) or said.get("price_e6", 0))

        shown = (one for one in profile.aggs.get(agg) or [] if is_shown(one[1], one[2]))
        return [
            _completed({"product_id": product_id, "viewed_at": iso(at_ms), **said}, goods, currency)
            for at_ms, product_id, said in islice(shown, count)
        ]

    return read


def _recent(scope: TriggerScope, types: tuple[str, ...], count: int) -> int:
    """The statistic of the products seen last; ``count`` 0: as many as are ever kept."""
    return scope.aggregate(
        recent.SPEC, types, ",".join(types), lambda event: event.props.get("items") or [], count or RECENT_MAX
    )


def _content(node: Node, scope: TriggerScope) -> Payload:
    """``{map: product_content}``: of each product of the order (the journey's own, else the newest), what its buyer should
    read: by a list of the rules (product or category -> id), and by the catalogue."""
    node.known(("map",), required=("map",))
    named = node.get("map")
    name = named.text() if named is not None else ""
    listed = scope.lists.get(name)
    if listed is None and name != PRODUCT_CONTENT and named is not None:
        known = (*scope.lists, PRODUCT_CONTENT)
        named.wrong(f"a list of the rules or {PRODUCT_CONTENT} wanted, got {name!r}{did_you_mean(name, known)}")
    if listed is not None and not listed.is_map():
        listed.wrong(f"product or category: content wanted, got {listed.found()}")
    of_rules = {str(key): one.text() for key, one in listed.items()} if listed is not None and listed.is_map() else {}

    def read(profile: Profile, run: Instance, now_ms: int, goods: Catalogue) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for product_id, category in _lines(profile, run):
            content = dict(goods.content_of(product_id))
            product = goods.products.get(product_id)
            under = category or (product.said.get("category", "") if product is not None else "")
            for one in (product_id, *(levels(under) if under else ())):
                if one in of_rules:
                    content.setdefault(name, of_rules[one])
                    break
            if content:
                found[product_id] = {"product_id": product_id, "content": content}
                if product is not None and "name" in product.said:
                    found[product_id]["name"] = product.said["name"]
        return list(found.values())

    return read


def _lines(profile: Profile, run: Instance) -> list[tuple[str, str]]:
    """(product, category) of the lines of the journey's order, else of the newest."""
    order = profile.orders.get(run.key)
    if order is None and profile.orders:
        order = max(profile.orders.items(), key=lambda item: (item[1].first_ms(), item[0]))[1]
    return [(line.product_id, line.category) for line in order.lines] if order is not None else []


def _owned(node: Node, zone: tzinfo) -> Owned:
    """``owned``, or ``{owned_within: P90D}``: the products of counting orders, which need not be offered again."""
    window: Duration | None = None
    if node.is_map():
        node.known(("owned_within",), required=("owned_within",))
        within = node.get("owned_within")
        window = within.duration() if within is not None else None
    else:
        node.choice(("owned",))

    def owned(profile: Profile, now_ms: int) -> frozenset[str]:
        return frozenset(
            line.product_id
            for counted in orders.fold(profile, currency="")
            if window is None or window.after(counted.at_ms, zone) > now_ms
            for line in counted.lines
        )

    return owned


# --- selections -----------------------------------------------------------------------------------------------------


def _selects(name: str, node: Node) -> bool:
    return node.get("select") is not None if node.is_map() and name not in SELECTIONS else name in SELECTIONS


def _filters(node: Node, scope: TriggerScope, filters: Filters) -> Filters:
    exclude, price = node.get("exclude"), node.get("price")
    if exclude is not None:
        filters = filters._replace(owned=_owned(exclude, scope.zone))
    if price is not None:
        price.known(("gte", "lte"))
        least, most = price.get("gte"), price.get("lte")
        filters = filters._replace(
            least_e6=_e6(least) if least is not None else filters.least_e6,
            most_e6=_e6(most) if most is not None else filters.most_e6,
        )
    return filters


def _e6(node: Node) -> int:
    try:
        amount = decimal_of(node.value)
    except ValueError:
        amount = Decimal(-1)
    if amount < 0:
        node.wrong(f"an amount of 0 or more wanted, got {node.found()}")
        return 0
    return to_e6(amount)


def _selection(name: str, node: Node, filters: Filters, scope: TriggerScope, key: str) -> tuple[Payload, Need]:
    """Goods of the catalogue that can be bought now, the best first."""
    count, kind, since, seeds, optional, under = 6, name, "last_visit", "", False, ""
    if node.is_map():
        node.known(("select", "count", "since", "of", "under", "optional", *_FILTERS))
        filters = _filters(node, scope, filters)
        asked = {part: node.get(part) for part in ("select", "count", "since", "of", "under", "optional")}
        if (said := asked["select"]) is not None:
            kind = said.text() if said.value == "$arm" else said.choice(SELECTIONS)
        if (said := asked["count"]) is not None:
            count = said.integer(least=1, most=COUNT_MAX, default=count)
        if (said := asked["since"]) is not None:
            since = said.text()
        if (said := asked["of"]) is not None:
            seeds = said.choice(SEEDS)
        if (said := asked["under"]) is not None:
            under = said.text()
        if (said := asked["optional"]) is not None:
            if type(said.value) is not bool:
                said.wrong(f"true or false wanted, got {said.found()}")
            optional = said.value is True
        since_node = asked["since"] or node
    elif kind == "arrived_since":
        since, since_node = node.text(), node
    else:
        count, since_node = node.integer(least=1, most=COUNT_MAX, default=count), node
    kinds = SELECTIONS if kind == "$arm" else (kind,)
    ways = {one: _way(one, seeds, since, since_node, scope, key) for one in kinds}
    currency = scope.currency

    def read(profile: Profile, run: Instance, now_ms: int, goods: Catalogue) -> list[dict[str, Any]]:
        way = ways.get(run.context.get("arm", "") if kind == "$arm" else kind)
        if way is None or not goods.products:
            return []
        left_out = filters.owned(profile, now_ms) if filters.owned is not None else frozenset()
        chosen: dict[str, Product] = {}
        for product_id in islice(way(profile, run, now_ms, goods), LOOKED_AT_MAX):
            product = goods.products.get(product_id)
            if product is None or product_id in left_out or product_id in chosen or not product.is_sold:
                continue
            if not filters.takes(product.price_e6):
                continue
            if under and under not in levels(product.said.get("category", "")):
                continue
            chosen[product_id] = product
            if len(chosen) == count:
                break
        return [_completed({"product_id": one}, goods, currency) for one in chosen]

    return read, Need.NOTHING if optional else Need.ONE_OF_THEM


Way = Callable[[Profile, Instance, int, Catalogue], Iterator[str]]


def _way(kind: str, seeds: str, since: str, since_node: Node, scope: TriggerScope, key: str) -> Way:
    if kind == "on_sale":
        return lambda profile, run, now_ms, goods: goods.on_sale()
    if kind == "arrived_since":
        since_ms = _since(since, since_node, scope)
        return lambda profile, run, now_ms, goods: goods.arrived_since(since_ms(profile, now_ms))
    if kind == "co_purchased":
        bought = _seeds(seeds or ("order" if key == "order_id" else "bought"), scope)
        scope.fact(BOUGHT_TOGETHER)

        def together(profile: Profile, run: Instance, now_ms: int, goods: Catalogue) -> Iterator[str]:
            """As the shop says, then as customers bought it."""
            has = list(bought(profile, run, now_ms))
            return (one for one in chain(goods.accompanying(has), partners(profile.facts, has)) if one not in has)

        return together
    if kind == "similar":
        seen = _seeds(seeds or "viewed", scope)
        return lambda profile, run, now_ms, goods: _without(goods.similar, seen(profile, run, now_ms))
    scope.fact(BOUGHT_TOGETHER)
    viewed, owned = _seeds("viewed", scope), _seeds("bought", scope)

    def personal(profile: Profile, run: Instance, now_ms: int, goods: Catalogue) -> Iterator[str]:
        """What goes with what he bought, then what is like what he looked at, then what is cheaper; nothing he has."""
        has, saw = list(owned(profile, run, now_ms)), list(viewed(profile, run, now_ms))
        with_it = chain(goods.accompanying(has), partners(profile.facts, has))
        ways = (with_it, goods.similar(saw), goods.similar(has), goods.on_sale())
        return (one for way in ways for one in islice(way, LOOKED_AT_MAX // len(ways)) if one not in has)

    return personal


def _without(way: Callable[[Iterable[str]], Iterator[str]], seeds: Iterable[str]) -> Iterator[str]:
    known = list(seeds)
    return (one for one in way(known) if one not in known)


def _by_himself(event: Event) -> list[Any]:
    return once(event) if of_people(event.props) else []


def _since(text: str, node: Node, scope: TriggerScope) -> Callable[[Profile, int], int]:
    """From when on: his last visit (before now), his last order, or so long ago."""
    if text == "last_visit":
        agg = scope.aggregate(latest.SPEC, _ACTIVITY, "last_visit", _by_himself, 1)
        return lambda profile, now_ms: (profile.aggs.get(agg) or {}).get(None, profile.first_seen_ms)
    if text == "last_order":

        def last_order(profile: Profile, now_ms: int) -> int:
            counted = orders.fold(profile, currency="")
            return counted[-1].at_ms if counted else profile.first_seen_ms

        return last_order
    ago, zone = node.made(text).duration(), scope.zone
    return lambda profile, now_ms: ago.before(now_ms, zone)


def _seeds(kind: str, scope: TriggerScope) -> Ids:
    """Products that a selection starts from, the newest first."""
    if kind == "viewed":
        agg = _recent(scope, ("product_viewed",), 0)
        return lambda profile, run, now_ms: [one for _, one, _ in profile.aggs.get(agg) or ()]
    if kind == "cart":

        def in_cart(profile: Profile, run: Instance, now_ms: int) -> list[str]:
            cart = profile.carts.get(run.key) or carts.current(profile)
            return [one["product_id"] for one in carts.payload(cart)] if cart is not None else []

        return in_cart
    if kind == "order":
        return lambda profile, run, now_ms: [product_id for product_id, _ in _lines(profile, run)]

    def bought(profile: Profile, run: Instance, now_ms: int) -> list[str]:
        newest = (line for counted in reversed(orders.fold(profile, currency="")) for line in counted.lines)
        return list(islice(dict.fromkeys(line.product_id for line in newest), SEEDS_MAX))

    return bought


def _completed(item: dict[str, Any], goods: Catalogue, currency: str) -> dict[str, Any]:
    """An item with what the catalogue knows of it and it does not say; its price as text."""
    product = goods.products.get(item["product_id"])
    if product is not None:
        said = product.said
        for name in ("name", "brand", "category", "url", "image_url", "price_e6"):
            if name in said and not item.get(name):
                item[name] = said[name]
        currency = said.get("currency", currency)
        item["currency"] = currency
        item["in_stock"] = product.is_sold
        if product.price_e6 != item.get("price_e6"):
            item["price_now"] = price_text(product.price_e6, currency)
        if product.saves_ppm:
            item["old_price"] = price_text(said["old_price_e6"], currency)
    if "price_e6" in item:
        item["price"] = price_text(item["price_e6"], currency)
    return item
