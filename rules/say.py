"""Every rule in plain words, in English and in Russian (SPEC D9). Operators and kinds of entry bring their own."""

from __future__ import annotations

from typing import Any, Final

from rules.compile import OPERATORS, STEPS, TRIGGER_KINDS
from rules.program import CompiledTrigger
from rules.rulebook import CompiledSegment, Rulebook
from rules.words import LANGUAGES, Tongue

_OPERATOR_WORDS: Final = {name: spec.words for name, spec in OPERATORS.items()}


def tongue(language: str) -> Tongue:
    """The tongue of a language, ``en`` or ``ru``, with the words of every operator."""
    made = Tongue(language, _OPERATOR_WORDS)
    made.steps = lambda steps: _steps(steps, made)
    return made


def say_segment(segment: CompiledSegment, language: str) -> str:
    """Who is in a segment."""
    t, rule = tongue(language), segment.rule
    if segment.is_static:
        return _sentence(_static(rule, t))
    when = rule.get("when") if isinstance(rule, dict) and "when" in rule else rule
    said = t.rule(when)
    stays = rule.get("stays_while") if isinstance(rule, dict) else None
    if stays is not None:
        said += t.pick("; stays while ", "; остаётся, пока ") + t.rule(stays, inside=True)
    return _sentence(said)


def _static(rule: dict[str, Any], t: Tongue) -> str:
    if "form_at" not in rule:
        return t.pick("who was put in by hand or list, for good", "внесённые вручную или списком, навсегда")
    who, at = t.rule(rule["formed_from"], inside=True), rule["form_at"]
    return t.pick(
        f"formed at {at} of those of whom it held then: {who}", f"составлен {at} из тех, о ком тогда верно: {who}"
    )


def say_trigger(trigger: CompiledTrigger, language: str) -> str:
    """Who enters a trigger, what follows, and what ends it."""
    t, document = tongue(language), trigger.document
    on = document["on"]
    spec = TRIGGER_KINDS[next(name for name in TRIGGER_KINDS if name in on)]
    entry = spec.words(on, t) if spec.words is not None else str(on)
    said = t.pick("When ", "Когда ") + entry
    if document.get("when") is not None:
        said += t.pick(", if ", ", если ") + t.rule(document["when"])
    sentences = [f"{said}: {_steps(document['steps'], t)}"]
    if document.get("cancel_on"):
        sentences.append(t.pick("Cancelled by ", "Отменяет ") + _listeners(document["cancel_on"], t))
    if document.get("restart_on"):
        sentences.append(t.pick("Begun anew by ", "Начинает заново ") + _listeners(document["restart_on"], t))
    again = document.get("re_entry")
    if again == "once":
        sentences.append(t.pick("Once for each customer", "Один раз для каждого клиента"))
    elif isinstance(again, dict):
        sentences.append(_again(again, t))
    if (expires := document.get("expires")) is not None:
        ends, within = ("in", t.value(expires["in"])) if "in" in expires else ("not_in", t.value(expires["not_in"]))
        sentences.append(
            t.pick(
                f"Over once the order is {'' if ends == 'in' else 'no longer '}{within}",
                f"Кончается, когда заказ {'' if ends == 'in' else 'уже не '}{within}",
            )
        )
    if document.get("migration") in ("restart", "move"):
        sentences.append(
            t.pick("Whoever is under way when this changes begins anew", "Кто в пути при смене правил, начинает заново")
            if document["migration"] == "restart"
            else t.pick(
                "Whoever is under way when this changes goes on in it",
                "Кто в пути при смене правил, идёт дальше по новым",
            )
        )
    if (conversion := document.get("conversion")) is not None:
        within = t.duration(conversion.get("within"))
        sentences.append(
            t.pick(f"Orders within {within} are what it brought", f"Его заказы: за {within} после письма")
            if trigger.conversion is not None and not trigger.conversion.wanted
            else t.pick("It is for ", "Цель: ")
            + _converts(conversion, t)
            + t.pick(f" within {within}", f" за {within}")
        )
    consent = document.get("consent")
    if isinstance(consent, dict):
        channel, is_out = consent.get("channel"), consent.get("mode") == "opt_out"
        sentences.append(
            t.pick(f"Unless {channel} was refused", f"Если не было отказа: {channel}")
            if is_out
            else t.pick(f"Only with consent to {channel}", f"Только с согласием: {channel}")
        )
    return " ".join(map(_sentence, sentences))


