"""The embedded parts as ``opportune dev`` uses them: kept, forgotten, refused, and never left behind."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from opportune.parts import HOST, Embedded, Server, free_port
from opportune.topics import create_topics, found_topics, wanted_topics
from profiles.errors import Refused
from profiles.wire import CART_EVENTS


async def test_profiles_outlive_a_stop_and_the_brokers_records_do_not(tmp_path: Path) -> None:
    async with Embedded(tmp_path) as first, Redis.from_url(first.redis_url) as client:
        await client.set("profile", b"ana")
        await create_topics(first.bootstrap, wanted_topics())
    async with Embedded(tmp_path) as second, Redis.from_url(second.redis_url) as client:
        assert await client.get("profile") == b"ana"
        assert await found_topics(second.bootstrap, [CART_EVENTS]) == []


async def test_a_store_that_need_not_keep_leaves_no_file(tmp_path: Path) -> None:
    async with Embedded(tmp_path, keep=False) as embedded, Redis.from_url(embedded.redis_url) as client:
        await client.set("profile", b"ana")
    assert not list(tmp_path.rglob("*.aof"))


async def test_one_folder_serves_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opportune.parts.FOLDER_FREE_WITHIN_S", 0.1)
    async with Embedded(tmp_path):
        with pytest.raises(Refused, match="data folder of our own wanted, another process uses it"):
            await Embedded(tmp_path).start()
    async with Embedded(tmp_path):
        pass  # and is free again afterwards


async def test_a_taken_port_is_named_and_nothing_is_left_running(tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind((HOST, 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        with pytest.raises(Refused, match=f"broker: a free port wanted, {HOST}:{taken} is taken"):
            await Embedded(tmp_path, broker_port=taken).start()
    async with Embedded(tmp_path, broker_port=taken) as embedded:
        assert embedded.bootstrap == f"{HOST}:{taken}"


async def test_a_server_that_ends_at_once_is_refused_with_its_last_words(tmp_path: Path) -> None:
    async def never(server: Server) -> None:
        raise ConnectionError

    command = [sys.executable, "-c", "import sys; print('no such switch'); sys.exit(3)"]
    server = Server("odd", lambda _: command, never, tmp_path)
    with pytest.raises(Refused, match=r"(?s)odd: ready at .* wanted, it ended with 3; its last words .*no such switch"):
        await server.start()


async def test_a_silent_server_is_refused_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opportune.parts.READY_WITHIN_S", 0.3)
    pids: list[int] = []

    async def never(server: Server) -> None:
        pids.append(server.pid)
        raise ConnectionError

    code = "import socket, sys\ns = socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen()\nwhile 1: s.accept()"
    server = Server("odd", lambda it: [sys.executable, "-c", code, str(it.port)], never, tmp_path)
    with pytest.raises(Refused, match="it is silent"):
        await server.start()
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
async def test_the_parts_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from opportune.parts import Embedded\n"
        "async def main():\n"
        "    async with Embedded(Path(sys.argv[1])) as it:\n"
        "        print(*(server.pid for server in it._servers), flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pids = [int(word) for word in (await parent.stdout.readline()).split()]
    assert [is_alive(pid) for pid in pids] == [True, True]
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    while any(is_alive(pid) for pid in pids):  # pytest's time-out is the limit
        await asyncio.sleep(0.01)
    async with Embedded(tmp_path):
        pass  # the folder is free: its lock went with them


def is_alive(pid: int) -> bool:
    """A process of that id runs; one that ended and waits to be fetched does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_free_ports_are_free() -> None:
    with socket.socket() as probe:
        probe.bind((HOST, free_port()))
