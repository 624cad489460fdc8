"""The operator's file: what it may hold, and what a start says of one that holds something else."""

from fractions import Fraction
from pathlib import Path

import pytest

from projections.book import Policy
from service.bootstrap import books_schema, configured_books
from service.core.errors import SettingsError
from service.rulebook import load_rulebook
from service.settings import load
from tests.support.running import running, settings_for
from tests.support.senders import subscription


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rulebook.toml"
    path.write_text(text)
    return path


def test_the_presets_are_what_their_authors_document() -> None:
    assert load_rulebook().policies == {
        "stripe": Policy(
            ignored_discounts=("once", "repeating"),
            churn="when_set_to_cancel",
            weeks_per_month=Fraction(52, 12),
        ),
        "chartmogul": Policy(paused=True, ignored_discounts=(), weeks_per_month=Fraction(52, 12)),
    }


def test_an_operators_policies_stand_beside_the_presets(rulebook: Path) -> None:
    kept = load_rulebook(rulebook).policies

    assert set(kept) == {"stripe", "chartmogul", "board"}
    assert kept["board"] == Policy(
        statuses=("active", "past_due", "trialing"),
        ignored_discounts=("once", "repeating", "forever"),
        weeks_per_month=Fraction(4),
    )


def test_one_of_a_presets_name_takes_its_place(tmp_path: Path) -> None:
    kept = load_rulebook(written(tmp_path, "[policies.stripe]\npaused = true")).policies

    assert kept["stripe"] == Policy(paused=True)
    assert "chartmogul" in kept


def test_each_policy_has_a_book_of_its_own(tmp_path: Path, rulebook: Path) -> None:
    names = [book.name for book in configured_books(settings_for(tmp_path, rulebook=rulebook))]

    assert [name for name in names if name.startswith("mrr")] == [
        "mrr",
        "mrr:stripe",
        "mrr:chartmogul",
        "mrr:board",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policies = 1", "`$.policies`"),
        ("[policies.mine]\nstatus = ['active']", "unknown field `status`"),
        ("[policies.mine]\nstatuses = 'active'", "`$.policies[...].statuses`"),
        ("[policies.mine]\nchurn = 'never'", "Invalid enum value 'never'"),
        ("[policies.mine]\nweeks_per_month = 'four'", "such as 4.33 or 52/12, in quotes"),
        ("[policies.mine]\nweeks_per_month = '4/0'", "such as 4.33 or 52/12, in quotes"),
        ("[policies.default]\npaused = true", "leaves the policy `default` as it is"),
        ("[policies.mine", "a rulebook in TOML"),
        ("[policy.mine]\npaused = true", "unknown field `policy`"),
    ],
)
def test_a_file_that_is_wrong_stops_the_start_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)

    with pytest.raises(SettingsError) as caught:
        load(rulebook=path)

    line = str(caught.value)
    assert line.startswith("DAYBOOK_RULEBOOK holds ")
    assert said in line
    assert "\n" not in line


def test_a_file_that_is_not_there_stops_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAYBOOK_RULEBOOK", str(tmp_path / "none.toml"))

    with pytest.raises(SettingsError, match=r"DAYBOOK_RULEBOOK holds .*the path of a file that can be read"):
        load()


def test_a_policy_moves_no_book_to_another_schema(rulebook: Path, tmp_path: Path) -> None:
    plain = settings_for(tmp_path, database_url="postgresql+asyncpg://h/d")

    assert books_schema(plain) == books_schema(plain.model_copy(update={"rulebook": rulebook}))


async def test_a_new_policy_is_filled_beside_books_that_stay_up_to_date(
    data_dir: Path, rulebook: Path
) -> None:
    async with running(data_dir) as daybook:
        await daybook.record("subscription.recorded", "2025-11-13T10:00:00Z", **subscription("1", 500))
        await daybook.catch_up()

    async with running(data_dir, rulebook=rulebook) as daybook:
        before = await daybook.get("/api/v1/mrr")
        empty = await daybook.get("/api/v1/mrr", policy="board")
        await daybook.catch_up()
        full = await daybook.get("/api/v1/mrr", policy="board")

    assert (before["mrr_cents"], before["meta"]["data_freshness"]) == (500, "real_time")
    assert (empty["mrr_cents"], empty["meta"]["data_freshness"]) == (0, "catching_up")
    assert (full["mrr_cents"], full["meta"]["data_freshness"]) == (500, "real_time")
