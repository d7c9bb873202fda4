"""A broker that speaks TLS only: commands that look at topics obey ``OPPORTUNE_KAFKA_…`` as the worker's traffic does."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from opportune import parts
from opportune.topics import agreed_topics, found_topics
from profiles.moments import DAY_MS
from profiles.wire import CART_EVENTS, INPUT_TOPICS, SEGMENT_CHANGES
from stream import certificates, metrics
from stream.app import check_topics
from stream.settings import Own, read
from stream.transport import security


class Certificate(NamedTuple):
    """Files of a certificate that signs itself, for 127.0.0.1."""

    public: Path
    private: Path


def certificate(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a broker of the tests")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    found = Certificate(folder / "broker.pem", folder / "broker.key")
    found.public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    found.private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return found


@asynccontextmanager
async def tls_broker(certified: Certificate, folder: Path) -> AsyncIterator[str]:
    """A broker behind TLS; its address. It tells its clients the address with TLS, so all of them must speak it."""
    port = parts.free_port()

    def command(server: parts.Server) -> list[str | Path]:
        words = list(parts._tansu(server))
        words[words.index("--advertised-listener-url") + 1] = f"tcp://127.0.0.1:{port}"
        return words

    async def listens(server: parts.Server) -> None:
        """That somebody does is all that can be asked without TLS."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.port)

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65_536):
                    sink.write(data)
                    await sink.drain()
            except (OSError, ssl.SSLError):
                pass  # The client is gone, or would not trust us.
            finally:
                sink.close()

        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified.public, certified.private)
    async with parts.Server("broker", command, listens, folder) as server:
        front = await asyncio.start_server(carry, "127.0.0.1", port, ssl=context)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            front.close()


async def opportune(*words: str, **settings: str) -> tuple[int, str]:
    """Run a command; its exit code and what it said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPPORTUNE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "opportune",
        *words,
        env={**kept, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, told.decode()


@pytest.mark.invariant("R28")
async def test_topics_are_made_and_checked_over_tls_and_kept_as_long_as_the_settings_say(tmp_path: Path) -> None:
    certified = certificate(tmp_path)
    async with tls_broker(certified, tmp_path / "broker") as address:
        settings = {
            "OPPORTUNE_BOOTSTRAP": address,
            "OPPORTUNE_KAFKA_SECURITY": "SSL",
            "OPPORTUNE_KAFKA_CA_FILE": str(certified.public),
            "OPPORTUNE_INPUT_RETENTION_MS": str(5 * DAY_MS),
            "OPPORTUNE_OUTPUT_RETENTION_MS": str(2 * DAY_MS),
        }
        code, told = await opportune("topics", "create", **settings)
        assert code == 0, told
        assert told.startswith("made ")
        code, told = await opportune("topics", "check", **settings)
        assert (code, told.partition(":")[0]) == (0, "good"), told
        agreed, own = read(settings)
        await check_topics(read(settings), INPUT_TOPICS)  # a worker's first look
        found = await found_topics(address, [CART_EVENTS, SEGMENT_CHANGES], security=security(own))
        assert {topic.name: topic.settings["retention.ms"] for topic in found} == {
            CART_EVENTS: str(5 * DAY_MS),
            SEGMENT_CHANGES: str(2 * DAY_MS),
        }
        assert {topic.partitions for topic in agreed_topics(agreed, [])} == {agreed.partitions}
        code, told = await opportune("topics", "check", **settings | {"OPPORTUNE_KAFKA_CA_FILE": ""})
        assert code == 1
        assert "Traceback" not in told


async def test_the_ends_of_certificates_are_told_of_all_who_show_one(tmp_path: Path) -> None:
    certified = certificate(tmp_path)
    end_s = datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC).timestamp()
    assert not await certificates.tell(Own())  # Nothing speaks TLS.
    metrics.CERTIFICATE_ENDS.clear()
    async with tls_broker(certified, tmp_path / "broker") as address:
        host, _, port = address.rpartition(":")
        own = Own(
            bootstrap=f"{address},127.0.0.1:1",  # one that does not answer takes nothing from the others
            kafka_security="SSL",
            kafka_ca_file=str(certified.public),
            redis_url=f"rediss://{host}:{port}/0?ssl_ca_certs={certified.public}",  # a handshake is all that is asked
        )
        assert await certificates.tell(own)
    for who in ("authority", "broker", "store"):
        assert metrics.CERTIFICATE_ENDS.labels(who)._value.get() == end_s, who
