"""How to address a person in a message: by first name where one is known that can be printed, else without.

What stands in a name field is typed by hand: e-mail addresses, ``test``, ``ИВАН``, ``asdf``, two letters, a surname first. A
letter that opens with that is worse than one without a name, so a name is used only when it looks like one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from profiles.state import Trait

TEXTS: Final = {"en": ("Hello, {}!", "Hello!"), "ru": ("Здравствуйте, {}!", "Здравствуйте!")}
"""Language -> (with a name, without)."""

_BETWEEN: Final = re.compile(r"[-'’ ]")
_WORD: Final = re.compile(r"[^\W\d_]+")
_LETTERS_MAX: Final = 24
_NO_NAMES: Final = frozenset(
    "test тест user admin guest client customer unknown anonymous none null undefined name firstname string qwerty asdf asd abc "
    "имя клиент покупатель гость аноним нет неизвестно йцукен фыва ааа mr mrs ms г-н г-жа".split()
)
_PATRONYMIC: Final = re.compile(r".+(вич|вна|ична|инична|оглы|кызы)")
_CYRILLIC: Final = re.compile(r"[а-яё]", re.IGNORECASE)


def name_of(traits: Mapping[str, Trait]) -> str | None:
    """The first name as it may be printed, from ``first_name`` or a full ``name``; ``None`` where nothing looks like one."""
    for trait, find in (("first_name", str), ("name", _first_of)):
        said = traits.get(trait)
        if said is not None and isinstance(said.value, str) and (name := _clean(find(said.value))) is not None:
            return name
    return None


def greeting(traits: Mapping[str, Trait], locale: str) -> str:
    """A first line that is right for everybody: never an empty place where a name should stand.

    Args:
        traits: the person's; ``locale`` among them names the language, else the letters of the name do.
        locale: the shop's own, for whom neither tells.
    """
    name = name_of(traits)
    said = traits.get("locale")
    asked = said.value if said is not None and isinstance(said.value, str) else ""
    language = asked[:2].lower()
    if language not in TEXTS:
        language = "ru" if name is not None and _CYRILLIC.search(name) else locale[:2].lower()
    with_name, without = TEXTS.get(language, TEXTS["en"])
    return with_name.format(name) if name is not None else without


def _first_of(full: str) -> str:
    """``Ana Kask`` -> ``Ana``; ``Иванов Иван Петрович`` -> ``Иван``; ``Kask, Ana`` -> ``Ana``."""
    surname, comma, rest = full.partition(",")
    words = (rest if comma else surname).split()
    if len(words) == 3 and _PATRONYMIC.fullmatch(words[2].lower()):
        return words[1]
    return words[0] if words else ""


def _clean(said: str) -> str | None:
    name = " ".join(said.split()).strip(".,!")
    words = _BETWEEN.split(name)
    if not 2 <= len(name) <= _LETTERS_MAX or len(words) > 2 or not all(map(str.isalpha, words)):
        return None
    plain = name.casefold()
    if plain in _NO_NAMES or len(set(plain)) == 1:
        return None
    if name.isupper() or name.islower():
        name = _WORD.sub(lambda word: word[0].capitalize(), name)
    return name
