"""The shapes of all answers, for the OpenAPI page: what a client may rely on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """An answer; nothing stands in it that is not listed."""

    model_config = ConfigDict(extra="forbid")


class Problem(Shape):
    """Every answer that is no success."""

    code: str = Field(description="A stable word.")
    message: str = Field(description="Where, what was wanted, what was found; never personal data.")


class Money(Shape):
    """An amount."""

    minor: int | float = Field(description="Minor units; an average may be a fraction, rounded to six places.")
    currency: str = Field(description="ISO 4217.")
    amount: str = Field(description="In major units, rounded to the currency's places.")


# --- why ----------------------------------------------------------------------------------------------------------


class Node(Shape):
    """One condition of a rule."""

    op: str = Field(description="The operator's name.")
    text: str = Field(description="The condition in words.")
    holds: bool
    until: str | None = Field(description="Time alone does not change this before; null: never.")
    value: Any = Field(description="What the profile has.")
    events: list[dict[str, Any]] = Field(description="The newest events that made it so, as far as they are kept.")
    children: list[Node]
    segment: SegmentPart | None = Field(description="Of `in_segment`: the segment that it names.")


class SegmentPart(Shape):
    """A segment that another one stands on."""

    segment: str
    says: str
    holds: bool
    since: str | None
    pending: bool
    rule: Node | None = Field(description="Null where the same segment was explained before in this tree.")


class Change(Shape):
    """Something that would turn an answer; the engine has tried it."""

    events: list[dict[str, Any]] = Field(description="What would have to happen: type, props, traits.")
    words: dict[str, str] = Field(description="The same in words: `en`, `ru`.")


class Explanation(Shape):
    """Why a profile is in a segment or not."""

    segment: str
    says: str
    words: dict[str, str] = Field(description="The rule in plain words: `en`, `ru`.")
    holds: bool
    since: str | None = Field(description="When it was entered; null outside, or where that is not on record.")
    pending: bool = Field(description="Not on record yet: an alarm is about to be handled, or the rules are newer.")
    as_of: str
    changes_at: str | None = Field(
        description="The first instant at which the answer is another one if nothing happens; null: never."
    )
    looked_until: str | None = Field(description="Set where the search gave up: until here the answer stays.")
    to_flip: list[Change] | None = Field(
        description="With `to_flip=true`: the least that would turn the answer at once, least first; none found: only time does."
    )
    rule: Node


class Found(Shape):
    """How an address was found."""

    address: str = Field(description="The address that holds the profile.")
    asked: str = Field(description="The address asked for, as the store knows it.")
    via: list[str] = Field(description="The forwarders in between, in the order walked.")


class Explanations(Found):
    """Why a profile is in segments or not."""

    generation: str = Field(description="Hash of the rules in force.")
    segments: list[Explanation]


# --- what ---------------------------------------------------------------------------------------------------------


class Said(Shape):
    """What somebody stated of the person."""

    value: Any
    at: str
    source: str


class ConsentStated(Shape):
    """What the person agreed to or refused at an instant, and the text that was shown."""

    state: str | None = Field(description="granted or denied; null where it was taken back by hand.")
    at: str
    source: str
    text: str | None = Field(description="Which version of the text was shown, where that was told.")


class Consent(ConsentStated):
    """What the person agreed to or refused."""

    channel: str
    topic: str = Field(description="`*` is every topic of the channel.")
    before: list[ConsentStated] = Field(description="What was stated before, newest first: the last nine.")


class CartShown(Shape):
    """One open cart."""

    cart_id: str | None
    changed_at: str
    quantity: int
    total: Money
    items: list[dict[str, Any]]


class SessionShown(Shape):
    """The visit under way."""

    started_at: str
    last_at: str
    ends_at: str
    counts: dict[str, int]


class LineShown(Shape):
    """One line of an order."""

    product_id: str
    category: str
    brand: str
    quantity: int
    amount_minor: int
    amount: Money


class RefundShown(Shape):
    """What was taken back of an order."""

    refund_id: str
    at: str
    amount: Money | None = Field(description="Null: all of it.")
    lines: list[dict[str, Any]]


class OrderShown(Shape):
    """One order of the book."""

    order_id: str
    counts: bool = Field(description="Whether rules count it: it was paid, and not cancelled, returned or refunded.")
    statuses: dict[str, str]
    total: Money | None
    lines: list[LineShown]
    refunds: list[RefundShown]
    facts: dict[str, Any]


class NextEmit(Shape):
    """What a journey would come to next."""

    step: str
    template: str


class Cause(Shape):
    """The event that opened or last restarted a journey."""

    event: str
    message_id: str


class JourneyShown(Shape):
    """One live run of a trigger."""

    trigger: str
    key: str
    opened_at: str
    opened_by: str
    due_at: str
    next: NextEmit | None
    occasion: str
    cause: Cause
    revision: str


class Membership(Shape):
    """A segment that the profile is in."""

    segment: str
    since: str | None


class Link(Shape):
    """An address that forwards here."""

    address: str
    linked_at: str


class ProfileShown(Found):
    """All that the profile holds."""

    generation: str
    as_of: str
    first_seen: str | None
    last_input: str
    traits: dict[str, Any] = Field(description="What the rules compute: declared traits, and those that everybody has.")
    said: dict[str, Said]
    consents: list[Consent]
    carts: list[CartShown]
    session: SessionShown | None
    orders: list[OrderShown]
    journeys: list[JourneyShown]
    segments: list[Membership]
    alarm: str | None = Field(description="The next instant at which something happens by itself.")
    links: list[Link]


class Seen(Shape):
    """What a projection lets be seen."""

    as_of: str
    traits: dict[str, Any] = Field(description="Path to value, as the rules' `projections` list them.")
    segments: dict[str, bool] = Field(description="Name to whether the person is in it.")


class Hint(Found, Seen):
    """What till and call centre should know of a customer."""

    greeting: str = Field(description="A first line that is right for everybody.")


class Site(Seen):
    """What a page may know of its visitor."""

    known: bool = Field(description="Whether anything was ever heard of the person.")


class Form(Site):
    """What a form may be filled with."""

    greeting: str = Field(description="A first line that is right for everybody.")


class Entry(BaseModel):
    """Something that the profile still knows of its past; further keys by `what`."""

    model_config = ConfigDict(extra="allow")

    at: str
    what: Literal["first_seen", "order", "refund", "said", "consent", "entered", "journey", "session", "linked"]


class Timeline(Found):
    """What the profile still knows of its past, newest first."""

    as_of: str
    entries: list[Entry]


# --- rules --------------------------------------------------------------------------------------------------------


class Segment(Shape):
    """A segment."""

    name: str
    kind: Literal["dynamic", "static"]
    level: int = Field(description="Data it lives of: 1 what is said of people, 2 their orders too, 3 what they do.")
    says: str
    words: dict[str, str] = Field(description="The rule in plain words: `en`, `ru`.")
    size: int = Field(description="Members now, as the workers have recorded them.")
    rule: Any = Field(description="As written.")


class Segments(Shape):
    """All segments, by name."""

    generation: str
    segments: list[Segment]


class ListVersion(Shape):
    """One forming of a static segment by command."""

    version: int
    id: str
    at: str
    by: str
    why: str
    formed_of: str
    members: int = Field(description="Profiles that were to be in it.")
    joined: int
    left: int
    unknown: int = Field(description="Addresses at which nobody is.")


class Tried(Shape):
    """A rule that is not saved."""

    rule: dict[str, Any] = Field(description="As under `segments` in a rule file.")
    sample: int = Field(default=10, ge=0, le=100, description="How many addresses to show.")
    most: int = Field(default=20_000, ge=1, le=100_000, description="How many profiles to look at, evenly from all.")


class Preview(Shape):
    """Whom a rule fits now."""

    generation: str
    words: dict[str, str] = Field(description="The rule in plain words: `en`, `ru`.")
    profiles: int = Field(description="All there are, forwarders among them.")
    looked_at: int
    count: int = Field(description="Of those looked at, how many it fits.")
    estimate: int = Field(description="Of all; the count itself where all were looked at.")
    sample: list[str] = Field(description="Addresses.")
    overlap: dict[str, int] = Field(description="Segment to how many of the counted are in it.")
    new_statistics: int = Field(description="Statistics that nobody keeps so far: they are taken as nothing.")
    doubted: list[str] = Field(description="Traits of the rule that nobody declares and that look like a slip.")


class SegmentWhole(Segment):
    """A segment and what hangs together with it."""

    generation: str
    text: Any = Field(description="The compiled rule in words: op, text, children.")
    reads: list[str] = Field(description="The segments that it stands on.")
    read_by: list[str] = Field(description="The segments that stand on it.")
    triggers: list[str] = Field(description="The triggers that enter by it.")
    versions: list[ListVersion] = Field(description="How a static one was formed by commands, oldest first.")


class Members(Shape):
    """A page of members."""

    segment: str
    members: list[str] = Field(description="Addresses.")
    cursor: str = Field(description="Give it back for the next page; empty: that was the last.")


class Trigger(Shape):
    """A trigger."""

    name: str
    says: str
    words: dict[str, str] = Field(description="The rule in plain words: `en`, `ru`.")
    kafka_topic: str
    topic: str = Field(description="What consents call it.")
    kind: str = Field(description="marketing or transactional.")
    revision: str
    enters: str = Field(description="Who enters, in words.")
    steps: list[str]
    document: Any = Field(description="As written.")
    decisions: dict[str, int] = Field(description="Of the decisions kept: reason, or `emitted`, to count.")


class Compared(Shape):
    """A share against another."""

    points: float | None = Field(description="The difference of the shares.")
    interval: list[float] | None = Field(description="Of the difference, 95 %, for one look (Newcombe 1998).")
    at_every_look: list[float] | None = Field(description="The same for as many looks as you like.")
    verdict: Literal["too_early", "no_difference", "better", "worse"] = Field(
        description="By the latter, and not before there are enough people and successes."
    )


class GroupShown(Shape):
    """People, each from his first moment on."""

    people: int
    converted: int = Field(description="Who did what the trigger is for.")
    ordered: int
    rate: float | None = Field(description="Of those converted.")
    interval: list[float] | None = Field(description="95 %, of the rate (Wilson 1927).")
    revenue: Money


class Held(Shape):
    """Who had a message against who was held out."""

    sent: GroupShown
    held: GroupShown
    difference: Compared
    lift: float | None = Field(description="By how much of itself the rate of those held out is surpassed.")


class Arm(GroupShown):
    """A variant of an experiment."""

    arm: str
    against: dict[str, Compared] | None = Field(
        description="Measure to how it does against the base; null of the base."
    )


class Experiment(Shape):
    """An experiment, arm by arm."""

    experiment: str
    base: str
    arms: list[Arm]


class Reactions(Shape):
    """Messages that people reacted to, and those that only machines did."""

    people: int
    machines: int


class ReportStep(Shape):
    """What came of one step and variant; messages are counted once, however often they were opened."""

    step: str
    experiment: str | None
    arm: str | None
    eligible: int = Field(description="`emitted` and all of `suppressed` together.")
    emitted: int
    suppressed: dict[str, int] = Field(description="Reason to moments.")
    delivered: int
    bounced: int
    complained: int
    opened: Reactions
    clicked: Reactions
    converted: int = Field(description="Messages of which came what the trigger is for.")
    orders: int
    revenue: Money
    shares: dict[str, float | None]


class Report(Shape):
    """What came of a trigger."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    trigger: str
    from_: str | None = Field(alias="from", description="Moments from then on; null: from the topics' beginning.")
    to: str | None
    conversion: str = Field(description="What the trigger is for: `order_completed`, unless it says otherwise.")
    within_s: int
    touch: str
    currency: str
    steps: list[ReportStep]
    holdout: Held | None
    experiments: list[Experiment]


