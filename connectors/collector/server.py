"""The collector: HTTP in, records out, and 200 only after the broker's acknowledgement of every one of them.

A plain ASGI app. A request goes through five gates, each cheaper than what it guards: route, key, load, body,
events. Load is judged before the body is read: 429 when too much is under way here, 503 when the broker does not
answer, both with Retry-After; 429 also when somebody asks more often than settings allow. Every answer to a page of another origin carries CORS headers, the errors too, or the
SDK in that page could not tell a 429 from a dead network. Every error is JSON with ``code`` and ``message``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import re
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest

from connectors import clock, links, metrics
from connectors.collector.admission import HOOK, Admission, Given, admit, refused_whole
from connectors.collector.body import Inflater, Parsed, TooLarge, parse
from connectors.collector.http import EmbeddedServer, server_for
from connectors.collector.keys import Keys, Source, read_keys
from connectors.collector.links import PICTURE, PURPOSES, SOURCE, asking, done, language_of, reacted, unsubscribed
from connectors.collector.rates import Rates
from connectors.collector.tracker import AGE_S_MAX, read_tracker
from connectors.collector.webhooks import Hook, read_webhooks
from connectors.publisher import Publisher, PublishFailed, kafka_options
from connectors.settings import Settings
from profiles.catalogue import Catalogue
from profiles.errors import BadInput
from profiles.ids import message_hash
from profiles.moments import FOREVER, Clock
from profiles.wire import DEAD_LETTERS, EVENT_TOPICS, Record, decode_event

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Locate = Callable[[str], Mapping[str, str] | None]
"""An IP address -> country, region, city; must not wait for anything."""

LOG = logging.getLogger("opportune.collector")

RETRY_AFTER_S: Final = b"2"
ADDRESS_CHARS_MAX: Final = 45
"""Of an IP address, in its longest spelling."""

TOLD_MAX: Final = 10
"""Refused events that a 200 lists; the rest is counted."""

_CALLS: Final = ("track", "identify", "page", "screen", "group", "alias")
_SHORT: Final = {"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias", "b": "batch"}
ROUTES: Final = {
    **{f"/v1/{call}": call for call in (*_CALLS, "batch", "import")},
    **{f"/v1/{short}": call for short, call in _SHORT.items()},
    **{f"/api/s/{call}": call for call in _CALLS},  # Jitsu's spelling
}
"""Paths that take events, and what they mean. A slash at the end is one too many, and allowed."""

_HOOK = re.compile(r"/(?:web)?hooks/([^/]+)")

_LINK = re.compile(rf"/([{''.join(PURPOSES)}])/([\w.-]{{1,8000}})", re.ASCII)

_STATUS: Final = {
    "too_large": 413, "too_many_events": 413, "unsupported_encoding": 415, "slow_body": 408, "unknown_key": 401,
    "needs_secret_key": 403,
}  # fmt: skip
"""Status by reason; any other is 400."""

_JSON: Final = (b"content-type", b"application/json")
_SUCCESS: Final = b'{"success":true}'
_SUCCESS_HEADERS: Final = [_JSON]
_TOKENS = re.compile(rb"[A-Za-z0-9,\- ]{1,1000}")
_VARY: Final = (b"vary", b"origin")
_EXPOSE: Final = (b"access-control-expose-headers", b"retry-after")
_OF_A_LINK: Final = [
    (b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer"), (b"x-robots-tag", b"noindex"),
]  # fmt: skip
_PAGE: Final = [
    (b"content-type", b"text/html; charset=utf-8"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    ),
    *_OF_A_LINK,
]
_NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")


Follow = Callable[[], Awaitable[None]]


class Gone(Exception):
    """The client left before its body was whole: there is nobody to answer."""


class Collector:
    """Takes events over HTTP and publishes them. ``start`` and ``stop`` run it inside any event loop.

    Args:
        settings: what it works with.
        time: the clock that stamps arrivals.
        keys: write keys; read from the settings when not given.
        locate: says where an IP address is; its answer goes into the event's context.
        goods: the shop's catalogue, kept up by whoever gives it; it completes items.
    """

    def __init__(
        self,
        settings: Settings,
        time: Clock,
        keys: Keys | None = None,
        locate: Locate | None = None,
        goods: Catalogue | None = None,
    ) -> None:
        self._settings = settings
        self._secret = settings.secret_bytes()
        self._time = time
        self._keys = read_keys(settings.write_keys) if keys is None else keys
        self._link_keys = settings.signers()
        self._hooks = read_webhooks(settings.webhooks)
        self._locate = locate
        self._goods = goods
        self._rates = Rates(settings.collector_per_s, settings.collector_key_per_s, settings.collector_address_per_s)
        self._tracker = read_tracker()
        self._publisher = Publisher(
            kafka_options(settings),
            (*EVENT_TOPICS, DEAD_LETTERS),
            linger_ms=settings.collector_linger_ms,
            publish_ms_max=settings.collector_publish_ms,
            stalled_ms=settings.collector_stalled_ms,
        )
        self._server: EmbeddedServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self._requests = 0
        self._bytes = 0
        for name, until_ms in self._keys.ends().items():
            metrics.KEY_ENDS.labels(name).set(until_ms / 1000)
        metrics.LIMIT.labels("requests").set(settings.collector_requests)
        metrics.LIMIT.labels("bytes").set(settings.collector_bytes)
        self.port = 0

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect to the broker, listen, and return when requests are served.

        Raises:
            Refused: the broker or its topics are not as they must be.
            OSError: the port cannot be had.
        """
        await self.connect()
        try:
            listener = socket.create_server(
                (self._settings.collector_host, self._settings.collector_port), backlog=2048, reuse_port=False
            )
        except OSError:
            await self._publisher.stop()
            raise
        # asyncio does this only for sockets made with the protocol's number; without, every answer waits 40 ms for an ack.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        self._server = server_for(self)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0)
        if self._serving.done():
            self._serving.result()

    async def connect(self) -> None:
        """Connect to the broker only: for one who calls the ASGI app himself."""
        await self._publisher.start(same_count=EVENT_TOPICS)

    async def stop(self) -> None:
        """Take no more, finish what is under way, publish what waits, and let go."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        await self._publisher.stop()

    # --- a request ----------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        since_s = clock.seconds()
        path: str = scope["path"]
        call = ROUTES.get(path) or ROUTES.get(path.rstrip("/"))
        cors: Headers = []
        for name, value in scope["headers"]:
            if name == b"origin":
                cors = [(b"access-control-allow-origin", value), _VARY, _EXPOSE]
                break
        try:
            if call is None and (hook := self._hook(scope["method"], path)) is not None:
                route = HOOK
                status, headers, body = await self._take_hook(scope, receive, hook)
            elif call is None and (found := self._link(path)) is not None:
                link, token = found
                route = link.purpose
                status, headers, body = await self._follow(scope, receive, link, token)
            elif call is None:
                status, headers, body = await self._other(scope, path)
                route = path if status != 404 else "other"
            elif scope["method"] == "POST":
                route = call
                status, headers, body = await self._take(scope, receive, call)
                metrics.REQUEST_SECONDS.observe(clock.seconds() - since_s)
            elif scope["method"] == "OPTIONS":
                route, status, headers, body = call, 204, _preflight(scope), b""
            else:
                route = call
                status, headers, body = _error(405, "method_not_allowed", "POST wanted", (b"allow", b"POST, OPTIONS"))
        except Gone:
            return
        except Exception as error:
            # Our bug. What was sent may be in the message: only the kind and the place are told.
            frame = error.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            place = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else "?"
            LOG.error("a request ended in %s at %s", type(error).__name__, place)
            route = call or "other"
            status, headers, body = _error(500, "bug", "an error of the collector itself")
        _requests(route, status).inc()
        headers = [*headers, *cors, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _take(self, scope: Scope, receive: Receive, call: str) -> tuple[int, Headers, bytes]:
        """Take the events of one request."""
        authorization = jitsu = encoding = length = agent = forwarded = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"content-length":
                length = value
            elif name == b"content-encoding":
                encoding = value.strip().lower()
            elif name == b"user-agent":
                agent = value
            elif name == b"x-write-key":
                jitsu = value
            elif name == b"x-forwarded-for":
                forwarded = value
        keys = self._keys
        if keys.next_end_ms < FOREVER and keys.next_end_ms <= self._time.now_ms():
            keys.expire(self._time.now_ms())
        source = keys.of_header(authorization) if authorization else None
        if source is None and jitsu:
            source = keys.of(jitsu.partition(b":")[0].decode("latin-1"))
        if source is None and authorization:
            return _refused(BadInput("unknown_key", "Authorization: a known write key wanted, got another"))

        return await self._within(
            scope,
            receive,
            source,
            _Head(length, encoding, forwarded),
            lambda body: self._admit(scope, call, body, source, agent, forwarded),
        )

    def _hook(self, method: str, path: str) -> Hook | None:
        """The webhook that a request asks for, if it is one that is taken."""
        found = _HOOK.fullmatch(path) if method == "POST" else None
        return self._hooks.get(found[1]) if found is not None else None

    async def _take_hook(self, scope: Scope, receive: Receive, hook: Hook) -> tuple[int, Headers, bytes]:
        """Take a delivery of a webhook, if it is signed; of what is not, nothing is told."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        length, forwarded = headers.get("content-length", ""), headers.get("x-forwarded-for", "")
        # The signature is over what was sent, so nothing is inflated before.
        head = _Head(length.encode("latin-1"), b"", forwarded.encode("latin-1"))
        return await self._within(scope, receive, None, head, lambda body: self._admit_hook(hook, headers, body))

    async def _within(
        self,
        scope: Scope,
        receive: Receive,
        source: Source | None,
        head: _Head,
        then: Callable[[bytes], Awaitable[tuple[int, Headers, bytes]]],
    ) -> tuple[int, Headers, bytes]:
        """Read a body within all limits, and answer by what follows from it. ``source``: whose key stands in the head."""
        length, encoding, forwarded = head
        wait_s = self._rates.of_all(self._address(scope, forwarded) if self._rates.per_address else "", clock.seconds())
        if wait_s or (source is not None and (wait_s := self._rates.of_key(source.name, clock.seconds()))):
            return _too_often(wait_s)
        # Load is judged by what was announced; a body without a length counts as the largest.
        settings = self._settings
        announced = int(length) if length.isdigit() else settings.collector_body_bytes
        if announced > settings.collector_body_bytes:
            return _refused(TooLarge(settings.collector_body_bytes))
        if self._publisher.stalled:
            return _later(503, "unavailable", "the event log does not answer; send again")
        if self._requests >= settings.collector_requests or (
            self._bytes and self._bytes + announced > settings.collector_bytes
        ):
            return _later(429, "overloaded", "too much is under way; send again")

        holding = _Holding(announced)
        self._requests += 1
        self._bytes += announced
        try:
            try:
                inflater = Inflater(encoding, settings.collector_body_bytes)
                await self._read(receive, inflater, holding)
                body = inflater.done()
            except _Overloaded:
                return _later(429, "overloaded", "too much is under way; send again")
            except BadInput as error:
                # There is no whole body that could be kept.
                if source is not None:
                    metrics.BODIES_REFUSED.labels(source.name, error.reason).inc()
                return _refused(error)
            metrics.BODY_BYTES.inc(len(body))
            return await then(body)
        finally:
            self._requests -= 1
            self._bytes -= holding.bytes

    async def _read(self, receive: Receive, inflater: Inflater, holding: _Holding) -> None:
        """Read the body, and account for what it inflates to while it does."""
        bytes_max = self._settings.collector_bytes
        try:
            async with asyncio.timeout(self._settings.collector_read_ms / 1000):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Gone
                    chunk = message.get("body", b"")
                    if chunk:
                        inflater.feed(chunk)
                        grown = inflater.size - holding.bytes
                        if grown > 0:
                            if self._bytes + grown > bytes_max and self._requests > 1:
                                raise _Overloaded
                            holding.bytes += grown
                            self._bytes += grown
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            within_s = self._settings.collector_read_ms // 1000
            raise BadInput("slow_body", f"body: all of it within {within_s} s wanted, got a part") from None

    async def _admit(
        self, scope: Scope, call: str, body: bytes, source: Source | None, agent: bytes, forwarded: bytes
    ) -> tuple[int, Headers, bytes]:
        """Admit the events of a whole body and publish what became of them."""
        shape = "batch" if call == "import" else call
        parsed: Parsed | None = None
        mistake: BadInput | None = None
        try:
            parsed = parse(shape, body, self._settings.collector_batch_events)
        except BadInput as error:
            mistake = error
        if source is None and parsed is not None:
            source = self._keys.of(parsed.whole.get("writeKey"))
            if source is not None and (wait_s := self._rates.of_key(source.name, clock.seconds())):
                return _too_often(wait_s)
        if source is None:
            return _refused(mistake or BadInput("unknown_key", "writeKey: a known write key wanted, got none"))
        if call == "import" and not source.trusted:
            return _refused(BadInput("needs_secret_key", "writeKey: a secret one wanted for history, got a public one"))
        given = Given(
            source,
            self._time.now_ms(),
            self._secret,
            self._settings.collector_event_bytes,
            backfill=call == "import",
            user_agent="" if source.trusted else agent.decode("latin-1"),
            seen=self._seen(scope, forwarded),
            goods=self._goods,
        )
        if parsed is None:
            assert mistake is not None
            metrics.BODIES_REFUSED.labels(source.name, mistake.reason).inc()
            letter = refused_whole(shape, body, mistake, given)
            del body
            return await self._published([letter]) or _refused(mistake)
        admission = admit(parsed, given)
        # What was read is large; nothing of it is held while the broker works.
        del parsed, body
        failed = await self._published(admission.records)
        if failed is not None:
            return failed
        _taken(source.name, admission)
        return _answer(shape, admission)

    async def _admit_hook(self, hook: Hook, headers: Mapping[str, str], body: bytes) -> tuple[int, Headers, bytes]:
        """Admit what a whole delivery tells and publish what became of it."""
        now_ms = self._time.now_ms()
        if reason := hook.refuses(headers, body, now_ms):
            metrics.HOOKS_REFUSED.labels(hook.source.name, reason).inc()
            return _NOT_FOUND
        if wait_s := self._rates.of_key(hook.source.name, clock.seconds()):
            return _too_often(wait_s)
        given = Given(
            hook.source,
            now_ms,
            self._secret,
            self._settings.collector_event_bytes,
            goods=self._goods,
            headers=hook.kept(headers),
        )
        try:
            admission = admit(hook.parse(headers, body), given)
        except BadInput as error:
            metrics.BODIES_REFUSED.labels(hook.source.name, error.reason).inc()
            return await self._published([refused_whole(HOOK, body, error, given)]) or _refused(error)
        failed = await self._published(admission.records)
        if failed is not None:
            return failed
        _taken(hook.source.name, admission)
        # Whoever is told of a refusal sends the same again, or gives up on us: it is kept here.
        return 200, _SUCCESS_HEADERS, _SUCCESS

    def _link(self, path: str) -> tuple[links.Link, str] | None:
        """The link that a path is, and its token, if we signed it for that."""
        found = _LINK.fullmatch(path)
        link = links.read(PURPOSES[found[1]], found[2], self._link_keys) if found is not None else None
        return (link, found[2]) if found is not None and link is not None else None

    async def _follow(self, scope: Scope, receive: Receive, link: links.Link, token: str) -> tuple[int, Headers, bytes]:
        """Do what a link is for."""
        method, asked = scope["method"], dict(scope["headers"])
        forwarded = asked.get(b"x-forwarded-for", b"")
        language = language_of(asked.get(b"accept-language", b"").decode("latin-1"))
        if link.purpose == links.UNSUBSCRIBE and method == "POST":
            head = _Head(asked.get(b"content-length", b""), b"", forwarded)
            do = partial(self._unsubscribe, link, token, language)
            return await self._within(scope, receive, None, head, do)
        if method not in ("GET", "HEAD"):
            return _error(405, "method_not_allowed", "GET wanted", (b"allow", b"GET, HEAD"))
        if link.purpose == links.UNSUBSCRIBE:
            return 200, _PAGE, asking(link, language)
        fetched = b"prefetch" in asked.get(b"sec-purpose", asked.get(b"purpose", b""))
        admission = reacted(
            link,
            token,
            self._time.now_ms(),
            agent=asked.get(b"user-agent", b"").decode("latin-1"),
            machine="prefetch" if fetched else "scanner" if method == "HEAD" else "",
            seen=self._seen(scope, forwarded),
        )
        await self._told_in_time(self._address(scope, forwarded), admission)
        if link.purpose == links.OPEN:
            return 200, [(b"content-type", b"image/gif"), *_OF_A_LINK], PICTURE
        return 302, [(b"location", link.url.encode()), *_OF_A_LINK], b""

    async def _unsubscribe(
        self, link: links.Link, token: str, language: str, body: bytes
    ) -> tuple[int, Headers, bytes]:
        admission = unsubscribed(link, token, self._time.now_ms(), body)
        failed = await self._published(admission.records)
        if failed is not None:
            return failed
        _taken(SOURCE, admission)
        return 200, _PAGE, done(link, body, language)

    async def _told_in_time(self, address: str, admission: Admission) -> None:
        """Publish what somebody did who waits for his page: wait a moment for it, and not at all where there is no room."""
        wait_s = self._rates.of_all(address, clock.seconds())
        if wait_s or self._publisher.stalled or self._requests >= self._settings.collector_requests:
            metrics.LINKS_LOST.inc()
            return
        self._requests += 1
        try:
            publishing = self._publisher.publish(admission.records)
            publishing.add_done_callback(lambda done: _followed(admission, done))
            await asyncio.wait((publishing,), timeout=self._settings.link_wait_ms / 1000)
        finally:
            self._requests -= 1

    async def _published(self, records: Sequence[Record]) -> tuple[int, Headers, bytes] | None:
        """Publish; ``None`` when all is acknowledged, else the answer."""
        try:
            await self._publisher.publish(records)
        except PublishFailed:
            return _later(503, "unavailable", "the event log did not answer in time; send again")
        return None

    def _seen(self, scope: Scope, forwarded: bytes) -> dict[str, Any]:
        """What the connection tells of the sender, if the installation wants to know."""
        if not self._settings.collector_keep_ip and self._locate is None:
            return {}
        ip = self._address(scope, forwarded)
        seen: dict[str, Any] = {}
        if self._settings.collector_keep_ip and ip:
            seen["ip"] = ip
        place = self._locate(ip) if self._locate is not None and ip else None
        if place:
            seen["place"] = dict(place)
        return seen

    def _address(self, scope: Scope, forwarded: bytes) -> str:
        """The client's IP address, as the last trusted proxy saw it."""
        client = scope.get("client")
        ip: str = client[0] if client else ""
        hops = self._settings.collector_proxies
        if hops and forwarded:
            chain = [part.strip() for part in forwarded.decode("latin-1").split(",")]
            ip = chain[-min(hops, len(chain))]
        return ip[:ADDRESS_CHARS_MAX]

    async def _other(self, scope: Scope, path: str) -> tuple[int, Headers, bytes]:
        """Everything that takes no events."""
        if path not in ("/healthz", "/readyz", "/metrics", "/t.js"):
            return _NOT_FOUND
        if scope["method"] not in ("GET", "HEAD"):
            return _error(405, "method_not_allowed", "GET wanted", (b"allow", b"GET, HEAD"))
        if path == "/healthz":
            return 200, [_JSON], b'{"status":"ok"}'
        if path == "/readyz":
            if not self._publisher.stalled and await self._publisher.answers(within_s=2.0):
                return 200, [_JSON], b'{"status":"ready"}'
            return _later(503, "unavailable", "the event log does not answer")
        if path == "/metrics":
            metrics.REQUESTS_UNDER_WAY.set(self._requests)
            metrics.BYTES_UNDER_WAY.set(self._bytes)
            return 200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], generate_latest()
        return self._script(dict(scope["headers"]))

    def _script(self, asked: dict[bytes, bytes]) -> tuple[int, Headers, bytes]:
        tracker = self._tracker
        headers = [
            (b"content-type", b"text/javascript; charset=utf-8"),
            (b"cache-control", b"public, max-age=%d" % AGE_S_MAX),
            (b"etag", tracker.tag),
            (b"vary", b"accept-encoding"),
            _NO_SNIFF,
        ]
        if tracker.tag in asked.get(b"if-none-match", b""):
            return 304, headers, b""
        if b"gzip" in asked.get(b"accept-encoding", b""):
            return 200, [*headers, (b"content-encoding", b"gzip")], tracker.gzipped
        return 200, headers, tracker.plain


