"""What ``docker compose up`` would start, started here: the same commands and settings, with Debian's Prometheus and
Alertmanager. Every question of every dashboard and alert is asked of what they scraped.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import pytest
import pytest_asyncio
import yaml
from aiokafka.admin import AIOKafkaAdminClient

from opportune import parts
from opportune.parts import HOST, Server
from profiles.wire import trigger_topic
from tests.deploy.compose import ROOT, Service, env_of, services
from tests.deploy.test_alerts import ALERTS
from tests.deploy.test_compose import drawn
from tests.integration.parts import until

DEPLOY: Final = ROOT / "deploy"
NEEDED: Final = ("prometheus", "prometheus-alertmanager", "redis-server")
_METRIC: Final = re.compile(r"\bopportune_[a-z_0-9]+")

# Quick: a visit ends after two seconds, a cart is told after two, so that a test sees every sort of moment.
RULES: Final = """
defaults: {currency: EUR, session_gap: PT2S}
segments:
  fresh: {did: page_viewed, window: {within: PT4S}}
triggers:
  hello: {on: {event: registered}, steps: [{emit: hello}]}
  left_cart: {on: {event: product_added}, cancel_on: [{event: order_completed}], steps: [{wait: PT2S}, {emit: left}]}
"""

NO_DATA: Final = {
    # Counters that have no series before the first trouble of their kind.
    "opportune_dead_letters_total": "a worker's own dead letters: nothing failed",
    "opportune_segments_unjudged_total": "every segment could be judged",
    "opportune_certificate_expires_timestamp_seconds": "inside the compose file's network nobody speaks TLS",
    "opportune_collector_webhooks_refused_total": "no webhook is taken",
    "opportune_write_key_expires_timestamp_seconds": "the keys of `make secrets` have no end",
}
"""Metrics that a healthy run does not show, and why."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.kafka,
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in NEEDED), reason=f"needs Debian's {', '.join(NEEDED)}"
    ),
]


def answers(path: str) -> parts.Ready:
    """Ready when this page answers 200."""

    async def ready(server: Server) -> None:
        def ask() -> None:
            with urllib.request.urlopen(f"http://{server.address}{path}", timeout=5):
                pass

        try:
            await asyncio.to_thread(ask)
        except urllib.error.HTTPError as error:
            raise ConnectionError(str(error)) from error

    return ready


def process(name: str, service: Service, port_variable: str, folder: Path, env: Mapping[str, str]) -> Server:
    """A service of ours as its container would run it, on a port of its own."""

    def command(server: Server) -> list[str | Path]:
        settings = {**service.environment, **env, port_variable: str(server.port)}
        words = [f"{key}={value}" for key, value in settings.items()]
        return ["/usr/bin/env", "-C", str(ROOT), *words, sys.executable, "-m", "opportune", *service.command]

    return Server(name, command, answers("/healthz"), folder / name)


class Production:
    """Everything that runs."""

    def __init__(self, servers: dict[str, Server], env: dict[str, str], bootstrap: str) -> None:
        self.servers = servers
        self.bootstrap = bootstrap
        self.key = next(key for key in orjson.loads(env["OPPORTUNE_WRITE_KEYS"]) if key.startswith("sk_"))

    def url(self, name: str) -> str:
        """Where a service answers."""
        return f"http://{self.servers[name].address}"

    async def send(self, client: httpx.AsyncClient, number: int, *, rubbish: int = 0) -> None:
        """A visitor who registers and leaves a cart, another who buys; and so much that cannot be taken."""

        def event(kind: str, name: str, user: str, **properties: Any) -> dict[str, Any]:
            named = {"event": name, "properties": properties} if kind == "track" else {"name": name}
            return {"type": kind, "messageId": f"{number}-{user}-{name}", "userId": user, **named}

        piece = {"product_id": "p-1", "price": 5, "quantity": 1, "currency": "EUR"}
        batch = [
            event("page", "Home", f"u-{number}"),
            event("track", "Signed Up", f"u-{number}"),
            event("track", "Product Added", f"u-{number}", **piece),
            event("track", "Product Added", f"v-{number}", **piece),
            event("track", "Order Completed", f"v-{number}", order_id=f"o-{number}", total=5, currency="EUR"),
            *(event("track", "Order Completed", f"w-{number}-{one}", total="much") for one in range(rubbish)),
        ]
        answer = await client.post(f"{self.url('collector')}/v1/batch", json={"batch": batch}, auth=(self.key, ""))
        assert answer.status_code == 200, answer.text
        await client.get(f"{self.url('api')}/api/v1/profiles/user:u-{number}")

    async def ask(self, client: httpx.AsyncClient, question: str) -> list[Any]:
        """What Prometheus answers now; series that are no number are none."""
        answer = await client.get(f"{self.url('prometheus')}/api/v1/query", params={"query": question})
        assert answer.status_code == 200, f"{question}: {answer.text}"
        return [one for one in answer.json()["data"]["result"] if one["value"][1] != "NaN"]


