"""A read: its path, its parameters, the type of its answer, and the function that makes it."""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from msgspec import Struct, field

from service.books.view import View
from service.core.scopes import FIGURES
from service.reads.answers import CustomerMeta, Meta
from service.reads.parameters import Parameter


class Read(Struct, frozen=True, kw_only=True):
    """One read. `shape` is the type of its answer without `meta`, `rows` the list of it that a file shows.

    `rows` is empty where there is no list, and `rows_of_detail` names the list of each value of `detail`.
    `path` may hold variables, as `{customer_id}`, which come with the arguments. `file_name` names a file by
    the arguments, if it is not named after the read and its days. `scopes` are those that a request for it
    needs.
    """

    path: str
    summary: str
    shape: type[Struct]
    rows: str = ""
    rows_of_detail: Mapping[str, str] = field(default_factory=dict)
    file_name: Callable[[Mapping[str, Any]], str] | None = None
    parameters: tuple[Parameter, ...] = ()
    scopes: tuple[str, ...] = (FIGURES,)
    dated: bool = True  # `calculation_date` is a date; else the moment of the calculation

    @property
    def name(self) -> str:
        """The read's name: "revenue-month-detail"."""
        return self.path.removeprefix("/api/").removeprefix("v1/").replace("/", "-")

    @property
    def has_list(self) -> bool:
        """Whether a file can show something of its answer."""
        return bool(self.rows or self.rows_of_detail)

    def rows_of(self, args: Mapping[str, Any]) -> str:
        """The list that a file shows, by the arguments; empty where there is none."""
        return self.rows_of_detail.get(args.get("detail") or "", self.rows)

    def file_stem(self, args: Mapping[str, Any], today: date) -> str:
        """The name of a file without its ending: what it shows, of which days; letters, digits, _, - and ."""
        if self.file_name:
            return self.file_name(args)
        words = self.name.removeprefix("payment-analytics-").replace("-", "_")
        named = re.sub(r"{(\w+)}", lambda variable: args[variable[1]], words)
        detail = [args["detail"]] if args.get("detail") else []
        days = [args["from"], "to", args["to"]] if args.get("from") and args.get("to") else [today]
        if args.get("year"):
            days = [args["year"]]
        return re.sub(r"[^A-Za-z0-9.-]+", "_", "_".join(map(str, (named, *detail, *days))))

    @property
    def meta(self) -> type[Meta]:
        """The type of its answer's `meta`."""
        return Meta if self.dated else CustomerMeta

    @property
    def page_parameter(self) -> str | None:
        """The parameter for the next page, whose value is in the answer's `next_…`; None without pages."""
        names = {parameter.name for parameter in self.parameters}
        return next((name for name in ("cursor", "after") if name in names), None)

    @property
    def looks_back(self) -> bool:
        """Whether it can be asked for the books as they were known."""
        return any(parameter.name == "known_at" for parameter in self.parameters)


class BookRead(Read, frozen=True, kw_only=True):
    """A read whose whole answer comes from the books: `answer` makes it, from a view and the arguments.

    The worker keeps the answer of a `precomputed` read ready, by its default parameters. `inferred_share` is
    that of its `meta`. `commented` names the list whose rows tell why contracts were cancelled: the comments
    of customers are not in the books, and come from the ledger.
    """

    answer: Callable[[View, dict[str, Any]], Struct]
    inferred_share: Callable[[View, dict[str, Any]], float] = lambda _view, _args: 0.0
    precomputed: bool = False
    commented: str = ""
