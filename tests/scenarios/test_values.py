"""What a customer is and did, by value: goals, addresses of pages, shares of the base."""

from __future__ import annotations

import pytest

from profiles.errors import BadDocument
from profiles.wire import Event
from rules.scenarios import check, run


@pytest.mark.mechanic("M19")
def test_a_goal_is_an_event_of_a_certain_look_and_is_reached_at_its_time() -> None:
    check(
        """
        goal lead = {event: form_submitted, where: {form_id: lead}}
        goal coupon = {event: [coupon_issued, coupon_redeemed]}
        segment leads = {reached_goal: lead}
        segment twice = {reached_goal: lead, times: {gte: 2}, window: {within: P7D}}
        segment coupons = {reached_goal: coupon}
        0d   ana  form_submitted form_id=callback
        0d   ana  expect segments none
        1d   ana  form_submitted form_id=lead message=a
        1d   ana  expect segments leads
        1d   ana  form_submitted form_id=lead message=a
        2d   ana  form_submitted form_id=lead message=b late=20h
        2d   ana  expect segments leads, twice
        3d   ana  coupon_issued code=x
        3d   ana  expect segments coupons, leads, twice
        8d   ana  expect segments coupons, leads
        8d   ana  expect left twice 8d
        """
    )


@pytest.mark.mechanic("M19")
@pytest.mark.mechanic("M44")
def test_reaching_a_goal_is_an_event_of_its_own_that_a_trigger_hears_once() -> None:
    done = check(
        """
        goal subscribe = {event: consent_changed, where: {channel: email, state: granted}}
        trigger thanks = {on: {goal: subscribe}, re_entry: once, steps: [{emit: thanks}]}
        trigger counted = {on: {event: goal_reached, where: [{goal: subscribe}]}, steps: [{emit: counted}]}
        0d   ana  consent_changed channel=email state=granted message=a
        0d   ana  expect emits thanks 1, emits counted 1
        0d   ana  consent_changed channel=email state=granted message=a
        1d   ana  consent_changed channel=email state=denied
        2d   ana  consent_changed channel=email state=granted message=b
        2d   ana  expect emits thanks 1, emits counted 2
        """
    )
    assert done.sent("thanks")[0]["at"] == "2026-01-01T00:00:00.000Z"


@pytest.mark.mechanic("M44")
def test_who_subscribes_is_thanked_once_for_each_consent_that_he_gives() -> None:
    rules = """
        goal subscribe = {event: consent_changed, where: {channel: email, state: granted}}
        trigger thanks = {topic: news, consent: {channel: email}, on: {goal: subscribe}, re_entry: {per: grant}, steps: [{emit: thanks}]}
    """
    done = check(
        f"""{rules}
        0d   ana  consent_changed channel=email topic=news state=granted message=a
        0d   ana  expect emits thanks 1
        0d   ana  consent_changed channel=email topic=news state=granted message=a
        1d   ana  consent_changed channel=email topic=news state=granted message=b     # said again, granted already
        1d   ana  expect emits thanks 1, suppressed thanks re_entry 1
        2d   ana  consent_changed channel=email topic=sale state=denied                # another kind of letter
        3d   ana  consent_changed channel=email topic=news state=granted
        3d   ana  expect emits thanks 1
        4d   ana  unsubscribed channel=email
        5d   ana  consent_changed channel=email topic=news state=granted
        5d   ana  expect emits thanks 2
        6d   ana  unsubscribed topic=news
        7d   ana  consent_changed channel=email topic=news state=granted
        7d   ana  expect emits thanks 3
        """
    )
    assert len({one["trigger_id"] for one in done.sent("thanks")}) == 3
    # Who came before he had consented has used nothing up.
    check(
        """
        trigger hello = {consent: {channel: email}, on: {event: page_viewed}, re_entry: {per: grant}, steps: [{emit: hello}]}
        0d  ana  page_viewed
        0d  ana  expect emits hello 0, suppressed hello no_consent
        1d  ana  consent_changed channel=email state=granted
        2d  ana  page_viewed
        3d  ana  page_viewed
        3d  ana  expect emits hello 1, suppressed hello re_entry
        """
    )
    with pytest.raises(BadDocument, match="per: grant goes with a `consent`, got none"):
        check("trigger it = {on: {event: registered}, re_entry: {per: grant}, steps: [{emit: x}]}")


