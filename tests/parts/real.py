"""The real parts: Apache Kafka, one KRaft process from Maven's jars, and the machine's redis-server.

Both are ``opportune.parts.Server``s, started, waited for and stopped as the embedded ones are.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
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
"""


def kafka(folder: Path, *, port: int = 0) -> Server:
    """Apache Kafka over a folder of its own; a folder it used before is taken up again, records and all.

    Raises:
        Refused: Java or Maven is missing, or Maven does not find the jars.
    """
    java = _program("java", "openjdk-17-jre-headless")
    jars = kafka_jars()

    def command(server: Server) -> list[str | Path]:
        properties = server.folder / "server.properties"
        identity = server.folder / "cluster_id"
        if identity.exists():
            server.mark = identity.read_text()
        text = PROPERTIES.format(host=HOST, port=server.port, controller=free_port(), folder=server.folder)
        properties.write_text(text)
        start: list[str | Path] = [java, *JAVA, "-cp", f"{jars}/*"]
        if not identity.exists():
            done = subprocess.run(
                [*start, "kafka.tools.StorageTool", "format", "-t", server.mark, "-c", properties],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise Refused(f"kafka: a formatted folder wanted, its tool says: {done.stdout}{done.stderr}")
            identity.write_text(server.mark)
        return [*start, "kafka.Kafka", properties]

    return Server("kafka", command, kafka_answers, folder, port=port)


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
    jars = CACHE / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    if jars.exists():
        return jars
    maven = _program("mvn", "maven")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # two test processes may want them at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.exists():
            coming = jars.with_suffix(".coming")
            shutil.rmtree(coming, ignore_errors=True)
            done = subprocess.run(
                [
                    maven,
                    "--batch-mode",
                    "--quiet",
                    "--file",
                    POM,
                    "dependency:copy-dependencies",
                    "-DincludeScope=runtime",
                    f"-DoutputDirectory={coming}",
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise Refused(f"kafka: its jars wanted, Maven says:\n{done.stdout}{done.stderr}")
            coming.rename(jars)
    return jars


def _program(name: str, package: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise Refused(f"{name}: wanted on the path, not found; Debian's package is {package}")
    return Path(found).resolve() if name == "java" else Path(found)
