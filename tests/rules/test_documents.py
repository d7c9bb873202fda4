"""Bad rule files: refused whole, every mistake at its file and line, with what was wanted and what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.errors import BadDocument
from rules.compile import compile_rules
from rules.doubts import checked_rules
from tests.laws.histories import law

BAD: Final = Path(__file__).parent / "bad"


def told(*files: tuple[str, str]) -> list[str]:
    """The mistakes and doubts in these files, as people read them; none when they load."""
    try:
        checked_rules(files)
    except BadDocument as refused:
        return [str(mistake) for mistake in refused.mistakes]
    return []


def cases() -> list[tuple[str, str, list[str]]]:
    """(name, YAML, mistakes) of each case of the corpus: a head line, the document, and ``#!`` with each mistake."""
    found = []
    for file in sorted(BAD.glob("*.txt")):
        for case in file.read_text("utf-8").split("\n=== ")[1:]:
            name, _, rest = case.partition("\n")
            lines = rest.splitlines()
            wanted = [line.removeprefix("#! ") for line in lines if line.startswith("#! ")]
            document = "\n".join(line for line in lines if not line.startswith("#! ")).strip("\n") + "\n"
            found.append((name.strip(), document, wanted))
    return found


CASES: Final = cases()


@pytest.mark.mechanic("D9")
@pytest.mark.invariant("R29")
@pytest.mark.parametrize(
    ("document", "wanted"), [pytest.param(document, wanted, id=name) for name, document, wanted in CASES]
)
def test_a_bad_document_is_refused_with_every_mistake_at_its_line(document: str, wanted: list[str]) -> None:
    assert [line.removeprefix("a.yaml:") for line in told(("a.yaml", document))] == wanted


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 60
    assert len({document for _, document, _ in CASES}) == len(CASES)
    assert all(wanted for _, _, wanted in CASES)


def test_mistakes_of_several_files_are_told_together_and_a_name_defined_twice_with_both_places() -> None:
    assert told(
        ("b.yaml", "segments:\n  vip: {did: order}\n  big: {did: ordr_completed}\n"),
        ("a.yaml", "# mine\nsegments:\n  vip: {trait: orders_paid, gte: lots}\n"),
    ) == [
        "a.yaml:3: segments/vip: 'vip' is already defined at b.yaml:2",
        "b.yaml:3: segments/big/did: unknown event type 'ordr_completed'; did you mean 'order_completed'?",
    ]


TEN: Final = """\
defaults: {zone: Europe/Berln}
traits:
  spent: {sum: order.totl}
segments:
  vip: {trait: orders_payd, gte: 3}
  seen: {did: prodct_viewed}
  lapsed: {did_nt: order}
  sums: {did: product_viewed, window: {within: P30D}, sum: {field: price, gte: 100}}
  ring: {in_segment: ring}
  month: {trait: last_order_at, older_than: P3Months}
triggers:
  cart:
    on: {event: product_added}
    cancel_on: [{evnt: order_completed}]
    steps: [{wait: soon}, {emit: cart_1}]
"""


@pytest.mark.mechanic("D9")
def test_ten_slips_in_one_file_are_told_in_ten_lines_that_say_what_was_wanted() -> None:
    assert told(("a.yaml", TEN)) == [
        "a.yaml:1: defaults/zone: a time zone name like Europe/Moscow wanted, got 'Europe/Berln'",
        "a.yaml:3: traits/spent/sum: sum of order: one of total, amount, revenue, margin, quantity wanted, got 'totl'; "
        "did you mean 'total'?",
        "a.yaml:5: segments/vip/trait: unknown trait 'orders_payd'; did you mean 'orders_paid'? "
        "(a trait of your own goes as custom.orders_payd)",
        "a.yaml:6: segments/seen/did: unknown event type 'prodct_viewed'; did you mean 'product_viewed'?",
        "a.yaml:7: segments/lapsed: unknown operator 'did_nt'; did you mean 'did_not'?",
        "a.yaml:8: segments/sums/sum: sum within P30D may need any number of entries: 'resolution' wanted, like PT1H",
        "a.yaml:9: segments/ring/in_segment: segments in a ring: ring → ring",
        "a.yaml:10: segments/month/older_than: a duration like P3M, P7D, PT2H or 30m wanted, got 'P3Months'; "
        "did you mean 'P3M'?",
        "a.yaml:14: triggers/cart/cancel_on/1/evnt: unknown key 'evnt'; did you mean 'event'?",
        "a.yaml:15: triggers/cart/steps/1/wait: a duration like P3M, P7D, PT2H or 30m wanted, got 'soon'",
    ]


OTHER_TEN: Final = """\
traits:
  spent: {sum: order.total}
segments:
  rich: {trait: spent, gte: 500 EUR}
  silent: {trait: last_order_at, older_than: 90 days}
  often: {did: order, count: {gte: 3}}
  paid: {did: order_paid}
  nobody: {all: [{trait: orders_paid, gte: 5}, {trait: orders_paid, lt: 3}]}
  steps:
    kind: stages
    stages:
      - {name: hot, when: {trait: orders_paid, gte: 10}}
      - {name: warm, when: {trait: orders_paid, lte: 8}}
      - {name: rest, when: otherwise}
  read: {did: page_viewed, item: [{category: tea}]}
  male: {trait: gender, eq: “male”}
  open: {did: order, times: {gte: 3}
  last: {all: [{in_segment: open}, {or: [{did: order}]}]}
"""