class Window(Shape):
    """Which decisions are kept."""

    kept: int
    kept_max: int
    since: str | None = Field(description="Logical time of the oldest.")
    reading: bool = Field(description="Whether the broker answers.")


class Triggers(Shape):
    """All triggers, by name."""

    generation: str
    window: Window
    triggers: list[Trigger]


class Decision(BaseModel):
    """A record of the topic `decisions`, as published (docs/schemas/decisions.json)."""

    model_config = ConfigDict(extra="allow")

    decision_id: str
    trigger: str
    step: str
    outcome: str
    reason: str | None
    detail: Any
    address: str
    at: str


class Decisions(Shape):
    """The latest decisions, newest first."""

    window: Window
    decisions: list[Decision]


class RuleFile(Shape):
    """A rule file as loaded."""

    name: str
    text: str


class Rules(Shape):
    """The generation in force."""

    generation: str
    number: int = Field(description="Which generation it is, counted from 1.")
    profiles: int = Field(description="Addresses that there are, forwarders among them.")
    met: int = Field(description="Those of them that have met it: all others are not yet in its new segments.")
    incomplete: list[str] = Field(
        description="Segments over what no rules before kept: it counts from this generation on, until `opportune rules fill` computes it back."
    )
    zone: str
    currency: str
    files: list[RuleFile]