@pytest.mark.mechanic("M19")
def test_ga4_names_of_key_events_are_goals_and_a_site_may_tell_goals_itself() -> None:
    check(
        """
        segment leads = {reached_goal: generate_lead}
        segment buyers = {reached_goal: purchase}
        segment viewed = {did: view_item}
        goal quiz = {event: quiz_finished}
        segment quizzed = {reached_goal: quiz}
        0d  ana  form_submitted form_id=x
        1d  ana  order_completed order_id=1 total=10
        2d  ana  product_viewed
        3d  ana  goal_reached goal=quiz
        3d  ana  expect segments buyers, leads, quizzed, viewed
        """
    )


@pytest.mark.mechanic("M17")
def test_pages_are_asked_for_by_their_address_exact_by_its_beginning_and_by_a_pattern() -> None:
    check(
        """
        segment exact = {did: page_viewed, where: [{url: "https://shop.example/sale"}]}
        segment blog = {did: page_viewed, where: [{path: {starts_with: /blog/}}], window: {within: P7D}, times: {gte: 2}}
        segment item = {did: page_viewed, where: [{path: {matches: "^/(item|product)/[0-9]+$"}}]}
        0d  ana  page_viewed url=https://shop.example/sale
        0d  ana  expect segments exact
        1d  ana  page_viewed path=/blog/drills
        2d  ana  page_viewed path=/blog/saws
        2d  ana  expect segments blog, exact
        3d  ana  page_viewed path=/product/12/reviews
        3d  ana  expect segments blog, exact
        4d  ana  page_viewed path=/product/12
        8d  ana  expect segments exact, item
        """
    )


@pytest.mark.mechanic("M17")
def test_products_and_categories_looked_at_are_counted_in_a_window() -> None:
    check(
        """
        segment drills = {did: product_viewed, item: [{category: {under: tools/drills}}], window: {within: P14D}, times: {gte: 2}}
        segment list = {did: product_list_viewed, where: [{category: tools}]}
        segment this = {did: product_viewed, item: [{product_id: p7}]}
        0d   ana  product_viewed product=p7 category=tools/drills/hammer
        0d   ana  expect segments this
        1d   ana  product_viewed product=p8 category=tools/saws
        2d   ana  product_list_viewed category=tools/saws
        2d   ana  expect segments list, this
        3d   ana  product_viewed product=p9 category=tools/drills
        3d   ana  expect segments drills, list, this
        14d  ana  expect segments list, this
        """
    )


@pytest.mark.mechanic("M18")
def test_where_a_customer_came_from_first_last_and_in_this_visit() -> None:
    check(
        """
        segment from_ads = {any: [{trait: last_touch.source, eq: yandex}, {trait: first_touch.campaign, starts_with: bf_}]}
        segment now_by_mail = {trait: session.source, eq: mail}
        trait birth = {first: context.campaign}
        0d     ana  page_viewed                                            # directly: no touch
        0d     ana  expect segments none
        1d     ana  page_viewed campaign.source=mail campaign.name=spring
        1d     ana  expect segments now_by_mail
        1d     ana  expect trait birth.source mail, trait birth.at 1d
        1d30m  ana  expect segments none                                   # the visit is over
        2d     ana  page_viewed
        2d     ana  expect segments none
        3d     ana  product_viewed campaign.source=yandex campaign.medium=cpc
        3d     ana  expect segments from_ads
        4d     ana  page_viewed campaign.source=google
        4d     ana  expect segments none
        # A page from before all that, told late: it was first.
        5d     ana  page_viewed campaign.source=ads campaign.name=bf_2026 late=5d
        5d     ana  expect segments from_ads
        5d     ana  expect trait birth.campaign bf_2026
        """
    )


