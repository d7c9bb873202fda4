"""An event loop in which time is a number and the order of what is ready is drawn from a seed.

    loop = virtual_loop(Random(7))
    loop.run(main())            # returns when main has; hours pass in no time

Between two awaits anything may happen that a real loop would allow: of what is ready now, any may run next. When nothing
is ready, time jumps to the next timer. What a task does is accounted to its *life*, the worker (or the world itself)
that it belongs to; a life can be frozen, and go on later, or ended between two awaits, as a power cut does it: not even
its ``finally`` is run.
"""

from __future__ import annotations

import asyncio
import heapq
import warnings
from asyncio import Handle, TimerHandle
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from random import Random  # noqa: TID251 - seeded: the same order every time
from typing import Any, Final, TypeVar

T = TypeVar("T")

STEPS_MAX: Final = 3_000_000
"""More steps than any history needs: something runs in a circle."""


class Life:
    """To whom a task belongs.

    Attributes:
        steps: how many times something of it ran; a number of these names a place between two awaits.
        dies_at: end it when it has run so often; -1 never.
        busy: the steps at which it asked something of the world that is no idle question, or heard the answer.
    """

    def __init__(self, name: str, dies_at: int = -1) -> None:
        self.name = name
        self.dies_at = dies_at
        self.steps = 0
        self.busy: set[int] = set()
        self.is_over = False
        self.is_frozen = False
        self.frozen: list[Handle] = []
        self.on_death: Callable[[], None] | None = None


LIFE: Final[ContextVar[Life | None]] = ContextVar("life", default=None)


class _Handle(Handle):
    """asyncio's, made without a look at the debug mode: a world makes ten thousand."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], loop: VirtualLoop, context: Context | None
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False


class _TimerHandle(TimerHandle):
    """The same with a time."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        loop: VirtualLoop,
        context: Context | None,
    ) -> None:
        _Handle.__init__(self, callback, args, loop, context)  # type: ignore[arg-type]  # the fields are those of both
        self._when = when
        self._scheduled = True


class Stuck(AssertionError):
    """The loop would run for ever, or has nothing left to run."""


def virtual_loop(random: Random, *, shuffled: bool = True) -> VirtualLoop:
    """A loop. It has no sockets, pipes and signals: who asks for one is told so."""
    return VirtualLoop(random, shuffled=shuffled)  # type: ignore[abstract]  # those are what it lacks


class VirtualLoop(asyncio.AbstractEventLoop):
    """See the top of this page. Time begins at 0 s."""

    def __init__(self, random: Random, *, shuffled: bool = True) -> None:
        self._random = random
        self._shuffled = shuffled
        self._now_s = 0.0
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, int, TimerHandle]] = []
        self._count = 0
        self._closed = False
        self._task_number = 0
        # Held until the end: CPython must not find the tasks of a life that was cut off, half way, as garbage.
        self._tasks: list[asyncio.Task[Any]] = []
        self.steps = 0
        self.mishaps: list[dict[str, Any]] = []

    # --- time and order -----------------------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds since this world began."""
        return self._now_s

    def now_ms(self) -> int:
        """The same in ms."""
        return round(self._now_s * 1000)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run until this has ended; what else there is stays where it is."""
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(work)
            while not task.done():
                self._step()
            result: T = task.result()
            return result
        finally:
            asyncio._set_running_loop(None)

    def _step(self) -> None:
        ready = self._ready
        if not ready:
            self._let_time_pass()
            return
        place = int(self._random.random() * len(ready)) if self._shuffled and len(ready) > 1 else 0
        if self._shuffled:
            handle = ready[place]
            ready[place] = ready[-1]
            ready.pop()
        else:
            handle = ready.pop(0)
        if handle._cancelled:
            return
        context: Context = handle._context  # type: ignore[attr-defined]  # where asyncio keeps it since 3.7
        life = context.get(LIFE)
        if life is not None:
            if life.is_over:
                return
            if life.is_frozen:
                life.frozen.append(handle)
                return
            life.steps += 1
            if life.steps == life.dies_at:
                self.end(life)
                return
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Stuck(f"at {self._now_s:.3f} s: {STEPS_MAX} steps wanted at most")
        try:
            context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]  # as its own `_run`, which costs twice
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.call_exception_handler({"message": "a callback failed", "exception": error})

    def _let_time_pass(self) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Stuck(f"at {self._now_s:.3f} s: nothing is ready, and nothing will be")
        self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                self._ready.append(handle)

    # --- lives --------------------------------------------------------------------------------------------------

    def freeze(self, life: Life) -> None:
        """It stands still; the world goes on."""
        life.is_frozen = True

    def thaw(self, life: Life) -> None:
        """It goes on, and finds all at once what came meanwhile."""
        life.is_frozen = False
        self._ready += life.frozen
        life.frozen = []

    def end(self, life: Life) -> None:
        """A power cut: nothing of it runs any more."""
        life.is_over = True
        life.frozen = []
        if life.on_death is not None:
            tell, life.on_death = life.on_death, None
            tell()

    # --- what asyncio wants of a loop ---------------------------------------------------------------------------

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Handle:  # type: ignore[override]  # typeshed's overloads of args
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_later(  # type: ignore[override]  # typeshed's overloads of args
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        return self.call_at(self._now_s + max(0.0, delay), callback, *args, context=context)

    def call_at(  # type: ignore[override]  # typeshed's overloads of args
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        handle = _TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        """It is passed over when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        self._task_number += 1
        if self._task_number % 256 == 0:
            self._tasks = [task for task in self._tasks if not task.done()]
        task = asyncio.Task(coro, loop=self, name=name or f"task {self._task_number}", context=context)
        self._tasks.append(task)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # the lives that were cut off leave theirs
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            if not task.done():
                # What it would still do, nobody is there to see; nor whether it had begun.
                with suppress(BaseException), warnings.catch_warnings(action="ignore"):
                    task.get_coro().close()
        self._tasks.clear()
        self._ready.clear()
        self._timers.clear()

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.mishaps.append(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.mishaps.append(context)


def within(life: Life) -> Context:
    """A context whose tasks belong to that life."""
    context = copy_context()
    context.run(LIFE.set, life)
    return context


def outside() -> Context:
    """A context whose tasks belong to the world."""
    context = copy_context()
    context.run(LIFE.set, None)
    return context