def scraping(servers: Mapping[str, Server], folder: Path) -> Path:
    """The shipped configuration, with our ports for the names of the compose file, and a second for every minute."""
    shipped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    for job in shipped["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [servers[job["job_name"]].address]}]
    shipped["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [servers["alertmanager"].address]}]}]
    shipped["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for name in shipped["rule_files"]:
        quick = re.sub(r"for: \d+m", "for: 2s", (DEPLOY / "prometheus" / name).read_text())
        (folder / name).write_text(quick)
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(shipped))
    return path


@asynccontextmanager
async def composed(broker: Server, tmp_path: Path, text: str = RULES) -> AsyncIterator[Production]:
    """All services of the compose file but Grafana and Kafka, with these rules."""
    env = env_of(drawn(tmp_path))
    found = services(env)
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "quick.yaml").write_text(text)

    words = found["redis"].command[1:]
    binary = shutil.which("redis-server")
    assert binary is not None
    password = env["REDIS_PASSWORD"]
    redis = Server(
        "redis",
        lambda server: [binary, *words, "--port", str(server.port), "--bind", HOST, "--dir", str(server.folder)],
        answers_with(password),
        tmp_path / "redis",
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(redis)
        ours = {
            "OPPORTUNE_BOOTSTRAP": broker.address,
            "OPPORTUNE_REDIS_URL": f"redis://:{password}@{redis.address}/0",
            "OPPORTUNE_CATALOGUE_URL": f"redis://:{password}@{redis.address}/0",
            "OPPORTUNE_RULES": str(rules),
            "OPPORTUNE_DATA_DIR": str(tmp_path / "data"),
            "OPPORTUNE_API_HOST": HOST,
        }
        topics = {**found["topics"].environment, **ours}
        made = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "opportune", *found["topics"].command, env=topics, cwd=ROOT
        )
        assert await made.wait() == 0
        servers = {
            "worker": process("worker", found["worker"], "OPPORTUNE_METRICS_PORT", tmp_path, ours),
            "collector": process("collector", found["collector"], "OPPORTUNE_COLLECTOR_PORT", tmp_path, ours),
            "api": process("api", found["api"], "OPPORTUNE_API_PORT", tmp_path, ours),
            "alertmanager": alertmanager(tmp_path),
        }
        for server in servers.values():
            await stack.enter_async_context(server)
        servers["prometheus"] = prometheus(servers, tmp_path)
        await stack.enter_async_context(servers["prometheus"])
        yield Production(servers, env, broker.address)


@pytest_asyncio.fixture
async def production(fresh_broker: Server, tmp_path: Path) -> AsyncIterator[Production]:
    """The same, on Kafka of the test's own."""
    async with composed(fresh_broker, tmp_path) as one:
        yield one


def answers_with(password: str) -> parts.Ready:
    """Ready when the store answers to the password, and to nobody without."""

    async def ready(server: Server) -> None:
        from redis.asyncio import Redis

        client = Redis(host=HOST, port=server.port, password=password, socket_timeout=5.0)
        try:
            await client.ping()
        finally:
            await client.aclose()

    return ready


def alertmanager(folder: Path) -> Server:
    """Debian's, with the shipped configuration."""

    def command(server: Server) -> list[str | Path]:
        return [
            Path(str(shutil.which("prometheus-alertmanager"))),
            f"--config.file={DEPLOY / 'alertmanager' / 'alertmanager.yml'}",
            f"--storage.path={server.folder}",
            f"--web.listen-address={server.address}",
            "--cluster.listen-address=",
        ]

    return Server("alertmanager", command, answers("/-/ready"), folder / "alertmanager")


def prometheus(servers: Mapping[str, Server], folder: Path) -> Server:
    """Debian's, with the shipped configuration and rules."""

    def command(server: Server) -> list[str | Path]:
        everybody = {**servers, "prometheus": server}
        return [
            Path(str(shutil.which("prometheus"))),
            f"--config.file={scraping(everybody, folder)}",
            f"--storage.tsdb.path={server.folder / 'data'}",
            f"--web.listen-address={server.address}",
        ]

    return Server("prometheus", command, answers("/-/ready"), folder / "prometheus")


def questions() -> dict[str, str]:
    """Where it stands -> every question of every dashboard that can have an answer here, and every recorded one."""
    found: dict[str, str] = {}
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in orjson.loads(path.read_bytes())["panels"]:
            for target in panel["targets"]:
                if not set(_METRIC.findall(target["expr"])) & set(NO_DATA):
                    found[f"{path.stem}: {panel['title']} {target['refId']}"] = target["expr"]
    for group in yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            found[" ".join([rule["record"], *rule.get("labels", {}).values()])] = rule["expr"]
    assert len(found) > 50
    return found


class Watch:
    """Somebody who keeps the shop busy and looks at what Alertmanager tells."""

    def __init__(self, production: Production, client: httpx.AsyncClient) -> None:
        self.production = production
        self.client = client
        self.sent = 0

    async def shop(self, *, rubbish: int = 0) -> None:
        """One more visit."""
        self.sent += 1
        await self.production.send(self.client, self.sent, rubbish=rubbish)

    async def up(self) -> None:
        """Return when every target is scraped."""

        async def are_up() -> bool:
            found = await self.production.ask(self.client, "up == 1")
            return {one["metric"]["job"] for one in found} == {
                "worker", "collector", "api", "prometheus", "alertmanager",
            }  # fmt: skip

        await until(are_up, what="every target scraped")

    async def firing(self) -> set[str]:
        """Names of the alerts that are told."""
        answer = await self.client.get(f"{self.production.url('alertmanager')}/api/v2/alerts")
        return {one["labels"]["alertname"] for one in answer.json()}

    async def calm(self) -> None:
        """Return when the shop goes on, its moments come out, and no alert is told: what was not up yet is forgotten."""
        await self.up()

        async def is_calm() -> bool:
            await self.shop()
            emitted = await self.production.ask(
                self.client, 'sum(rate(opportune_outgoing_records_total{topic="triggers.left_cart"}[5m])) > 0'
            )
            return bool(emitted) and not await self.firing()

        await until(is_calm, what="a shop that goes on, and no alert")

    async def told(self, name: str, rubbish: int = 0) -> None:
        """Return when this alert is told, the shop going on meanwhile; it must be the only one."""

        async def is_told() -> bool:
            if name != "OpportuneCollectorDown":
                await self.shop(rubbish=rubbish)
            return name in await self.firing()

        await until(is_told, what=f"{name} told")
        assert await self.firing() == {name}


@pytest_asyncio.fixture
async def watch(production: Production) -> AsyncIterator[Watch]:
    """The same installation, watched."""
    async with httpx.AsyncClient(timeout=10) as client:
        yield Watch(production, client)


async def test_what_compose_starts_answers_every_question(watch: Watch) -> None:
    production, client = watch.production, watch.client
    await watch.up()
    asked = questions()

    async def all_told() -> bool:
        await watch.shop(rubbish=1)
        for place, question in list(asked.items()):
            if await production.ask(client, question):
                del asked[place]
        return not asked

    try:
        await until(all_told, what="data for every panel and recorded rule", within_s=120)
    except AssertionError as error:
        raise AssertionError(f"{error}; without data: {asked}") from None

    # An alert's question has an answer in trouble only; what it asks about is there all the same.
    names = (await client.get(f"{production.url('prometheus')}/api/v1/label/__name__/values")).json()["data"]
    for name, rule in ALERTS.items():
        await production.ask(client, rule["expr"])
        missing = set(_METRIC.findall(rule["expr"])) - set(names) - set(NO_DATA)
        assert missing == set(), name


async def test_a_flood_of_poison_is_told_and_nothing_else(watch: Watch) -> None:
    await watch.calm()
    await watch.told("OpportuneDeadLetters", rubbish=5)


async def test_a_stopped_worker_is_told_and_nothing_else(watch: Watch) -> None:
    await watch.calm()
    await watch.production.servers["worker"].stop()
    await watch.told("OpportuneWorkerDown")


async def test_a_stopped_collector_is_told_and_nothing_else(watch: Watch) -> None:
    await watch.calm()
    await watch.production.servers["collector"].stop()
    await watch.told("OpportuneCollectorDown")


async def test_an_outbox_that_the_broker_does_not_take_is_told_and_nothing_else(watch: Watch) -> None:
    await watch.calm()
    # Somebody takes away the topic of a trigger: what comes in is taken as before, what goes out is not.
    admin = AIOKafkaAdminClient(bootstrap_servers=watch.production.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([trigger_topic("left_cart")])
    finally:
        await admin.close()
    await watch.told("OpportuneOutboxAgeing")