@pytest.mark.mechanic("M40")
def test_reactions_are_counted_for_each_channel_and_contacts_in_a_week() -> None:
    check(
        """
        trait contacts_7d = {count: [email_sent, sms_sent, push_sent], window: {within: P7D}}
        segment reads = {all: [{trait: email.opened, gte: 2}, {trait: email.clicked, gte: 1}]}
        segment tired = {trait: contacts_7d, gte: 3}
        segment silent = {all: [{trait: email.delivered, gte: 1}, {not: {trait: email.last_opened_at, newer_than: P30D}}]}
        segment trouble = {any: [{trait: sms.bounced, gte: 1}, {trait: email.complained, gte: 1}, {trait: email.unsubscribed, gte: 1}]}
        0d   ana  email_sent
        0d   ana  email_delivered
        0d   ana  expect segments silent
        1d   ana  email_opened machine=prefetch       # a mail program's, not hers
        1d   ana  expect segments silent
        1d   ana  email_opened
        1d   ana  expect segments none
        2d   ana  sms_sent
        3d   ana  push_sent
        3d   ana  expect segments tired
        4d   ana  email_opened
        4d   ana  email_link_clicked
        4d   ana  expect segments reads, tired
        7d   ana  expect segments reads
        8d   ana  sms_bounced bounce=hard
        8d   ana  expect segments reads, trouble
        34d  ana  expect segments reads, silent, trouble
        """
    )


@pytest.mark.mechanic("M41")
def test_the_preferred_channel_is_where_a_person_reacts_and_may_be_written_to() -> None:
    check(
        """
        trait preferred_channel = {argmax: reaction_rate, over: channel, window: {within: P180D}}
        segment sms_people = {all: [{trait: preferred_channel, eq: sms}, {consent: {channel: sms, topic: sale, state: granted}}]}
        0d    ana  consent_changed channel=sms topic=sale state=granted
        1d    ana  email_sent delivery_id=e1
        2d    ana  email_sent delivery_id=e2
        3d    ana  email_sent delivery_id=e3
        4d    ana  email_opened delivery_id=e1
        4d    ana  email_opened delivery_id=e1
        4d    ana  email_link_clicked delivery_id=e1   # one letter, one reaction
        4d    ana  expect trait preferred_channel email, out
        5d    ana  sms_sent delivery_id=s1
        6d    ana  sms_sent delivery_id=s2
        7d    ana  sms_link_clicked delivery_id=s1
        8d    ana  sms_link_clicked delivery_id=s2
        8d    ana  expect out                          # two are too few to know
        9d    ana  sms_sent delivery_id=s3
        9d    ana  expect trait preferred_channel sms, in
        10d   ana  unsubscribed channel=sms
        10d   ana  expect trait preferred_channel email, out
        181d  ana  expect trait preferred_channel none
        """
    )


@pytest.mark.mechanic("M41")
def test_what_was_done_with_letters_no_longer_kept_says_nothing_of_the_newest_fifty() -> None:
    sent = [f"{n}d ana {c}_sent delivery_id={c}{n}" for n in range(60) for c in ("email", "sms")]
    done = [f"9d ana email_link_clicked delivery_id=email{n}" for n in range(9)] + [
        "55d ana sms_opened delivery_id=sms55"
    ]
    lines = sorted([*sent, *done], key=lambda line: int(line.partition("d")[0]))
    check(
        "trait best = {argmax: reaction_rate, over: channel}\n" + "\n".join(lines) + "\n60d ana expect trait best sms"
    )


@pytest.mark.mechanic("M80")
def test_favourites_are_what_was_bought_most_and_a_return_takes_its_goods_out() -> None:
    check(
        """
        trait favourite_products = {top_k: {of: order.item.product_id, k: 2}}
        segment tea_lovers = {trait: favourite_products, contains: tea}
        0d  ana  order_completed order_id=1 total=9 product=tea price=4 product=cup price=5
        1d  ana  order_completed order_id=2 total=9 product=cup price=4 product=jam price=5
        1d  ana  expect trait favourite_products cup|jam, out
        2d  ana  order_refunded order_id=2
        2d  ana  expect trait favourite_products cup|tea, in
        """
    )


@pytest.mark.mechanic("M26")
def test_the_usual_order_is_its_mean_or_its_middle_and_a_single_large_one_moves_only_the_mean() -> None:
    check(
        """
        trait avg_check = {avg: order.total}
        trait usual_check = {median: order.total, window: {within: P1Y}}
        segment dear = {trait: avg_check, gte: 100}
        segment usually_dear = {trait: usual_check, gte: 100}
        0d    ana  order_completed order_id=1 total=20
        1d    ana  order_completed order_id=2 total=30
        2d    ana  order_completed order_id=3 total=900
        2d    ana  expect segments dear
        3d    ana  order_completed order_id=4 total=170
        3d    ana  expect segments dear, usually_dear
        366d  ana  expect segments dear, usually_dear
        """
    )