class _Overloaded(Exception):
    """A body inflates to more than there is room for now."""


class _Head(NamedTuple):
    """What a request's head says of its body and of whence it came: three headers as they stand there."""

    length: bytes
    encoding: bytes
    forwarded: bytes


@dataclass(slots=True)
class _Holding:
    """How many bytes a request is accounted for: announced, or inflated if that is more."""

    bytes: int


def _answer(shape: str, admission: Admission) -> tuple[int, Headers, bytes]:
    refusals = admission.refusals
    if not refusals:
        return 200, _SUCCESS_HEADERS, _SUCCESS
    if shape != "batch":
        return _refused(BadInput(refusals[0].reason, refusals[0].detail))
    # SDKs know only whole batches: any error would make them drop, or send again, the good ones.
    told = [{"place": one.place, "code": one.reason, "message": one.detail} for one in refusals[:TOLD_MAX]]
    return 200, _SUCCESS_HEADERS, orjson.dumps({"success": True, "refused": len(refusals), "refusals": told})


def _preflight(scope: Scope) -> Headers:
    """The answer to a preflight; it carries no key, so there is nothing to check."""
    asked = dict(scope["headers"]).get(b"access-control-request-headers", b"")
    allowed = asked if _TOKENS.fullmatch(asked) else b"authorization, content-type"
    return [
        (b"access-control-allow-methods", b"POST"),
        (b"access-control-allow-headers", allowed),
        (b"access-control-max-age", b"7200"),
    ]