@pytest.mark.mechanic("D9")
def test_what_nobody_can_mean_is_told_beside_other_mistakes_and_a_slip_in_yaml_hides_none() -> None:
    assert told(("a.yaml", OTHER_TEN)) == [
        "a.yaml:4: segments/rich/gte: an amount of USD like 500 or 499.90 wanted, got '500 EUR'",
        "a.yaml:5: segments/silent/older_than: a duration like P3M, P7D, PT2H or 30m wanted, got '90 days'; "
        "did you mean 'P90D'?",
        "a.yaml:6: segments/often/count: unknown key 'count'; did you mean 'times'?",
        "a.yaml:7: segments/paid/did: unknown event type 'order_paid'; `did: order` counts those paid, "
        "with `status_in: [shipped]` others; the change is order_status_changed",
        "a.yaml:8: segments/nobody/all/2: nobody fits this and {trait: orders_paid, gte: 5} (line 8)",
        "a.yaml:12: segments/steps/stages/1/when: a gap: from 8 to 10 nobody is in any stage but `otherwise`",
        "a.yaml:15: segments/read/item: page_viewed has no items: what it has is asked by `where`",
        "a.yaml:16: segments/male/eq: plain quotes wanted, got “”",
        "a.yaml:18: ',' or '}' wanted, got a word; what line 17 opens is not closed",
        "a.yaml:18: segments/last/all/2: unknown operator 'or'; did you mean 'any'?",
    ]


@pytest.mark.invariant("R29")
@pytest.mark.mechanic("D9")
@pytest.mark.parametrize(
    "rule",
    [
        "{all: [{in_segment: vip}, {not: {in_segment: vip, for: P7D}}]}",
        "{did: order, item: [{category: shoes}, {category: shoes/boots}, {brand: {ne: Boss, exists: true}}]}",
        "{all: [{any_item: children, where: {sex: m}}, {any_item: children, where: {sex: f}}]}",
        "{did: email_opened, where: [{machine: true}, {machine: scanner}]}",
        "{some: [{did: order}, {did: order}, {did: page_viewed}], at_least: 2}",
    ],
)
def test_what_can_be_meant_is_taken(rule: str) -> None:
    assert told(("a.yaml", f"segments:\n  vip: {{trait: orders_paid, gte: 3}}\n  a: {rule}\n")) == []


def test_a_small_file_cannot_become_a_large_one() -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert told(("a.yaml", bomb)) == ["a.yaml:2: anchors and aliases are not read: write it out"]
    for deep in ("[" * 20_000, "{a: " * 20_000, "- " * 20_000, "{? " * 20_000):
        mistakes = told(("a.yaml", f"segments: {deep}"))
        assert mistakes
        assert len(mistakes) < 5
    assert told(("a.yaml", "a" * 1_000_001)) == ["a.yaml:1: at most 1000000 characters wanted, got 1000001"]


@pytest.mark.invariant("R29")
def test_too_many_segments_are_refused() -> None:
    many = "segments:\n" + "".join(f"  s{n}: {{did: order}}\n" for n in range(5_001))
    assert told(("a.yaml", many)) == ["a.yaml:1: at most 5000 segments wanted, got 5001"]


def test_words_that_yaml_takes_for_truths_are_words() -> None:
    book = compile_rules([("a.yaml", "segments: {norway: {trait: address.country, eq: no}}")])
    assert book.segments[0].judged.text == "address.country = 'no'"


WORDS = st.sampled_from(
    [
        "segments", "traits", "triggers", "defaults", "all", "any", "not", "did", "did_not", "trait", "in_segment", "live",
        "session", "consent", "window", "within", "times", "gte", "between", "on", "event", "steps", "wait", "emit", "branch",
        "kind", "stages", "when", "otherwise", "order", "page_viewed", "P1M", "PT1H", "orders_paid", "sum", "field", "total",
        "where", "item", "rfm", "purchase_days", "key", "payload", "template", "cart.total", "eq", "a", "b", "",
        "template", "over", "lists", "tiers", "cuts", "labels", "said", "top_k", "of", "k", "argmax", "bucket", "salt", "percent",
    ]
)  # fmt: skip
SCALARS = st.one_of(
    WORDS, st.integers(-3, 300), st.none(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=5)
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=25,
)


@pytest.mark.invariant("R29")
@law(250)
@given(
    junk=st.dictionaries(
        st.sampled_from(["segments", "traits", "triggers", "defaults"]),
        st.dictionaries(st.sampled_from("ab"), JUNK, max_size=2),
        max_size=4,
    )
)
def test_whatever_is_written_loads_or_is_refused_with_places(junk: dict[str, object]) -> None:
    import yaml

    text = yaml.safe_dump(junk, allow_unicode=True)
    for mistake in told(("a.yaml", text)):
        assert mistake.startswith("a.yaml:")


@pytest.mark.invariant("R29")
@law(150)
@given(text=st.text(alphabet=st.sampled_from(list("ab:{}[]-,&*!?|>'\"%@#\n \t0.é")), max_size=40))
def test_no_text_breaks_the_reader(text: str) -> None:
    for mistake in told(("a.yaml", text)):
        assert mistake.startswith("a.yaml:")