def test_a_bucket_holds_its_share_of_the_customers_the_same_ones_in_every_run() -> None:
    who = [f"c{n}" for n in range(400)]
    text = "segment some = {bucket: {salt: s, percent: 12.5}}\nsegment other = {bucket: {salt: t, percent: 12.5}}\n"
    done = run(text + "\n".join(f"0d {one} page_viewed" for one in who))
    world = done.world
    in_some, in_other = ({one for one in who if name in world.members(f"user:{one}")} for name in ("some", "other"))
    assert 30 <= len(in_some) <= 70
    assert 30 <= len(in_other) <= 70
    assert len(in_some & in_other) < 20  # another salt, other customers
    # A larger share of one salt holds the smaller.
    done = run(text.replace("12.5", "50") + "\n".join(f"0d {one} page_viewed" for one in who))
    assert in_some < {one for one in who if "some" in done.world.members(f"user:{one}")}


@pytest.mark.mechanic("M30")
def test_tiers_of_the_average_and_of_the_lifetime_narrow_a_trigger() -> None:
    check(
        """
        trait avg_check = {avg: order.total}
        trait ltv = {sum: order.total}
        trait check_tier = {tiers: avg_check, cuts: [50, 100], labels: [low, middle, high]}
        trait ltv_tier = {tiers: ltv, cuts: [200, 500], labels: [low, middle, high], hysteresis: 0.1}
        segment mid_high = {trait: check_tier, in: [middle, high]}
        segment valued = {trait: ltv_tier, ne: low}
        trigger letter = {on: {event: order_completed}, when: {in_segment: mid_high}, steps: [{emit: dear}]}
        0d  ana  page_viewed
        0d  ana  expect trait check_tier none, trait ltv_tier low, out mid_high
        1d  ana  order_completed order_id=1 total=49.99
        1d  ana  expect trait check_tier low, out mid_high, emits letter 0
        2d  ana  order_completed order_id=2 total=150.01
        2d  ana  expect trait check_tier high, in mid_high, emits letter 1
        2d  ana  expect trait ltv_tier middle, in ltv_tier.from_middle
        3d  ana  order_refunded order_id=2 amount=20
        3d  ana  expect trait check_tier middle, trait ltv_tier middle, changes ltv_tier.from_middle 1
        4d  ana  order_refunded order_id=2 amount=0.01 refund_id=r2
        4d  ana  expect trait ltv_tier low, out ltv_tier.from_middle, changes ltv_tier.from_middle 2
        """
    )


@pytest.mark.mechanic("M30")
def test_what_the_shop_earns_makes_tiers_of_the_lifetime_value() -> None:
    check(
        """
        trait profit = {sum: order.margin}
        trait ltv = {sum: order.margin, default: order.total}
        trait ltv_tier = {tiers: ltv, cuts: [20, 100], labels: [low, middle, high]}
        trait usual_profit = {avg: order.margin}
        segment dear = {trait: ltv_tier, ne: low}
        segment earned = {did: order, sum: {field: margin, gte: 30}, window: {within: P30D}}
        trigger letter = {on: {event: order_completed}, when: {in_segment: dear}, steps: [{emit: dear}]}
        0d   ana  order_completed order_id=1 total=500 margin=10
        0d   ana  expect trait profit 10, trait ltv_tier low, emits letter 0
        1d   ana  order_completed order_id=2 total=15
        1d   ana  expect trait profit 10, trait ltv 25, trait ltv_tier middle, emits letter 1
        2d   ana  order_completed order_id=3 total=300 margin=90
        2d   ana  expect trait ltv_tier high, trait usual_profit 50, in earned
        3d   ana  order_refunded order_id=3 amount=100
        3d   ana  expect trait profit 70, trait ltv_tier middle
        4d   ana  order_updated order_id=1 total=500 margin=0
        4d   ana  expect trait profit 60, trait ltv 75
        32d  ana  expect out earned
        """
    )