def _refused(error: BadInput) -> tuple[int, Headers, bytes]:
    return _error(_STATUS.get(error.reason, 400), error.reason, str(error))


def _later(status: int, code: str, message: str) -> tuple[int, Headers, bytes]:
    return _error(status, code, message, (b"retry-after", RETRY_AFTER_S))


def _too_often(wait_s: float) -> tuple[int, Headers, bytes]:
    after = (b"retry-after", b"%d" % max(1, math.ceil(wait_s)))
    return _error(429, "too_often", "more requests a second than are allowed; send again", after)


def _error(status: int, code: str, message: str, *more: tuple[bytes, bytes]) -> tuple[int, Headers, bytes]:
    return status, [_JSON, *more], orjson.dumps({"code": code, "message": message})


_NOT_FOUND: Final = _error(404, "not_found", "no such path")


def _taken(source: str, admission: Admission) -> None:
    """Count what the broker has acknowledged, and tell of it whoever listens."""
    _count(source, admission)
    if LOG.isEnabledFor(logging.DEBUG):
        _tell(source, admission)


def _followed(admission: Admission, done: asyncio.Future[None]) -> None:
    if done.cancelled() or done.exception() is not None:
        metrics.LINKS_LOST.inc()
    else:
        _taken(SOURCE, admission)


