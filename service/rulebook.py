"""The rulebook, from TOML: policies of what counts in MRR, and what to offer to which customers."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, ValidationError, convert

from projections.book import Policy
from service.core.cadence import parse_weeks_per_month

_BUILT_IN = Path(__file__).with_name("rulebook.toml")
_DEFAULT = "default"
_MAX_REVENUE = 10**12

_WORDS = {  # the allowed words in fields of `when`, as in the customer reads
    "segments": ("whale", "high_value", "medium_value", "low_value", "minimal_value"),
    "activity": ("highly_active", "active", "declining", "at_risk"),
    "lifecycle": ("new", "active", "at_risk", "churned"),
}
_CADENCE = re.compile(
    r"daily|weekly|monthly|quarterly|yearly|every (?!3 months)([2-9]|[1-9]\d+) (day|week|month|year)s"
)
NAMES = (  # the names that a text may contain in braces
    *"customer orders revenue net_revenue average_order last_purchase days_quiet".split(),
    *"segment activity lifecycle churn_risk mrr cadence next_bill_date ends_date".split(),
)

_PolicyName = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_-]*$")]
_Words = Annotated[tuple[str, ...], Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=0)]
_Probability = Annotated[float, Meta(ge=0, le=1)]
_Text = Annotated[str, Meta(min_length=1)]
_FIELDS_OF_KIND = {
    "offer": ("offer_type", "discount_percentage", "message"),
    "upsell": ("type", "potential_revenue", "probability"),
}


class When(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The conditions of a rule; a field that is None sets none. Raises ValueError for an unknown word."""

    segments: _Words | None = None
    activity: _Words | None = None
    lifecycle: _Words | None = None
    cadences: _Words | None = None
    orders_at_least: _Count | None = None
    orders_at_most: _Count | None = None
    quiet_days_at_least: _Count | None = None
    churn_risk_at_least: _Probability | None = None
    live: bool | None = None
    declined: bool | None = None
    ending: bool | None = None

    def __post_init__(self) -> None:
        for field, words in _WORDS.items():
            _check_words(field, getattr(self, field) or (), words)
        for word in self.cadences or ():
            if not _CADENCE.fullmatch(word):
                raise ValueError(f"cadences: {word!r} is none, as monthly, yearly or every 4 weeks are")


def _check_words(field: str, found: Iterable[str], words: Sequence[str]) -> None:
    """Raise ValueError for a word that is not one of `words`."""
    for word in found:
        if word not in words:
            raise ValueError(f"{field}: {word!r} is none of {', '.join(words)}")


class Opportunity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: if all conditions of `when` are met, `text` is recommended, with its names filled in.

    An offer may say its type, its discount in percent, and the `message` to the customer, with names, too;
    an upsell its type, what it may bring in whole units of the currency, and how probable that is, 0 to 1.
    Raises ValueError for a field of another kind, and for a text with a name that is not in `NAMES`.
    """

    rule: _Text
    kind: Literal["offer", "upsell", "action"]
    text: _Text
    when: When = When()
    offer_type: _Text | None = None
    discount_percentage: Annotated[float, Meta(ge=0, le=100)] | None = None
    message: _Text | None = None
    type: _Text | None = None
    potential_revenue: Decimal | None = None
    probability: _Probability | None = None

    def __post_init__(self) -> None:
        _check_names("text", self.text)
        _check_names("message", self.message or "")
        for kind, names in _FIELDS_OF_KIND.items():
            for name in names:
                if getattr(self, name) is not None and kind != self.kind:
                    raise ValueError(f"{name}: a field of an {kind}, and this is an {self.kind}")
        revenue = self.potential_revenue
        if revenue is not None and not (revenue.is_finite() and 0 <= revenue < _MAX_REVENUE):
            raise ValueError("potential_revenue: an amount from 0 to a trillion, in units of the currency")


def _check_names(field: str, text: str) -> None:
    """Raise ValueError for a name in braces that no text may contain."""
    for _, name, form, conversion in Formatter().parse(text):
        if name is not None and (name not in NAMES or form or conversion):
            raise ValueError(f"{field}: {name!r} in braces; what can stand there alone is {', '.join(NAMES)}")


class Rulebook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a rulebook file. Policies are by name, and `default` is not among them.

    `treatment` says how to treat the customers of a segment, `focus` what counts in a lifecycle stage.
    """

    policies: dict[_PolicyName, Policy] = {}
    opportunities: tuple[Opportunity, ...] = ()
    treatment: dict[str, _Text] = {}
    focus: dict[str, _Text] = {}

    def __post_init__(self) -> None:
        for field, words in (("treatment", _WORDS["segments"]), ("focus", _WORDS["lifecycle"])):
            _check_words(field, getattr(self, field), words)
        if duplicates := [
            name for name, uses in Counter(row.rule for row in self.opportunities).items() if uses > 1
        ]:
            raise ValueError(f"opportunities: two have the rule {duplicates[0]!r}")


@lru_cache(maxsize=8)
def load_rulebook(path: Path | None = None) -> Rulebook:
    """The built-in rulebook, extended or overridden by an operator's file.

    Raises ValueError in one line with the allowed content of the file.
    """
    built_in = _read(_BUILT_IN)
    if path is None:
        return built_in
    custom = _read(path)
    if _DEFAULT in custom.policies:
        raise ValueError("a file that leaves the policy `default` as it is; give yours another name")
    return Rulebook(
        policies=built_in.policies | custom.policies,
        opportunities=custom.opportunities or built_in.opportunities,
        treatment=built_in.treatment | custom.treatment,
        focus=built_in.focus | custom.focus,
    )


def _read(path: Path) -> Rulebook:
    try:
        book = convert(tomllib.loads(path.read_text()), Rulebook, dec_hook=_parse_weeks)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the path of a file that can be read ({type(error).__name__})") from None
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ValueError(f"a rulebook in TOML; in this one: {error}") from None
    return book


def _parse_weeks(_kind: Any, value: Any) -> Fraction:
    """Weeks in a month, from text, since TOML has no fractions. Raises ValueError."""
    try:
        # a float of TOML would not be exact
        return parse_weeks_per_month(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(f"{error}, in quotes") from None