@pytest.mark.parametrize(
    ("trait", "told"),
    [
        ("{sum: order.total, default: order.total}", "default: goes with `order.margin` only"),
        ("{sum: order.margin, default: order.quantity}", "order.total wanted"),
        ("{sum: order.margin, per: item}", "margin: that of whole orders is known"),
    ],
)
def test_a_margin_that_nobody_can_mean_is_refused(trait: str, told: str) -> None:
    with pytest.raises(BadDocument, match=told):
        check(f"trait it = {trait}")


@pytest.mark.mechanic("M26")
def test_bands_of_the_usual_order_by_cuts() -> None:
    check(
        """
        trait avg_check = {avg: order.total}
        trait band = {tiers: avg_check, cuts: [30, 80], labels: [low, middle, high]}
        segment upsell = {trait: band, eq: high}
        0d  ana  order_completed order_id=1 total=80
        0d  ana  expect in
        1d  ana  order_completed order_id=2 total=79.99
        1d  ana  expect out, trait band middle
        """
    )


@pytest.mark.mechanic("M23")
@pytest.mark.mechanic("M43")
def test_interests_fade_and_end_at_the_very_instant_and_there_is_one_segment_for_each_root_of_categories() -> None:
    rules = """
lists:
  categories.depth1: [tools, garden]
traits:
  interests: {decay: {events: {product_viewed: 1, product_added: 3, order_completed: 10}, by: item.category, depth: 1, half_life: P30D}}
segments:
  interest_of: {template: {over: categories.depth1}, when: {trait: "interests.{value}", gte: 5}}
  gardeners: {trait: interests.top, eq: garden}
"""
    done = check(
        """
        0d    ana  product_viewed product=a category=tools/drills
        0d    ana  product_added product=a category=tools/drills
        0d    ana  expect segments none
        0d    ana  product_viewed product=b category=tools
        0d    ana  expect segments interest_of.tools
        1d    ana  expect segments none
        1d    ana  order_completed order_id=1 total=9 product=c price=9 category=garden/roses
        1d    ana  expect segments gardeners, interest_of.garden
        # Ten points are five after exactly one half-life, and less a moment later.
        31d   ana  expect segments gardeners, interest_of.garden
        31d1s ana  expect segments gardeners
        90d   ana  product_viewed product=d category=garden
        90d   ana  expect trait interests.garden 2, segments gardeners
        """,
        [("rules", rules)],
    )
    half_life_ms = 30 * 86_400_000
    (entered, left) = done.changes("interest_of.garden")
    assert (entered, left) == (("entered", 86_400_000), ("exited", 86_400_000 + half_life_ms + 1))


@pytest.mark.mechanic("M23")
def test_a_template_is_one_segment_for_each_value_of_a_list() -> None:
    rules = """
lists:
  categories.depth1: {tools: Werkzeug, garden: Garten}
segments:
  interest_of:
    template: {over: categories.depth1}
    says: Looks at {value}.
    when: {did: product_viewed, item: [{category: "{value}"}], times: {gte: 2}, window: {within: P30D}}
  buyers_of:
    template: {over: [tea, jam]}
    when: {did: order, item: [{product_id: "{value}"}]}
  hot: {all: [{in_segment: interest_of.tools}, {in_segment: buyers_of.tea}]}
"""
    done = check(
        """
        0d   ana  product_viewed product=a category=Werkzeug/Bohrer
        1d   ana  product_viewed product=b category=Werkzeug
        1d   ana  product_viewed product=c category=Garten
        1d   ana  expect segments interest_of.tools
        2d   ana  order_completed order_id=1 total=3 product=tea price=3
        2d   ana  expect segments buyers_of.tea, hot, interest_of.tools
        30d  ana  expect segments buyers_of.tea
        """,
        [("rules", rules)],
    )
    assert [one.says for one in done.world.rulebook.segments if one.name == "interest_of.garden"] == [
        "Looks at Garten."
    ]


