"""Answers of reads, kept as bytes until something is committed to a store.

A kept answer is the one that would be made now, but for the moment of its calculation.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from itertools import count

from msgspec import Struct
from starlette.responses import Response

from service.storage.versions import Versions
from service.web.responses import Answer

_MAX_BYTES = 64 << 20  # of all answers that one process keeps, with their keys
_MAX_ANSWER_BYTES = _MAX_BYTES // 4
_MAX_RESPONSES = 1_024
_MAX_REQUEST_BYTES = 4_096


class _Kept:
    """The answers that were begun since the last change. Those that were not used for longest make room."""

    def __init__(self) -> None:
        self.responses: dict[Hashable, tuple[Hashable, Response]] = {}  # by requests; with the answers' keys
        self._answers: OrderedDict[Hashable, Answer] = OrderedDict()
        self._bytes = 0

    def find(self, key: Hashable) -> Answer | None:
        answer = self._answers.get(key)
        if answer:
            self._answers.move_to_end(key)
        return answer

    def add(self, key: Hashable, answer: Answer) -> None:
        if _size(key, answer) > _MAX_ANSWER_BYTES:
            return
        self._answers[key] = answer
        self._bytes += _size(key, answer)
        while self._bytes > _MAX_BYTES:
            self._bytes -= _size(*self._answers.popitem(last=False))
            self.responses.clear()  # they hold its body, too


def _size(key: Hashable, answer: Answer) -> int:
    return len(repr(key)) + len(answer.body)


class _Work(Struct, frozen=True, kw_only=True):
    """An answer that is being made: when it began, and where it belongs."""

    number: int
    kept: _Kept
    task: asyncio.Task[Answer]


class KeptAnswers:
    """Finds the answers that are kept, and makes others, each once for all who ask for it meanwhile.

    A key holds all on which an answer depends besides the stores: the day, too.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._version: Hashable = None
        self._kept = _Kept()
        self._under_way: dict[Hashable, _Work] = {}
        self._numbers = count()

    async def find(self, key: Hashable) -> Answer | None:
        """The answer of this key, if it is kept and nothing has changed since it was begun."""
        return (await self._current()).find(key)

    async def find_response(self, request: Hashable) -> tuple[Answer, Response] | None:
        """An answer, with what was responded to a request that is equal in all on which that depends."""
        kept = await self._current()
        key, response = kept.responses.get(request, (None, None))
        answer = kept.find(key)
        return (answer, response) if answer and response else None

    def remember(self, request: Hashable, key: Hashable, answer: Answer, response: Response) -> None:
        """Have `find_response` find what was made of an answer, for as long as that is kept."""
        if self._kept.find(key) is answer and len(repr(request)) <= _MAX_REQUEST_BYTES:
            if len(self._kept.responses) >= _MAX_RESPONSES:
                self._kept.responses.clear()
            self._kept.responses[request] = key, response

    async def _current(self) -> _Kept:
        """Where answers are kept as long as nothing changes."""
        version = await self._versions.current()
        if version != self._version:
            self._version, self._kept = version, _Kept()
        return self._kept

    async def find_or_make(self, key: Hashable, begin: Callable[[], asyncio.Task[Answer]]) -> Answer:
        """The answer of this key; `begin` has it made if it is not kept. What it raises is not kept.

        One is made at a time. It is also for all who had asked when it began, and who ask while it is made
        and nothing has changed. A caller that is cancelled does not end it.
        """
        asked = next(self._numbers)
        while True:
            if answer := await self.find(key):
                return answer
            work = self._under_way.get(key) or self._begin(key, begin)
            if work.number > asked or work.kept is self._kept:
                return await asyncio.shield(work.task)
            await asyncio.wait({work.task})

    def _begin(self, key: Hashable, begin: Callable[[], asyncio.Task[Answer]]) -> _Work:
        work = _Work(number=next(self._numbers), kept=self._kept, task=begin())
        self._under_way[key] = work

        def end(task: asyncio.Task[Answer]) -> None:
            del self._under_way[key]
            if not task.cancelled() and not task.exception():
                work.kept.add(key, task.result())

        work.task.add_done_callback(end)
        return work
