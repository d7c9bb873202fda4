"""Rules in plain words, English or Russian: what operators and kinds of entry say their own words with.

A plug-in's ``words`` is given its rule as plain values and a ``Tongue``, and says it by what the tongue offers. Russian
stands in forms that need no gender: «заказы: больше 3».
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

LANGUAGES: Final = ("en", "ru")

Words = Callable[[dict[str, Any], "Tongue"], str]
"""(the rule, the tongue) -> the rule in words."""

_ISO: Final = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_SHORT: Final = re.compile(r"(\d+)(s|m|h|d|w)")
_SHORT_PLACE: Final = {"w": 2, "d": 3, "h": 4, "m": 5, "s": 6}
_UNITS_EN: Final = ("year", "month", "week", "day", "hour", "minute", "second")
_UNITS_RU: Final = (
    ("год", "года", "лет", "года"), ("месяц", "месяца", "месяцев", "месяца"), ("неделю", "недели", "недель", "недели"),
    ("день", "дня", "дней", "дня"), ("час", "часа", "часов", "часа"), ("минуту", "минуты", "минут", "минуты"),
    ("секунду", "секунды", "секунд", "секунды"),
)  # fmt: skip
"""За один, за два, за пять; не менее одного."""

_CALENDAR: Final = {
    "today": ("today", "сегодня"),
    "this_week": ("this week", "на этой неделе"),
    "this_month": ("this month", "в этом месяце"),
    "this_quarter": ("this quarter", "в этом квартале"),
    "this_year": ("this year", "в этом году"),
    "yesterday": ("yesterday", "вчера"),
    "last_day": ("yesterday", "вчера"),
    "last_week": ("last week", "на прошлой неделе"),
    "last_month": ("last month", "в прошлом месяце"),
    "last_quarter": ("last quarter", "в прошлом квартале"),
    "last_year": ("last year", "в прошлом году"),
}
_COMPARED: Final = {
    "eq": ("{}", "{}"), "ne": ("not {}", "не {}"), "lt": ("less than {}", "меньше {}"), "lte": ("at most {}", "не больше {}"),
    "gt": ("more than {}", "больше {}"), "gte": ("at least {}", "не меньше {}"), "in": ("one of {}", "одно из: {}"),
    "not_in": ("none of {}", "ни одно из: {}"), "contains": ("containing {}", "содержит {}"),
    "contains_any": ("containing any of {}", "содержит что-то из: {}"), "contains_all": ("containing all of {}", "содержит всё из: {}"),
    "starts_with": ("beginning with {}", "начинается с {}"), "ends_with": ("ending with {}", "кончается на {}"),
    "matches": ("of the pattern {}", "по образцу {}"), "under": ("in {} or below", "в разделе {}"),
    "before": ("before {}", "раньше {}"), "after": ("{} or later", "{} или позже"),
}  # fmt: skip
_TRAITS_RU: Final = {
    "first_seen": "первое событие", "registered_at": "регистрация", "orders_paid": "оплаченные заказы",
    "first_order_at": "первый заказ", "last_order_at": "последний заказ", "cart.items": "товары в корзине",
    "cart.total": "сумма корзины", "cart.state": "состояние корзины", "cart.changed_at": "изменение корзины",
    "session.started_at": "начало визита", "gender": "пол", "address.city": "город", "address.country": "страна",
    "birthday": "день рождения", "language": "язык",
}  # fmt: skip
_EVENTS_RU: Final = {
    "order": "заказ", "product_viewed": "просмотр товара", "page_viewed": "просмотр страницы", "product_list_viewed": "просмотр раздела",
    "products_searched": "поиск товаров", "product_added": "товар в корзину", "product_removed": "товар из корзины",
    "cart_set": "новое содержимое корзины", "cart_viewed": "просмотр корзины", "checkout_started": "начало оформления",
    "order_completed": "заказ", "order_cancelled": "отмена заказа", "order_refunded": "возврат", "order_updated": "изменение заказа",
    "order_status_changed": "новый статус заказа", "receipt_registered": "чек", "registered": "регистрация", "logged_in": "вход",
    "identified": "сведения о человеке", "session_started": "начало визита", "session_ended": "конец визита",
    "email_sent": "отправка письма", "email_delivered": "доставка письма", "email_opened": "открытие письма",
    "email_link_clicked": "переход из письма", "unsubscribed": "отписка", "consent_changed": "изменение согласия",
    "sms_sent": "отправка SMS", "push_sent": "отправка push", "goal_reached": "достижение цели", "form_submitted": "отправка формы",
    "product_added_to_wishlist": "товар в избранное", "product_reviewed": "отзыв о товаре", "coupon_redeemed": "применение купона",
}  # fmt: skip


class Tongue:
    """One language, and how rules inside a rule are said."""

    def __init__(self, language: str, operators: Mapping[str, Words | None]) -> None:
        assert language in LANGUAGES, language
        self.language = language
        self._operators = operators
        self.steps: Callable[[Any], str] = str
        """Steps of a journey in words; set where these are known (``rules/say.py``)."""

    def pick(self, english: str, russian: str) -> str:
        """The one of this language."""
        return english if self.language == "en" else russian

    def rule(self, rule: Any, *, inside: bool = False) -> str:
        """A rule in words; ``inside`` another, one that is made of several stands in brackets."""
        if not isinstance(rule, dict):
            return str(rule)
        name = next((key for key in rule if key in self._operators), "")
        words = self._operators.get(name)
        if words is None:
            return self._plain(rule)
        said = words(rule, self)
        several = name in ("all", "any") and isinstance(rule[name], list) and len(rule[name]) > 1
        return f"({said})" if inside and several else said

    def _plain(self, value: Any) -> str:
        """What has no words of its own, as it is written."""
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key}: {self._plain(one)}" for key, one in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(self._plain, value)) + "]"
        return self.value(value)

    def several(self, rules: list[Any], word: str) -> str:
        """Rules joined by a word."""
        return f" {word} ".join(self.rule(one, inside=len(rules) > 1) for one in rules)

    def value(self, value: Any) -> str:
        """A value as written."""
        if value is True:
            return self.pick("yes", "да")
        if value is False:
            return self.pick("no", "нет")
        if isinstance(value, list):
            return ", ".join(map(self.value, value))
        return str(value)

    def trait(self, path: str) -> str:
        """A trait's name: «последний заказ», last order."""
        if self.language == "ru":
            return _TRAITS_RU.get(path) or f"«{path}»"
        return path.removesuffix("_at").replace("_", " ").replace(".", " ")

    def events(self, names: Any) -> str:
        """Names of event types; of several, any."""
        several = names if isinstance(names, list) else [names]
        if self.language == "ru":
            return " или ".join(f"«{_EVENTS_RU.get(str(name), str(name))}»" for name in several)
        return " or ".join(f"“{str(name).replace('_', ' ')}”" for name in several)

    def duration(self, text: Any, *, than: bool = False) -> str:
        """``P3M`` as 3 months, 3 месяца; ``than``: (at least) 3 месяцев. What is no duration is said as it is."""
        parts = self._parts(str(text))
        if parts is None:
            return self._plain(text)
        said = []
        for place, count in enumerate(parts):
            if count:
                said.append(f"{count} {self._unit(place, count, than)}")
        return " ".join(said)

    @staticmethod
    def _parts(text: str) -> list[int] | None:
        short = _SHORT.fullmatch(text)
        if short:
            parts = [0] * 7
            parts[_SHORT_PLACE[short[2]]] = int(short[1])
            return parts
        iso = _ISO.fullmatch(text)
        if iso is None or not any(iso.groups()):
            return None
        return [int(one or 0) for one in iso.groups()]

    def _unit(self, place: int, count: int, than: bool) -> str:
        if self.language == "en":
            return _UNITS_EN[place] + ("s" if count != 1 else "")
        one, few, many, of_one = _UNITS_RU[place]
        is_one = count % 10 == 1 and count % 100 != 11
        if than:
            return of_one if is_one else many
        is_few = count % 10 in (2, 3, 4) and count % 100 not in (12, 13, 14)
        return one if is_one else few if is_few else many

    def compared(self, asked: Any) -> str:
        """Comparisons, ``{gte: 3, lt: 10}``: at least 3 and less than 10."""
        if not isinstance(asked, dict):
            return self.value(asked)
        said = []
        for op, operand in asked.items():
            if op == "between" and isinstance(operand, list) and len(operand) == 2:
                low, high = map(self.value, operand)
                said.append(self.pick(f"from {low} to {high}", f"от {low} до {high}"))
            elif op in ("older_than", "newer_than"):
                age = self.duration(operand, than=True)
                said.append(
                    self.pick(f"at least {age} ago", f"не менее {age} назад")
                    if op == "older_than"
                    else self.pick(f"less than {age} ago", f"менее {age} назад")
                )
            elif op in ("exists", "missing"):
                said.append(self.there((op == "exists") == (operand is True)))
            elif op in _COMPARED:
                said.append(
                    self.pick(*_COMPARED[op]).format(
                        self.value(operand) if not isinstance(operand, dict) else self._plain(operand)
                    )
                )
            elif op != "field":
                said.append(f"{op.replace('_', ' ')} {self._plain(operand)}")
        return self.pick(" and ", " и ").join(said)

    def there(self, is_there: bool) -> str:
        """Whether a value is known."""
        return self.pick("known" if is_there else "not known", "известно" if is_there else "неизвестно")

    def conditions(self, asked: Any) -> str:
        """``[{category: tea}, {price: {gte: 5}}]``: category tea, price at least 5."""
        several = asked if isinstance(asked, list) else [asked]
        return self.pick(" and ", " и ").join(
            f"{name} {self.compared(wanted)}"
            for one in several
            if isinstance(one, dict)
            for name, wanted in one.items()
        )

    def window(self, asked: Any) -> str:
        """``{within: P7D}``: within 7 days, за 7 дней."""
        if not isinstance(asked, dict):
            return self._window("within", asked)
        said = [self._window(name, one) for name, one in asked.items() if name != "zone"]
        if asked.get("zone") == "profile":
            said.append(self.pick("by the customer's own clock", "по часам клиента"))
        return ", ".join(said)

    def _window(self, name: str, asked: Any) -> str:
        if name == "calendar" and asked in _CALENDAR:
            return self.pick(*_CALENDAR[asked])
        if name == "within" and isinstance(asked, dict):
            length = f"{asked.get('times')} × {self.trait(str(asked.get('of')))}"
            return self.pick("within ", "за ") + length
        if name == "within":
            return self.pick("within ", "за ") + self.duration(asked)
        if name == "between" and isinstance(asked, list) and len(asked) == 2:
            if self._parts(str(asked[0])) is None:
                return self.pick(f"from {asked[0]} to {asked[1]}", f"с {asked[0]} по {asked[1]}")
            near, far = (self.duration(one, than=True) for one in asked)
            return self.pick(f"{near} to {far} ago", f"от {near} до {far} назад")
        if name == "after":
            return self.pick(f"from {asked} on", f"начиная с {asked}")
        if name == "before":
            return self.pick(f"before {asked}", f"до {asked}")
        if name in ("session", "since"):
            return self.pick("in this visit", "в этом визите")
        if name == "since_last":
            of = asked if isinstance(asked, dict) else {"did": asked}
            said = self.events(of.get("did"))
            if "where" in of:
                said += self.pick(" where ", " где ") + self.conditions(of["where"])
            if "item" in of:
                said += self.pick(" with items: ", " с товарами: ") + self.conditions(of["item"])
            return self.pick(f"since the last {said}", f"после последнего события {said}")
        return f"{name.replace('_', ' ')} {self._plain(asked)}"
