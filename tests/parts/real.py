"""The real parts: Apache Kafka, one KRaft process from Maven's jars, and the machine's redis-server.

Both are ``opportune.parts.Server``s, started, waited for and stopped as the embedded ones are.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from opportune.parts import HOST, Server, free_port, kafka_answers, redis_answers, redis_command
from profiles.errors import Refused

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parents[1] / ".cache" / "kafka"
POM: Final = HERE / "pom.xml"

# Small and quick to start: tests make short logs. One partition each for what Kafka keeps for itself.
JAVA: Final = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)

CLASSES: Final = "classes.jsa"
CLUSTER: Final = "cluster.id="
POLL_S: Final = 0.1

PROPERTIES: Final = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
log.initial.task.delay.ms=500
log.retention.check.interval.ms=500
log.segment.delete.delay.ms=500
"""


def kafka(folder: Path, *, port: int = 0) -> Server:
    """Apache Kafka over a folder of its own; a folder it used before is taken up again, records and all.

    Raises:
        Refused: Java or Maven is missing, or Maven does not find the jars.
    """
    java = _program("java", "openjdk-17-jre-headless")
    jars = kafka_jars()
    ready = _made_ready(java, jars)

    def command(server: Server) -> list[str | Path]:
        identity = server.folder / "log" / "meta.properties"
        if identity.exists():
            server.mark = next(line[len(CLUSTER) :] for line in _lines(identity) if line.startswith(CLUSTER))
        else:
            shutil.copytree(ready / "log", identity.parent)
            lines = [line for line in _lines(identity) if not line.startswith(CLUSTER)]
            identity.write_text("\n".join([*lines, CLUSTER + server.mark, ""]))
        # The classes as they were read once: half of a start.
        share = f"-XX:SharedArchiveFile={ready / CLASSES}"
        return [java, *JAVA, share, "-cp", f"{jars}/*", "kafka.Kafka", _properties(server.folder, server.port)]

    return Server("kafka", command, kafka_answers, folder, port=port)


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def _properties(folder: Path, port: int) -> Path:
    written = folder / "server.properties"
    written.write_text(PROPERTIES.format(host=HOST, port=port, controller=free_port(), folder=folder))
    return written


def redis_server(folder: Path, *, port: int = 0, keep: bool = True) -> Server:
    """The machine's redis-server, set as the embedded store is.

    Raises:
        Refused: it is not installed.
    """
    binary = _program("redis-server", "redis-server")
    return Server("redis", lambda server: redis_command(server, binary, keep=keep), redis_answers, folder, port=port)


def kafka_jars() -> Path:
    """The folder with Kafka's jars; Maven fills it once for each content of ``pom.xml``.

    Raises:
        Refused: Maven is missing or does not find them.
    """
    return _made_once("", _fetched)


def _made_ready(java: Path, jars: Path) -> Path:
    """A folder with what every start of Kafka would do again: ``log``, formatted, and the archive of its classes.

    Raises:
        Refused: Kafka's own tool does not format, or it does not start.
    """

    def make(coming: Path) -> None:
        properties = _properties(coming, port := free_port())
        start: list[str | Path] = [java, *JAVA, "-cp", f"{jars}/*"]
        format_it = ["kafka.tools.StorageTool", "format", "-t", "opportune-opportune-op", "-c", properties]
        _run("a formatted folder wanted, its tool says", [*start, *format_it])
        shutil.copytree(coming / "log", coming / "formatted")
        with (coming / "first.log").open("wb") as said:
            archive = f"-XX:ArchiveClassesAtExit={coming / CLASSES}"
            first = subprocess.Popen(
                [*start[:-2], archive, *start[-2:], "kafka.Kafka", properties],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
            while first.poll() is None and not _listens(port):
                with suppress(subprocess.TimeoutExpired):
                    first.wait(POLL_S)
            first.terminate()
            first.wait()
        if not (coming / CLASSES).exists():
            raise Refused(f"kafka: a start wanted, got {(coming / 'first.log').read_text()}")
        shutil.rmtree(coming / "log")
        (coming / "formatted").rename(coming / "log")

    return _made_once("-ready", make)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _fetched(coming: Path) -> None:
    maven = _program("mvn", "maven")
    words = ["--batch-mode", "--quiet", "--file", POM, "dependency:copy-dependencies", "-DincludeScope=runtime"]
    _run("its jars wanted, Maven says", [maven, *words, f"-DoutputDirectory={coming}"])


def _run(wanted: str, command: Sequence[object]) -> None:
    done = subprocess.run(
        list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Refused(f"kafka: {wanted}:\n{done.stdout}{done.stderr}")


def _made_once(kind: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache that is filled once for each content of ``pom.xml``, whole or not at all."""
    made = CACHE / f"{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}{kind}"
    if made.exists():
        return made
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # two test processes may want it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            coming = made.with_suffix(".coming")
            shutil.rmtree(coming, ignore_errors=True)
            coming.mkdir()
            make(coming)
            coming.rename(made)
    return made


def _program(name: str, package: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise Refused(f"{name}: wanted on the path, not found; Debian's package is {package}")
    return Path(found).resolve() if name == "java" else Path(found)