def _count(source: str, admission: Admission) -> None:
    for event_type, count in admission.accepted.items():
        _accepted(source, event_type).inc(count)
    for refusal in admission.refusals:
        metrics.DEAD_LETTERS.labels(source, refusal.reason).inc()


def _tell(source: str, admission: Admission) -> None:
    """Every event by its hash, for whoever follows one through the processes; costs a second decoding."""
    for topic, _, value in admission.records:
        if topic != DEAD_LETTERS:
            event = decode_event(value)
            name = message_hash(source, event.message_id)
            LOG.debug("accepted", extra={"message_hash": name, "topic": topic, "received_ms": event.received_ms})
    for refusal in admission.refusals:
        LOG.debug("refused", extra={"source": source, "reason": refusal.reason, "place": refusal.place})


@lru_cache(maxsize=4096)
def _accepted(source: str, event_type: str) -> Counter:
    return metrics.EVENTS_ACCEPTED.labels(source, event_type)


@lru_cache(maxsize=512)
def _requests(route: str, status: int) -> Counter:
    return metrics.REQUESTS.labels(route, str(status))


async def serve(settings: Settings, time: Clock, goods: Catalogue | None = None, follow: Follow | None = None) -> None:
    """Run a collector until SIGINT or SIGTERM, then end cleanly.

    Args:
        goods, follow: the catalogue, and what keeps it up for ever.
    """
    following = asyncio.ensure_future(follow()) if follow is not None else None
    collector = Collector(settings, time, goods=goods)
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, asked_to_stop.set)
    await collector.start()
    LOG.info("the collector listens on port %d", collector.port)
    await asked_to_stop.wait()
    await collector.stop()
    if following is not None:
        following.cancel()


def run(settings: Settings, goods: Catalogue | None = None, follow: Follow | None = None) -> None:
    """Run a collector as its own process; see ``serve``."""
    # The heap of modules never becomes garbage, and an event is a hundred objects that free themselves: the collector
    # of cycles has little to find, and looks for it less often.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, clock.SystemClock(), goods, follow))
