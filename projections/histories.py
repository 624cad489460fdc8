"""Histories as books read them, each with what was made of it for one book and serves others, too."""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, TypeVar

from service.core.events import Event

T = TypeVar("T")


class History(list[Event]):
    """The events of one history in canonical order. They don't change. Of some, others were superseded."""

    def __init__(self, events: Iterable[Event], *, has_superseded: bool = False) -> None:
        super().__init__(events)
        self.has_superseded = has_superseded
        self.made: dict[Callable[..., Any], Any] = {}


def made_once(make: Callable[[Sequence[Event]], T]) -> Callable[[Sequence[Event]], T]:
    """Let a function make its result once of each `History`, whichever book asks first."""

    @wraps(make)
    def made(history: Sequence[Event]) -> T:
        if not isinstance(history, History):
            return make(history)
        if make not in history.made:
            history.made[make] = make(history)
        result: T = history.made[make]
        return result

    return made
