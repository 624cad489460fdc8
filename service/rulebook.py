"""The rulebook: policies of what counts in MRR, and rules of what to offer to whom, from TOML."""

import tomllib
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, ValidationError, convert

from projections.book import Policy

_OWN = Path(__file__).with_name("rulebook.toml")
_DEFAULT = "default"


class When(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rule asks of a customer; what is None is not asked."""

    segments: tuple[str, ...] | None = None
    activity: tuple[str, ...] | None = None
    lifecycle: tuple[str, ...] | None = None
    cadences: tuple[str, ...] | None = None
    orders_at_least: int | None = None
    orders_at_most: int | None = None
    quiet_days_at_least: int | None = None
    churn_risk_at_least: float | None = None
    live: bool | None = None
    declined: bool | None = None
    ending: bool | None = None


class Opportunity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: where all of `when` is so, `text` is recommended, its names in braces filled in."""

    rule: str
    kind: Literal["offer", "upsell", "action"]
    text: str
    when: When = When()


class Rulebook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file says. Policies by name, `default` not among them."""

    policies: dict[str, Policy] = {}
    opportunities: tuple[Opportunity, ...] = ()


@lru_cache(maxsize=8)
def load_rulebook(path: Path | None = None) -> Rulebook:
    """Daybook's own rulebook, with an operator's laid over it.

    Raises ValueError in one line: what the file may hold.
    """
    own = _read(_OWN)
    if path is None:
        return own
    theirs = _read(path)
    if _DEFAULT in theirs.policies:
        raise ValueError("a file that leaves the policy `default` as it is; give yours another name")
    return Rulebook(
        policies=own.policies | theirs.policies, opportunities=theirs.opportunities or own.opportunities
    )


def _read(path: Path) -> Rulebook:
    try:
        book = convert(tomllib.loads(path.read_text()), Rulebook, dec_hook=_fraction)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the path of a file that can be read ({type(error).__name__})") from None
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ValueError(f"a rulebook in TOML; in this one: {error}") from None
    return book


def _fraction(kind: Any, value: Any) -> Any:
    if kind is Fraction:
        try:
            return Fraction(value)
        except (ValueError, TypeError, ZeroDivisionError):
            raise ValueError('a decimal or a fraction in quotes, such as "4.33" or "52/12"') from None
    raise NotImplementedError(kind)