def _converts(conversion: dict[str, Any], t: Tongue) -> str:
    if "goal" in conversion:
        return t.pick(f"the goal {conversion['goal']}", f"цель {conversion['goal']}")
    where = t.pick(" where ", " где ") + t.conditions(conversion["where"]) if "where" in conversion else ""
    return t.events(conversion.get("event")) + where


def _again(again: dict[str, Any], t: Tongue) -> str:
    if "per" in again:
        if again["per"] == "grant":
            return t.pick("Once for each consent that is given", "Один раз на каждое данное согласие")
        units = {"day": "день", "week": "неделю", "month": "месяц", "year": "год"}
        return t.pick(f"Once a {again['per']}", f"Не чаще раза в {units.get(again['per'], again['per'])}")
    after = t.duration(again.get("after"), than=True)
    return t.pick(f"Again after {after} at the earliest", f"Снова не раньше чем через {t.duration(again.get('after'))}")


def in_words(said: CompiledSegment | CompiledTrigger) -> dict[str, str]:
    """Language -> a segment or a trigger in words."""
    say: Any = say_segment if isinstance(said, CompiledSegment) else say_trigger
    return {language: say(said, language) for language in LANGUAGES}


def say_all(rulebook: Rulebook, language: str) -> dict[str, str]:
    """Name -> words, of all segments and then of all triggers."""
    said = {one.name: say_segment(one, language) for one in sorted(rulebook.segments, key=lambda one: one.name)}
    return said | {name: say_trigger(one, language) for name, one in sorted(rulebook.triggers.items())}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _listeners(several: Any, t: Tongue) -> str:
    said = []
    for one in several if isinstance(several, list) else [several]:
        if one.get("state") is not None:
            said.append(t.pick("an empty cart", "пустая корзина"))
        else:
            same = one.get("match")
            said.append(
                t.events(one.get("event")) + (t.pick(f" of the same {same}", f" с тем же {same}") if same else "")
            )
    return t.pick(" or ", " или ").join(said)


def _steps(steps: Any, t: Tongue) -> str:
    return ", ".join(_step(one, t) for one in (steps if isinstance(steps, list) else [steps]))


def _step(step: Any, t: Tongue) -> str:
    if step == "exit" or "exit" in step:
        return t.pick("end", "конец")
    if "wait" in step:
        asked = step["wait"]
        if not isinstance(asked, dict):
            return t.pick("wait ", "ждать ") + t.duration(asked)
        within = t.pick(" (but not beyond the day)", " (но не дольше этого дня)") if asked.get("at_most") else ""
        return t.pick("wait ", "ждать ") + t.duration(asked.get("for")) + within
    if "emit" in step:
        asked = step["emit"]
        by = (
            t.pick(" by ", ", канал: ") + t.value(asked["channel"])
            if isinstance(asked, dict) and "channel" in asked
            else ""
        )
        return t.pick("send ", "отправить ") + str(asked.get("template") if isinstance(asked, dict) else asked) + by
    if "wait_for" in step:
        asked = step["wait_for"]
        ends = asked.get("on_event") == "exit"
        heard, length = t.events(asked.get("event")), t.duration(asked.get("timeout"))
        then = t.pick(", which ends it", ", это конец") if ends else ""
        return t.pick(
            f"wait up to {length} for {heard}{then}",
            f"ждать до {t.duration(asked.get('timeout'), than=True)} {heard}{then}",
        )
    if "branch" in step:
        arms = step["branch"]
        said = []
        for arm in arms if isinstance(arms, list) else [arms]:
            if "else" in arm:
                said.append(t.pick("otherwise ", "иначе ") + _steps(arm["else"], t))
            else:
                asked = arm.get("if") or {}
                if "arm" in asked:
                    test = t.pick("the arm is ", "вариант: ") + t.value(asked["arm"])
                else:
                    test = t.conditions(asked["event"]) if "event" in asked else t.rule(asked, inside=True)
                said.append(f"{t.pick('if', 'если')} {test}: {_steps(arm.get('then'), t)}")
        return "(" + "; ".join(said) + ")"
    name = next((name for name in STEPS if name in step), "")
    return STEPS[name].words(step[name], t) if name else str(step)
