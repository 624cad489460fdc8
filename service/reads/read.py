"""A read: its path, its parameters, and the function that makes its document."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from service.books.view import View
from service.reads.parameters import Parameter

Answer = Callable[[View, dict[str, Any]], dict[str, Any]]


class Read(Struct, frozen=True, kw_only=True):
    """One read. `shape` names its answer's schema, `rows` the list of the answer that CSV shows.

    `rows` is empty where there is no list. `path` may hold a variable, `{customer_id}`, which `answer` gets
    with the parameters. The worker keeps the answer of a `precomputed` read ready, by its default parameters.
    """

    path: str
    summary: str
    answer: Answer
    shape: str
    rows: str
    parameters: tuple[Parameter, ...] = ()
    precomputed: bool = False
    dated: bool = True  # `calculation_date` is a date; else the moment of the calculation

    @property
    def name(self) -> str:
        """The read's name in the API's description: "month-detail"."""
        return self.path.removeprefix("/api/").removeprefix("v1/").replace("/", "-")

    @property
    def paged(self) -> bool:
        """Whether its list comes a page at a time."""
        return any(parameter.name == "cursor" for parameter in self.parameters)

    @property
    def looks_back(self) -> bool:
        """Whether it can be asked for the books as they were known."""
        return any(parameter.name == "known_at" for parameter in self.parameters)
