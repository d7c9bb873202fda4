"""A fixed life under the shop pack, and a digest of all bytes that came of it: ``python -m tests.laws.replayed``.

``test_bytes.py`` runs it in processes with other hash seeds.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Final

from profiles.codec import encode
from profiles.wire import pack_record
from rules.scenarios import Run, check
from tests.scenarios.pack import SHOP

LIFE: Final = """
    trait seen_products = {distinct: product_viewed.product_id, window: {within: P1M}}
    segment curious = {trait: seen_products, gte: 2}
    segment of_tools = {did: [product_viewed, product_added], item: [{category: tools}], window: {within: P7D}, times: {between: [1, 4]}}
    start 2026-01-30T10:00
    0h    anon:x  product_viewed product=drill price=129.9 category=tools/drills name=Drill
    1m    anon:x  product_viewed product=saw price=30 category=tools name=Saw
    2m    anon:x  product_added product=saw price=30 category=tools cart_id=c1
    3m    anon:x  product_added product=mug price=12.5
    5m    ana     registered id=anon:x gender=female address.city=Berlin first_name=Ana
    6m    anon:x  product_viewed product=mug price=12.5
    1d    ana     email_opened machine=false
    2d    ana     order_completed order_id=1 cart_id=c1 product=saw price=30 category=tools coupon=AUTUMN
    3d    ana     product_viewed product=mug price=12.5
    4d    ana     consent_changed channel=email topic=winback state=denied
    30d   ana     order_completed order_id=2 product=saw price=30 product=pen price=1.10 qty=3
    31d   ana     order_refunded order_id=2 product=pen
    33d   ana     order_completed order_id=3 total=200
    34d   ana     order_completed order_id=4 total=50 late=2d
    200d  ana     page_viewed path=/
    201d  ana     page_viewed path=/news late=3h
    401d  ana     expect in sleeping
"""


def live() -> Run:
    """Live that life."""
    return check(LIFE, SHOP)


def digest(done: Run) -> str:
    """Of every record in the order of publishing, and of every profile."""
    sha = hashlib.sha256()
    for one in done.world.published:
        sha.update(pack_record(one.record))
    for address in sorted(done.world.profiles):
        sha.update(encode(done.world.profiles[address]))
    return f"{len(done.world.published)} records, {sha.hexdigest()}"


if __name__ == "__main__":
    sys.stdout.write(digest(live()) + "\n")
