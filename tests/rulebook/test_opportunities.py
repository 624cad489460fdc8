"""The rulebook's file: what it may hold, and what is said of one that holds something else."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from service.core.cadence import INTERVALS, cadence_label
from service.predictions.model import HORIZON_DAYS
from service.reads.customers.classes import SEGMENTS, activity_of, lifecycle_of
from service.rulebook import Opportunity, Rulebook, When, load_rulebook

Load = Callable[[str], Rulebook]

OFFER = '[[opportunities]]\nrule = "one"\nkind = "offer"\n'


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(text: str) -> Rulebook:
        path = tmp_path / "rulebook.toml"
        path.write_text(text)
        return load_rulebook(path)

    return loaded


def test_daybooks_own_rules_are_read_and_of_every_kind() -> None:
    rules = load_rulebook().opportunities
    assert {rule.kind for rule in rules} == {"offer", "upsell", "action"}
    assert len({rule.rule for rule in rules}) == len(rules)


def test_an_operators_opportunities_take_the_place_of_all(load: Load) -> None:
    book = load(OFFER + 'text = "Say {{hello}} to {customer}"\nwhen = { segments = ["whale"], live = true }')
    assert book.opportunities == (
        Opportunity(
            rule="one",
            kind="offer",
            text="Say {{hello}} to {customer}",
            when=When(segments=("whale",), live=True),
        ),
    )
    assert book.policies.keys() == load_rulebook().policies.keys()


def test_a_file_without_opportunities_keeps_daybooks_own(load: Load) -> None:
    assert load("").opportunities == load_rulebook().opportunities


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ('text = "x"\nwhen = { segments = ["vip"] }', "segments: 'vip' is none of whale, high_value"),
        ('text = "x"\nwhen = { activity = ["churned"] }', "activity: 'churned' is none of highly_active"),
        ('text = "x"\nwhen = { lifecycle = ["whale"] }', "lifecycle: 'whale' is none of new"),
        ('text = "x"\nwhen = { cadences = ["once"] }', "cadences: 'once'"),
        ('text = "x"\nwhen = { cadences = ["every 1 weeks"] }', "cadences: 'every 1 weeks'"),
        ('text = "x"\nwhen = { cadences = ["every 3 months"] }', "cadences: 'every 3 months'"),
        ('text = "x"\nwhen = { segments = [] }', "when.segments"),
        ('text = "x"\nwhen = { orders_at_least = -1 }', "when.orders_at_least"),
        ('text = "x"\nwhen = { churn_risk_at_least = 50 }', "when.churn_risk_at_least"),
        ('text = "x"\nwhen = { live = "yes" }', "when.live"),
        ('text = "x"\nwhen = { age = 3 }', "unknown field `age`"),
        ('text = "{nobody}"', "text: 'nobody' in braces"),
        ('text = "{}"', "text: '' in braces"),
        ('text = "{orders.real}"', "text: 'orders.real' in braces"),
        ('text = "{orders!r}"', "text: 'orders' in braces"),
        ('text = "{orders:>9}"', "text: 'orders' in braces"),
        ('text = "{orders"', "before end of string"),
        ('text = ""', "text"),
        ("", "text"),
        ('text = "x"\n' + OFFER + 'text = "y"', "two have the rule 'one'"),
        ("text = ", "TOML"),
    ],
)
def test_what_a_rule_may_not_hold_is_said_in_one_line(load: Load, rest: str, said: str) -> None:
    with pytest.raises(ValueError, match="a rulebook in TOML") as error:
        load(OFFER + rest)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_rule_of_before_has_none_of_the_newer_fields(load: Load) -> None:
    book = load(OFFER + 'text = "x"')
    (rule,) = book.opportunities
    fields = ("offer_type", "discount_percentage", "message", "type", "potential_revenue", "probability")
    assert {getattr(rule, name) for name in fields} == {None}
    assert (book.treatment, book.focus) == (load_rulebook().treatment, load_rulebook().focus)


def test_an_offer_and_an_upsell_say_what_they_are(load: Load) -> None:
    book = load(
        OFFER + 'text = "x"\noffer_type = "gift"\ndiscount_percentage = 12.5\nmessage = "{orders} orders"\n'
        '[[opportunities]]\nrule = "two"\nkind = "upsell"\ntext = "y"\ntype = "seats"\n'
        'potential_revenue = "99.50"\nprobability = 1\n'
    )
    offer, upsell = book.opportunities
    assert (offer.offer_type, offer.discount_percentage, offer.message) == ("gift", 12.5, "{orders} orders")
    assert (upsell.type, upsell.potential_revenue, upsell.probability) == ("seats", Decimal("99.50"), 1)


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("discount_percentage = 101", "discount_percentage"),
        ("discount_percentage = -1", "discount_percentage"),
        ('offer_type = ""', "offer_type"),
        ('message = "{nobody}"', "message: 'nobody' in braces"),
        ('type = "seats"', "type: a field of an upsell, and this is an offer"),
        ("probability = 0.5", "probability: a field of an upsell"),
        ("potential_revenue = 5", "potential_revenue: a field of an upsell"),
        (
            '[[opportunities]]\nrule = "two"\nkind = "action"\ntext = "y"\nmessage = "z"',
            "message: a field of an offer, and this is an action",
        ),
        (
            '[[opportunities]]\nrule = "two"\nkind = "upsell"\ntext = "y"\nprobability = 1.01',
            "probability",
        ),
        (
            '[[opportunities]]\nrule = "two"\nkind = "upsell"\ntext = "y"\npotential_revenue = -1',
            "potential_revenue: an amount from 0",
        ),
        (
            '[[opportunities]]\nrule = "two"\nkind = "upsell"\ntext = "y"\npotential_revenue = "NaN"',
            "potential_revenue: an amount from 0",
        ),
        ('[treatment]\nvip = "x"', "treatment: 'vip' is none of whale"),
        ('[treatment]\nwhale = ""', "treatment"),
        ('[focus]\ndeclining = "x"', "focus: 'declining' is none of new"),
    ],
)
def test_what_a_newer_field_may_not_hold_is_said_in_one_line(load: Load, rest: str, said: str) -> None:
    with pytest.raises(ValueError, match="a rulebook in TOML") as error:
        load(OFFER + 'text = "x"\n' + rest)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_operators_words_on_a_segment_or_stage_take_the_place_of_daybooks(load: Load) -> None:
    book = load('[treatment]\nwhale = "a"\n[focus]\nnew = "b"\n')
    own = load_rulebook()
    assert book.treatment == own.treatment | {"whale": "a"}
    assert book.focus == own.focus | {"new": "b"}
    assert book.opportunities == own.opportunities


def test_every_segment_and_stage_has_words_of_daybooks_own() -> None:
    own = load_rulebook()
    assert tuple(own.treatment) == SEGMENTS
    assert tuple(own.focus) == ("new", "active", "at_risk", "churned")


def test_an_unknown_kind_is_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="kind"):
        load('[[opportunities]]\nrule = "one"\nkind = "gift"\ntext = "x"')


def test_a_file_that_cannot_be_read_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can be read"):
        load_rulebook(tmp_path / "none.toml")


def test_a_rule_may_ask_for_every_word_that_the_reads_say() -> None:
    days = range(400)
    When(
        segments=SEGMENTS,
        activity=tuple({activity_of(quiet) for quiet in days}),
        lifecycle=tuple({lifecycle_of(known, quiet) for known in days for quiet in days}),
        cadences=tuple(cadence_label(interval, every) for interval in INTERVALS for every in range(1, 40)),
    )


def test_the_text_on_churn_risk_says_the_horizon_of_predictions() -> None:
    rule = next(rule for rule in load_rulebook().opportunities if rule.when.churn_risk_at_least)
    assert f"within {HORIZON_DAYS} days" in rule.text