@pytest.mark.mechanic("M5")
def test_staying_in_a_segment_for_a_time_starts_an_action_once_a_stay() -> None:
    done = check(
        """
        segment cart_open = {trait: cart.items, gte: 1}
        segment kept_long = {in_segment: cart_open, for: P3D}
        trigger still = {on: {segment: cart_open, dwelt: P3D}, steps: [{emit: still}]}
        trigger longer = {on: {segment: cart_open, dwelt: P3D}, steps: [{emit: longer}]}
        0d   ana  product_added product=a
        2d   ana  product_added product=b
        2d   ana  expect emits still 0, wake 3d
        3d   ana  expect in, emits still 1, emits longer 1
        4d   ana  product_removed product=a
        4d   ana  product_removed product=b
        4d   ana  expect out
        5d   ana  product_added product=c
        7d   ana  product_removed product=c
        7d   ana  product_added product=c
        # A break, however short, begins the time anew.
        8d   ana  expect out, emits still 1
        10d  ana  expect in, emits still 2
        90d  ana  expect in, emits still 2
        """
    )
    assert done.sent("still")[0]["at"] == "2026-01-04T00:00:00.000Z"


@pytest.mark.mechanic("M27")
def test_the_usual_device_and_hour_are_those_of_most_visits() -> None:
    done = run(
        """
        trait usual_hour = {mode: local_hour}
        trait device_class = {mode: context.device, window: {within: P90D}}
        segment mobile = {trait: device_class, eq: phone}
        segment evening_visitors = {trait: usual_hour, between: [18, 23]}
        0d ana page_viewed
        """
    )
    world, book = done.world, done.world.rulebook
    seen = [("phone", "Asia/Tokyo", 10), ("desktop", "", 20), ("phone", "", 20), ("tablet", "nowhere", 20)]
    for day, (device, zone, hour) in enumerate(seen, start=1):
        at_ms = done.start_ms + day * 86_400_000 + hour * 3_600_000
        world.until(at_ms, with_it=False)
        context = {"device": device, **({"timezone": zone} if zone else {})}
        world.happen(Event(f"v{day}", "web", "page_viewed", at_ms, at_ms, "user:ana", context=context))
    profile = world.profile("user:ana")
    assert book.readers["usual_hour"].read(profile, profile.seen_ms)[0] == 20  # 10 o'clock was 19 in Tokyo
    assert world.members("user:ana") == ["evening_visitors", "mobile"]
    world.until(done.start_ms + 100 * 86_400_000, with_it=True)
    assert world.members("user:ana") == ["evening_visitors"]


@pytest.mark.mechanic("M27")
def test_a_letter_goes_at_the_customers_usual_hour() -> None:
    check(
        """
        trait usual_hour = {mode: local_hour, of: [page_viewed, email_opened]}
        trigger it = {on: {event: form_submitted}, steps: [{wait_until: {at: {hour_of: usual_hour}, else: "10:00", weekdays: [mon, tue]}}, {emit: hello}]}
        defaults = {zone: Europe/Berlin}
        start 2026-01-01T21:15
        0h                ana  page_viewed path=/
        1d                ana  page_viewed path=/
        1d                ana  expect trait usual_hour 21
        1d                ana  form_submitted form_id=a
        1d                bob  form_submitted form_id=a
        2026-01-05T09:59  bob  expect emits it 0
        2026-01-05T10:00  bob  expect emits it 1
        2026-01-05T20:59  ana  expect emits it 0
        2026-01-05T21:00  ana  expect emits it 1
        """
    )


@pytest.mark.mechanic("M22")
def test_what_was_bought_is_left_out_of_what_is_shown_and_what_is_left_may_be_nothing() -> None:
    done = check(
        """
        trigger all = {on: {event: form_submitted}, steps: [{emit: {template: t, payload: {viewed: {last: 2, exclude: owned}}}}]}
        trigger lately = {on: {event: form_submitted}, steps: [{emit: {template: t, payload: {viewed: {last: 2, exclude: {owned_within: P30D}}}}}]}
        0d   ana  product_viewed product=cooler
        1d   ana  product_viewed product=cup
        2d   ana  product_viewed product=jar
        3d   ana  order_completed order_id=1 total=9 product=cooler price=9 product=jar price=1
        4d   ana  form_submitted form_id=a
        33d  ana  form_submitted form_id=b
        34d  ana  order_completed order_id=2 total=9 product=cup price=9
        35d  ana  form_submitted form_id=c
        35d  ana  expect emits all 2, suppressed all no_items, emits lately 3
        36d  ana  order_refunded order_id=1
        37d  ana  form_submitted form_id=d
        """
    )

    def told(trigger: str) -> list[list[str]]:
        return [[one["product_id"] for one in record["payload"]["viewed"]] for record in done.sent(trigger)]

    assert told("all") == [["cup"], ["cup"], ["jar", "cooler"]]
    assert told("lately") == [["cup"], ["jar", "cup"], ["jar", "cooler"], ["jar", "cooler"]]


