"""Settings: defaults that fit together, every mistake at once, no secret in a report."""

from __future__ import annotations

from dataclasses import fields

import pytest

from profiles.errors import Refused
from profiles.settings import variable_of
from stream.settings import Agreed, Own, describe, read, unknown


def test_nothing_set_gives_the_defaults() -> None:
    assert read({}) == (Agreed(), Own())
    assert read({"OPPORTUNE_PARTITIONS": " "}).agreed.partitions == Agreed().partitions


def test_values_are_read_by_their_kind() -> None:
    settings = read(
        {
            "OPPORTUNE_PARTITIONS": "16",
            "OPPORTUNE_INPUT_RETENTION_MS": "604_800_000",
            "OPPORTUNE_LOG_FORMAT": "PLAIN",
            "OPPORTUNE_KAFKA_SECURITY": "sasl_ssl",
            "OPPORTUNE_KAFKA_USER": "worker",
            "OPPORTUNE_DATA_DIR": "/srv/opportune",
        }
    )
    assert settings.agreed.partitions == 16
    assert settings.agreed.input_retention_ms == 604_800_000
    assert settings.own.log_format == "plain"
    assert settings.own.kafka_security == "SASL_SSL"
    assert str(settings.own.data_dir) == "/srv/opportune"


def test_all_mistakes_are_reported_at_once_with_what_was_wanted_and_found() -> None:
    with pytest.raises(Refused) as refused:
        read(
            {
                "OPPORTUNE_PARTITIONS": "7",
                "OPPORTUNE_INPUT_RETENTION_MS": "1000",
                "OPPORTUNE_ZONE": "Mars/Base",
                "OPPORTUNE_CURRENCY": "euro",
                "OPPORTUNE_LOG_FORMAT": "xml",
                "OPPORTUNE_SESSION_MS": "soon",
                "OPPORTUNE_HEARTBEAT_MS": "9000",
                "OPPORTUNE_KAFKA_SECURITY": "SASL_SSL",
            }
        )
    lines = str(refused.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "OPPORTUNE_INPUT_RETENTION_MS",
        "OPPORTUNE_LOG_FORMAT",
        "OPPORTUNE_SESSION_MS",
        "OPPORTUNE_PARTITIONS",
        "OPPORTUNE_CURRENCY",
        "OPPORTUNE_ZONE",
        "OPPORTUNE_HEARTBEAT_MS",
        "OPPORTUNE_KAFKA_USER",
    ]
    assert lines[2] == "OPPORTUNE_SESSION_MS: a whole number of ms from 500 wanted, got 'soon'"
    assert all(" wanted" in line or "time zone" in line for line in lines)


@pytest.mark.invariant("R25")
def test_a_secret_is_in_no_report_and_no_text() -> None:
    with pytest.raises(Refused) as refused:
        read({"OPPORTUNE_SECRET": "hunter2"})
    assert "hunter2" not in str(refused.value)
    settings = read(
        {"OPPORTUNE_SECRET": "ab" * 16, "OPPORTUNE_REDIS_URL": "redis://:pass@h/0", "OPPORTUNE_KAFKA_PASSWORD": "word"}
    )
    assert "abab" not in repr(settings)
    assert "pass@" not in repr(settings)
    assert "'word'" not in repr(settings)


def test_every_setting_says_its_unit_and_meaning_and_appears_once() -> None:
    described = list(describe())
    names = [one.variable for one in described]
    assert names == [variable_of(one.name) for kind in (Agreed, Own) for one in fields(kind)]
    assert len(set(names)) == len(names)
    assert all(one.unit and one.meaning.endswith(".") for one in described)


def test_a_variable_that_nobody_reads_is_told_with_the_nearest_name() -> None:
    known = [one.variable for one in describe()]
    assert unknown({"OPPORTUNE_PARTITION": "8", "PATH": "/bin", "OPPORTUNE_GROUP": "x"}, known) == [
        "OPPORTUNE_PARTITION: no such setting; did you mean OPPORTUNE_PARTITIONS?"
    ]
