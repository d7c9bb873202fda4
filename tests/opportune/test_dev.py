"""``opportune dev`` as a newcomer meets it: one command, addresses, a shop that lives, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from stream.clock import monotonic_ms

OPPORTUNE = (sys.executable, "-m", "opportune")


class Dev:
    """A running ``opportune dev``."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self.process = process
        self._said = said
        self.collector = ""
        self.api = ""

    def said(self) -> str:
        return self._said.read_text()

    def until(self, what: str, wanted: Callable[[], Any], within_s: float) -> Any:
        """Ask until the answer is true; the process must live meanwhile."""
        deadline_ms = monotonic_ms() + within_s * 1000
        while True:
            found = wanted()
            if found:
                return found
            assert self.process.poll() is None, f"dev ended with {self.process.returncode}:\n{self.said()}"
            assert monotonic_ms() < deadline_ms, f"{what}: not within {within_s} s:\n{self.said()}"
            try:
                self.process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue

    def get(self, path: str) -> Any:
        """The API's JSON answer; ``None`` until there is one."""
        try:
            answer = httpx.get(f"{self.api}/api/v1/{path}", timeout=60)
        except httpx.HTTPError:
            return None
        return answer.json() if answer.status_code == 200 else None

    def stop(self) -> int:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@contextmanager
def running(tmp_path: Path, *more: str) -> Iterator[Dev]:
    said = tmp_path / "said.txt"
    command = (
        *OPPORTUNE,
        "dev",
        "--collector-port",
        "0",
        "--api-port",
        "0",
        "--data-dir",
        str(tmp_path / "data"),
        *more,
    )
    with said.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=dict(os.environ))
    dev = Dev(process, said)
    try:
        addresses = dev.until(
            "addresses",
            lambda: re.findall(r"^(?:collector|API) +(http://[\d.:]+)", dev.said(), re.M)[1:] and dev.said(),
            90,
        )
        dev.collector, dev.api = re.findall(r"^(?:collector|API) +(http://[\d.:]+)", addresses, re.M)[:2]
        yield dev
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_the_demo_shows_profiles_segments_and_triggers_with_reasons_within_minutes(tmp_path: Path) -> None:
    with running(tmp_path, "--demo") as dev:
        wanted = {"abandoned_cart", "lapsed_buyer", "replenishment"}

        def fired() -> bool:
            told = dev.get("triggers") or {"triggers": []}
            return wanted <= {one["name"] for one in told["triggers"] if one["decisions"].get("emitted")}

        dev.until("fired triggers", fired, 180)
        sizes = {one["name"]: one["size"] for one in dev.get("segments")["segments"]}
        assert sum(1 for size in sizes.values() if size) >= 8
        for trigger in sorted(wanted):
            decision = dev.get(f"decisions?trigger={trigger}&outcome=emitted&limit=1")["decisions"][0]
            assert [one["node"] for one in decision["detail"]["because"]] != []
            profile = dev.get(f"profiles/{decision['address']}")
            assert profile is not None
        order = {"order_id": "o-1", "total": 5}
        body = {"event": "Order Completed", "userId": "7", "messageId": "m-1", "properties": order}
        answer = httpx.post(f"{dev.collector}/v1/track", json=body, auth=("demo-public-key", ""), timeout=60)
        assert answer.status_code == 400
        # The folder that was named, as with `dev` itself; and in a pipe nothing is cut.
        [letter] = dev.until("a letter", lambda: re.findall(r".* order_events .*waits", listed(tmp_path).stdout), 30)
        assert "order_completed: currency: an ISO 4217 currency like EUR wanted, got nothing  " in letter
        assert dev.stop() == 0
        assert "stopped" in dev.said()
    assert listed(tmp_path).stderr == (
        f"opportune: --data-dir: the folder of a running `opportune dev` wanted, nothing runs on {tmp_path / 'data'}\n"
    )


def listed(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = (*OPPORTUNE, "dead-letters", "list", "--data-dir", str(tmp_path / "data"))
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_profiles_outlive_a_stop_although_the_broker_forgets(tmp_path: Path) -> None:
    def view(dev: Dev, message: str) -> None:
        product = {"product_id": f"p-{message}", "price": 2.5, "quantity": 1, "currency": "USD"}
        body = {"event": "Product Added", "userId": "7", "messageId": message, "properties": product}
        answer = httpx.post(f"{dev.collector}/v1/track", json=body, auth=("demo-public-key", ""), timeout=60)
        assert answer.status_code == 200

    def cart(dev: Dev) -> set[str]:
        told = dev.get("profiles/user:7")
        text = str(told)
        return {f"p-{message}" for message in ("one", "two") if f"p-{message}" in text}

    with running(tmp_path) as dev:
        view(dev, "one")
        dev.until("the first product", lambda: cart(dev) == {"p-one"}, 30)
        # What the worker writes for itself when it claims partitions is no event.
        dev.until("a count of events", lambda: re.search(r"  [1-9]\d* events", dev.said()), 30)
        assert not re.search(r"  ([2-9]|[1-9]\d+) events", dev.said())
        assert dev.stop() == 0
    with running(tmp_path) as dev:
        view(dev, "two")
        dev.until("both products", lambda: cart(dev) == {"p-one", "p-two"}, 30)
        assert dev.stop() == 0


def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = (*OPPORTUNE, "dev", "--collector-port", str(port), "--api-port", "0", "--data-dir", str(tmp_path))
        ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 1
    assert f"collector: port {port} wanted" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_five_mistakes_in_a_rule_file_are_all_told_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "segments:\n"
        "  a: {did: orders}\n"
        "  b: {did: order, window: {within: P3X}}\n"
        "  c: {in_segment: aa}\n"
        "  d: {alll: [{did: order}]}\n"
        "  e: {trait: orders_paid, gte: many}\n"
    )
    ended = subprocess.run(
        (*OPPORTUNE, "rules", "check", str(tmp_path)), capture_output=True, text=True, timeout=180, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "mine.yaml:2: segments/a/did: unknown event type 'orders'; did you mean 'order'?",
        "mine.yaml:3: segments/b/window/within: a duration like P3M, P7D, PT2H or 30m wanted, got 'P3X'",
        "mine.yaml:4: segments/c/in_segment: unknown segment 'aa'; did you mean 'a'?",
        "mine.yaml:5: segments/d: unknown operator 'alll'; did you mean 'all'?",
        "mine.yaml:6: segments/e/gte: a number wanted, got 'many'",
        "5 mistakes",
    ]