@pytest.mark.mechanic("M15")
def test_orders_and_what_is_looked_at_are_told_apart_by_what_they_cost() -> None:
    check(
        """
        defaults = {currency: EUR}
        segment dear = {did: order, where: [{total: {gte: 99.90}}], times: {gte: 2}, window: {within: P30D}}
        segment a_dear_one = {did: order, item: [{price: {gt: 50}, amount: {gte: 120}}]}
        segment window_shoppers = {did: product_viewed, item: [{price: {between: [500, 1000]}}], times: {gte: 2}}
        segment marked = {did: order_completed, where: [{total: 100}]}
        segment then_dear = {sequence: [{did: product_viewed, item: [{price: {gte: 500}}]}, {then: {did: order, where: [{total: {gte: 120}}]}}]}
        trigger thanks = {on: {event: order_completed, where: [{total: {gte: 120}}]}, steps: [{emit: thanks}]}
        0d   ana  order_completed order_id=1 total=99.90 product=mug price=99.90
        0d   ana  expect segments none
        1d   ana  order_completed order_id=2 total=99.89 product=mug price=49.945 quantity=2
        1d   ana  expect segments none
        2d   ana  order_completed order_id=3 total=100.00 product=tea price=20 quantity=7
        2d   ana  expect segments dear, marked
        3d   ana  order_refunded order_id=3 amount=0.20
        3d   ana  expect segments marked
        3d   ana  expect emits thanks 0
        4d   ana  order_completed order_id=4 total=120 product=pan price=60 quantity=2
        4d   ana  expect emits thanks 1
        4d   ana  expect segments a_dear_one, dear, marked
        5d   ben  product_viewed product=sofa price=500
        6d   ben  product_viewed product=lamp price=499.99
        6d   ben  expect segments none
        7d   ben  product_viewed product=bed price=1000
        7d   ben  expect segments window_shoppers
        8d   ben  order_completed order_id=5 total=200
        8d   ben  expect segments then_dear, window_shoppers
        """
    )


@pytest.mark.mechanic("M15")
def test_an_amount_in_another_currency_is_asked_as_the_order_book_has_it() -> None:
    """The book converts what comes with a rate; an event by itself has no amount in the shop's currency."""
    check(
        """
        defaults = {currency: EUR}
        segment dear = {did: order, where: [{total: {gte: 100}}]}
        segment by_event = {did: order_completed, where: [{total: {gte: 100}}]}
        segment untold = {did: order_completed, where: [{total: {exists: false}}]}
        0d   ana  order_completed order_id=1 total=20000 currency=JPY rate=0.0062
        0d   ana  expect segments dear, untold
        0d   ben  order_completed order_id=2 total=99 currency=USD rate=0.9
        0d   ben  expect segments untold
        """
    )


@pytest.mark.mechanic("M15")
def test_a_branch_asks_what_the_event_that_it_heard_cost() -> None:
    done = check(
        """
        defaults = {currency: EUR}
        trigger follow = {on: {event: cart_updated}, key: cart_id, steps: [{wait_for: {event: order_completed, timeout: P1D, on_timeout: exit}}, {branch: [{if: {event: {total: {gte: 99.99}}}, then: [{emit: parcel_insured}]}, {else: [{emit: parcel}]}]}]}
        0d   ana  cart_updated cart_id=c product=mug price=5
        1h   ana  order_completed order_id=1 total=99.99
        2h   ben  cart_updated cart_id=d product=mug price=5
        3h   ben  order_completed order_id=2 total=99.98
        """
    )
    assert [one["template"] for one in done.sent("follow")] == ["parcel_insured", "parcel"]
