"""Addresses and hashes: what other programs compute the same way, and what must never change."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from aiokafka.partitioner import murmur2 as kafkas_murmur2
from hypothesis import given
from hypothesis import strategies as st

from profiles.ids import (
    SHARDS,
    address_of,
    digest64,
    murmur2,
    normal,
    partition_of,
    shard_of,
    small_id,
    strength,
    trigger_id,
)
from tests.laws.histories import law

SECRET = bytes.fromhex("000102030405060708090a0b0c0d0e0f")


@law(300)
@given(data=st.binary(max_size=70))
def test_murmur2_is_kafkas(data: bytes) -> None:
    assert murmur2(data) == kafkas_murmur2(data)


@pytest.mark.parametrize(
    ("key", "positive"),
    [  # Of Apache Kafka's own test, org.apache.kafka.common.utils.UtilsTest, as signed numbers.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_values_of_kafkas_own_test(key: bytes, positive: int) -> None:
    assert murmur2(key) == positive & 0xFFFFFFFF


@law(100)
@given(address=st.text(min_size=1, max_size=40))
def test_the_default_partitioner_puts_an_address_where_its_shard_is(address: str) -> None:
    for partitions in (1, 2, 8, 64, 256):
        default = (kafkas_murmur2(address.encode()) & 0x7FFFFFFF) % partitions
        assert partition_of(shard_of(address), partitions) == default


def test_names_that_profiles_are_stored_under_are_what_they_have_always_been() -> None:
    # A change here loses every stored statistic, membership and message digest.
    assert small_id("vip") == 2438240203
    assert digest64("web\x1fm-1") == 10934896811441726916
    assert shard_of("user:42") == 173
    assert address_of("email", " Ana@Shop.Example ", SECRET) == "email:~Mpha8yIJCMXAT9E4lcsuYkCG"


def test_names_are_the_same_in_every_process() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json; from profiles.ids import *;"
            "print(json.dumps([small_id('vip'), digest64('a'), shard_of('user:1'), trigger_id('a', '1', 'user:1', 'x')]))",
        ],
        capture_output=True,
        check=True,
        text=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert json.loads(told.stdout) == [
        small_id("vip"),
        digest64("a"),
        shard_of("user:1"),
        trigger_id("a", "1", "user:1", "x"),
    ]


def test_shards_are_filled_evenly() -> None:
    counts = [0] * SHARDS
    for n in range(SHARDS * 100):
        counts[shard_of(f"user:{n}")] += 1
    assert min(counts) > 60
    assert max(counts) < 140


@pytest.mark.parametrize(
    ("kind", "value", "spelling"),
    [
        ("email", " Ana@Shop.EXAMPLE", "ana@shop.example"),
        ("phone", "+49 (30) 123-45.67", "+49301234567"),
        ("card", "1234 5678", "12345678"),
    ],
)
def test_a_personal_identifier_has_one_spelling(kind: str, value: str, spelling: str) -> None:
    assert normal(kind, value) == spelling
    assert address_of(kind, value, SECRET) == address_of(kind, spelling, SECRET)


@pytest.mark.invariant("R25")
@law(100)
@given(name=st.from_regex(r"[a-z]{8,12}@[a-z]{8,12}[.]example", fullmatch=True))
def test_a_personal_address_does_not_show_its_value(name: str) -> None:
    address = address_of("email", name, SECRET)
    assert address.startswith("email:~")
    assert not any(part in address for part in (name, *name.split("@")))
    assert address_of("email", name, b"another secret") != address


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("email", "ana"), ("email", "@b"), ("email", "a b@c.d"), ("phone", "030 1234567"), ("phone", "+0123"), ("user", ""),
        ("user", "   "), ("user", "x" * 201), ("user", "a\nb"), ("email", "~abc"),
        ("user", "a\ud800"), ("anon", "\udc01b"), ("email", "ana\ufffd@b.c"),
    ],
)  # fmt: skip
def test_what_is_no_identifier_is_refused_without_being_repeated(kind: str, value: str) -> None:
    with pytest.raises(ValueError, match="wanted") as refused:
        address_of(kind, value, SECRET)
    assert len(value.strip()) < 4 or value.strip() not in str(refused.value)


def test_kinds_are_ordered_by_strength() -> None:
    kinds = ["user:a", "email:~a", "phone:~a", "card:~a", "device:a", "anon:a", "other:a"]
    assert [strength(one) for one in kinds] == [6, 5, 4, 3, 2, 1, 0]