class SchemaNamed(Shape):
    """A published JSON Schema."""

    name: str = Field(description="Ask for it by this name.")
    id: str | None = Field(description="Ends in its version; null for what has none.")


class Schemas(Shape):
    """All that are published."""

    schemas: list[SchemaNamed]


class EditAsked(Shape):
    """What is to be stated of a person by hand, or taken back."""

    address: str = Field(max_length=400, description="Any address of the person.")
    by: str = Field(max_length=200, description="Who asks, as the shop knows its staff.")
    why: str = Field(max_length=200, description="The reason; it stands in the profile beside what was said.")
    set: dict[str, Any] = Field(default={}, description="Trait to value: text, number, truth, or a list of these.")
    unset: list[str] = Field(default=[], description="Traits to be taken back.")
    consents: dict[str, Literal["granted", "denied"] | None] = Field(
        default={}, description="`channel:topic`, as in `email:sale` or `sms:*`; null takes back."
    )
    id: str = Field(default="", max_length=64, description="Of the command, to send the same once more.")


class Asked(Shape):
    """Whom to erase, or which address to part from the profile that it was merged into."""

    address: str = Field(max_length=400, description="Any address of the person; of an un-merge, the one merged in.")
    by: str = Field(max_length=200, description="Who asks, as the shop knows its staff.")
    id: str = Field(default="", max_length=64, description="Of the command, to send the same once more.")


class Taken(Shape):
    """A command lies on the log; its receipt tells what became of it."""

    command: str = Field(description="Its id: /api/v1/receipts/{id}.")


class Receipt(BaseModel):
    """What became of a command: names and counts, never a value of the person."""

    model_config = ConfigDict(extra="allow")

    command: str
    kind: Literal["edit", "erase", "merge", "unmerge"]
    outcome: Literal["done", "refused"]
    at: str
    by: str | None = None
    reason: str | None = Field(default=None, description="Of a refusal: unknown, bad_value, erased, changed, moved.")
    wanted: dict[str, str] | None = Field(default=None, description="Of bad_value: field of the rules to its type.")
    hash: str | None = Field(default=None, description="Of an erasure: the keyed hash that stands for the address.")


class Status(Shape):
    """Whether it works."""

    status: str
