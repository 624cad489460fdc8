"""Settings: what each variable may hold, and the one line that stops the start otherwise."""

import base64
import os
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from handlers import mxmerchant
from service.core.errors import SettingsError
from service.settings import load
from service.settings.read_keys import ReadKey
from tests.support.waiting import PATIENCE_SECONDS

ONE, TWO = "whsec_the-first-of-two", "whsec_the-second-of-two"
KEY = f"whsec_{base64.b64encode(b'a key of thirty-two bytes, or so').decode()}"


@pytest.fixture(autouse=True)
def _empty_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("DAYBOOK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)  # no `.env` but the test's own


def refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> str:
    """The line that says why the start stops."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{name} holds ")
    assert "; it may hold: " in line
    return line


def test_without_any_variable_the_defaults_stand() -> None:
    settings = load()

    assert settings.data_dir == Path("var")
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.reporting_tz, settings.reporting_currency) == ("UTC", "usd")
    assert settings.weeks_per_month == Fraction(433, 100)
    unset = (
        settings.database_url,
        settings.redis_url,
        settings.mxmerchant_api_url,
        settings.mxmerchant_consumer_key,
        settings.mxmerchant_consumer_secret,
        settings.mxmerchant_merchant_id,
        settings.stripe_api_key,
        settings.stripe_api_url,
    )
    assert set(unset) == {None}
    empty = (
        settings.stripe_webhook_secrets,
        settings.mxmerchant_webhook_secrets,
        settings.mxmerchant_url_tokens,
        settings.api_keys,
    )
    assert set(empty) == {()}
    assert settings.standard_webhook_secrets == {}
    assert not settings.has_api(mxmerchant.PROCESSOR)


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("DATA_DIR", "/srv/daybook", Path("/srv/daybook")),
        ("DATABASE_URL", "", None),
        ("REDIS_URL", "redis://localhost:6379/0", "redis://localhost:6379/0"),
        (
            "REDIS_URL",
            "rediss://user:password@redis.internal:6380/1",
            "rediss://user:password@redis.internal:6380/1",
        ),
        ("REDIS_URL", "unix:///run/valkey.sock", "unix:///run/valkey.sock"),
        ("REDIS_URL", "", None),
        ("HOST", "localhost", "localhost"),
        ("HOST", "127.0.0.53", "127.0.0.53"),
        ("HOST", "::1", "::1"),
        ("ALLOWED_HOSTS", "", ()),
        (
            "ALLOWED_HOSTS",
            "Daybook.example.com, 10.0.0.7,[2001:DB8::1]",
            ("daybook.example.com", "10.0.0.7", "2001:db8::1"),
        ),
        ("PORT", "0", 0),
        ("PORT", "65535", 65535),
        ("STRIPE_WEBHOOK_SECRETS", ONE, (ONE,)),
        ("STRIPE_WEBHOOK_SECRETS", f" {ONE} , {TWO},, ", (ONE, TWO)),
        (
            "MXMERCHANT_WEBHOOK_SECRETS",
            f"{KEY},{KEY.removeprefix('whsec_')}",
            (KEY, KEY.removeprefix("whsec_")),
        ),
        ("MXMERCHANT_URL_TOKENS", f"{ONE},{TWO}", (ONE, TWO)),
        ("MXMERCHANT_API_URL", "https://api.example.com", "https://api.example.com"),
        ("MXMERCHANT_CONSUMER_KEY", "ck", "ck"),
        ("MXMERCHANT_CONSUMER_SECRET", "cs", "cs"),
        ("MXMERCHANT_MERCHANT_ID", "1000000001", "1000000001"),
        ("STANDARD_WEBHOOK_SECRETS", f"acme={KEY}", {"acme": (KEY,)}),
        (
            "STANDARD_WEBHOOK_SECRETS",
            f"acme={KEY}, zeta-2={KEY},acme={KEY[6:]}",
            {"acme": (KEY, KEY[6:]), "zeta-2": (KEY,)},
        ),
        (
            "TRUSTED_PROXIES",
            "10.0.0.1, 10.1.0.0/16,::1",
            (ip_network("10.0.0.1"), ip_network("10.1.0.0/16"), ip_network("::1")),
        ),
        ("SEGMENT_LIMITS", "500.5,50,5", (Decimal("500.5"), Decimal(50), Decimal(5))),
        ("SEGMENT_LIMITS", "10000,1000,100,10", tuple(map(Decimal, (10_000, 1_000, 100, 10)))),
        ("FREQUENCY_LIMITS", " 30, 90,180", (30, 90, 180)),
        ("STRIPE_API_KEY", "rk_live_1", "rk_live_1"),
        ("STRIPE_API_KEY", "a key that names no mode", "a key that names no mode"),
        ("STRIPE_MODE", "live", "live"),
        ("STRIPE_MODE", "test", "test"),
        ("STRIPE_API_URL", "http://127.0.0.1:12111", "http://127.0.0.1:12111"),
        ("API_KEYS", f"{ONE},{TWO}", (ReadKey(ONE), ReadKey(TWO))),
        (
            "API_KEYS",
            f"{ONE}:figures+people, {TWO}:metrics",
            (ReadKey(ONE, frozenset({"figures", "people"})), ReadKey(TWO, frozenset({"metrics"}))),
        ),
        ("REPORTING_TZ", "America/New_York", "America/New_York"),
        ("REPORTING_CURRENCY", "EUR", "eur"),
        ("WEEKS_PER_MONTH", "4.33", Fraction(433, 100)),
        ("WEEKS_PER_MONTH", "52/12", Fraction(13, 3)),
        ("WEEKS_PER_MONTH", "4", Fraction(4)),
        ("WEEKS_PER_MONTH", "4.348125", Fraction("4.348125")),
    ],
)
def test_a_variable_may_hold(monkeypatch: pytest.MonkeyPatch, name: str, value: str, held: Any) -> None:
    monkeypatch.setenv(f"DAYBOOK_{name}", value)

    assert getattr(load(), name.lower()) == held


@pytest.mark.parametrize(
    ("name", "value", "may_hold"),
    [
        *(
            ("SEGMENT_LIMITS", limits, "three or four amounts, each below the one before")
            for limits in (
                "10000,1000",
                "10000,1000,100,10,1",
                "100,100,10",
                "10,1,0.5,-1",
                "a,b,c",
                "NaN,2,1",
            )
        ),
        *(
            ("FREQUENCY_LIMITS", limits, "three numbers of days, each above the one before")
            for limits in ("31,92", "31,92,184,365", "31,31,184", "0,92,184", "31.5,92,184", "31,92,99999")
        ),
        ("PORT", "http", "a port from 0 to 65535"),
        ("PORT", "-1", "a port from 0 to 65535"),
        ("PORT", "65536", "a port from 0 to 65535"),
        ("ALLOWED_HOSTS", "https://daybook.example.com", "names of hosts without a port"),
        ("ALLOWED_HOSTS", "localhost,daybook.example.com:8000", "names of hosts without a port"),
        ("ALLOWED_HOSTS", "*", "names of hosts without a port"),
        *(
            ("TRUSTED_PROXIES", proxies, "IP addresses, or networks such as 10.0.0.0/8")
            for proxies in ("*", "localhost", "10.0.0.1/8", "10.0.0.1:80")
        ),
        ("HOST", "0.0.0.0", "DAYBOOK_API_KEYS"),
        ("HOST", "::", "loopback"),
        ("HOST", "daybook.example.com", "loopback"),
        ("REPORTING_TZ", "Mars/Olympus", "IANA zone"),
        ("REPORTING_TZ", "", "IANA zone"),
        ("REPORTING_TZ", "../../etc/passwd", "IANA zone"),
        ("REPORTING_CURRENCY", "dollars", "[a-z]{3}"),
        ("REPORTING_CURRENCY", "u$d", "[a-z]{3}"),
        ("WEEKS_PER_MONTH", "four", "4.33 or 52/12"),
        ("WEEKS_PER_MONTH", "52/0", "4.33 or 52/12"),
        ("WEEKS_PER_MONTH", "0", "4.33 or 52/12"),
        ("WEEKS_PER_MONTH", "-4.33", "4.33 or 52/12"),
        ("WEEKS_PER_MONTH", "52", "4.33 or 52/12"),
        ("WEEKS_PER_MONTH", "nan", "4.33 or 52/12"),
        ("STRIPE_MODE", "sandbox", "'live' or 'test'"),
        ("STRIPE_MODE", "", "'live' or 'test'"),
    ],
)
def test_a_wrong_value_is_named_shown_and_put_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, may_hold: str
) -> None:
    line = refused(monkeypatch, f"DAYBOOK_{name}", value)

    assert repr(value) in line
    assert may_hold in line


@pytest.mark.parametrize(
    ("name", "value", "may_hold"),
    [
        ("REDIS_URL", "localhost:6379/pa55word", "redis://"),
        ("REDIS_URL", "http://user:pa55word@localhost", "redis://"),
        ("DATABASE_URL", "mysql://user:pa55word@localhost/daybook", "postgresql+asyncpg://"),
        ("DATABASE_URL", "postgresql://user:pa55word@localhost/daybook", "postgresql+asyncpg://"),
        ("DATABASE_URL", "postgresql+asyncpg://user:pa55word@localhost:port/daybook", "port"),
        ("DATABASE_URL", "postgresql+asyncpg://user:pa55word@localhost/daybook?sslmode=require", "ssl="),
        ("MXMERCHANT_WEBHOOK_SECRETS", "whsec_pa55word!", "base64"),
        ("MXMERCHANT_WEBHOOK_SECRETS", f"{KEY},whsec_pa55wordx", "base64"),
        ("MXMERCHANT_WEBHOOK_SECRETS", "whsec_", "base64"),
        ("STANDARD_WEBHOOK_SECRETS", "whsec_pa55word", "name=whsec_"),
        ("STANDARD_WEBHOOK_SECRETS", "acme=", "name=whsec_"),
        ("STANDARD_WEBHOOK_SECRETS", f"=pa55word,acme={KEY}", "name=whsec_"),
        ("STANDARD_WEBHOOK_SECRETS", f"Acme Inc={KEY}", "name=whsec_"),
        ("STANDARD_WEBHOOK_SECRETS", "acme=whsec_pa55word-é", "base64"),
        ("STANDARD_WEBHOOK_SECRETS", f"acme={KEY},zeta=whsec_pa55w", "base64"),
    ],
)
def test_a_wrong_secret_is_named_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, may_hold: str
) -> None:
    line = refused(monkeypatch, f"DAYBOOK_{name}", value)

    assert "pa55w" not in line
    assert KEY[6:] not in line
    assert may_hold in line


@pytest.mark.parametrize("name", ["STRIPE_WEBHOOK_SECRETS", "MXMERCHANT_URL_TOKENS", "API_KEYS"])
@pytest.mark.parametrize(
    ("secret", "may_hold"),
    [
        ("pa55w0rd-of-15-c", None),
        ("pa55w0rd-of-15c", "at least 16 characters"),
        ("whsec_pa55w0rd-of-15c", "at least 16 characters"),
        ("pa55wpa55wpa55wpa55wpa55wpa55w", "8 different ones"),
        (f"{ONE},pa55wpa55wpa55wpa55wpa55wpa55w", "8 different ones"),
        ("sk_live_pa55w0123456789abcdef", "not an API key"),
        ("rk_test_pa55w0123456789abcdef", "not an API key"),
        ("whsec_sk_live_pa55w0123456789abcdef", "not an API key"),
    ],
)
def test_a_secret_that_can_be_guessed_or_opens_an_account_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, secret: str, may_hold: str | None
) -> None:
    if may_hold is None:
        monkeypatch.setenv(f"DAYBOOK_{name}", secret)
        assert len(getattr(load(), name.lower())) == 1
        return

    line = refused(monkeypatch, f"DAYBOOK_{name}", secret)

    assert may_hold in line
    assert "pa55w" not in line


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("MASTER_KEY", base64.b64encode(bytes(32)).decode()),
        ("MXMERCHANT_WEBHOOK_SECRETS", "whsec_AAAAAAAAAAAAAAAAAAAAAAAA"),
        ("MXMERCHANT_WEBHOOK_SECRETS", f"{KEY},whsec_c2hvcnQ="),
        ("STANDARD_WEBHOOK_SECRETS", f"acme={KEY},zeta=whsec_c2hvcnQ="),
    ],
)
def test_a_key_in_base64_can_be_guessed_as_well(
    monkeypatch: pytest.MonkeyPatch, name: str, secret: str
) -> None:
    assert "at least 16 characters" in refused(monkeypatch, f"DAYBOOK_{name}", secret)


def test_what_opens_a_processors_api_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STRIPE_API_KEY", "MXMERCHANT_CONSUMER_KEY", "MXMERCHANT_CONSUMER_SECRET"):
        monkeypatch.setenv(f"DAYBOOK_{name}", "short")

    assert load().stripe_api_key == "short"


def test_a_key_without_scopes_may_do_all_but_operate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYBOOK_API_KEYS", ONE)

    assert load().api_keys[0].scopes == {"figures", "people", "metrics"}


@pytest.mark.parametrize(
    "keys",
    [
        "pa55w:",
        "pa55w:figure",
        "pa55w:figures+",
        "pa55w:figures people",
        "pa55w: figures",
        "pa55w:FIGURES",
        "pa55w:figures:people",
        "pa55w:word",
        ":figures",
        f"{ONE},:pa55w",
    ],
)
def test_a_key_with_anything_but_scopes_after_a_colon_is_refused(
    monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    line = refused(monkeypatch, "DAYBOOK_API_KEYS", keys)

    assert "pa55w" not in line
    assert "scopes of figures, people, metrics, operate" in line


@pytest.mark.parametrize(
    ("mode", "key", "other"),
    [(None, "sk_test_pa55w", "test"), ("live", "rk_test_pa55w", "test"), ("test", "sk_live_pa55w", "live")],
)
def test_a_key_of_the_other_mode_is_refused(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, key: str, other: str
) -> None:
    if mode:
        monkeypatch.setenv("DAYBOOK_STRIPE_MODE", mode)

    line = refused(monkeypatch, "DAYBOOK_STRIPE_API_KEY", key)

    assert "pa55w" not in line
    assert f"a key of {mode or 'live'} mode, as DAYBOOK_STRIPE_MODE says, not of {other} mode" in line


def test_in_test_mode_a_test_key_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYBOOK_STRIPE_MODE", "test")
    monkeypatch.setenv("DAYBOOK_STRIPE_API_KEY", "rk_test_1")

    assert load().stripe_api_key == "rk_test_1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "daybook.example.com"])
def test_with_a_read_key_it_may_listen_anywhere(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DAYBOOK_HOST", host)
    monkeypatch.setenv("DAYBOOK_API_KEYS", ONE)

    assert load().host == host


@pytest.mark.parametrize("keys", ["", " , "])
def test_blank_keys_are_no_keys(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    monkeypatch.setenv("DAYBOOK_API_KEYS", keys)

    assert "DAYBOOK_API_KEYS" in refused(monkeypatch, "DAYBOOK_HOST", "0.0.0.0")


def test_mx_merchant_is_polled_once_all_four_variables_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_URL", "CONSUMER_KEY", "CONSUMER_SECRET", "MERCHANT_ID"):
        assert not load().has_api(mxmerchant.PROCESSOR)
        monkeypatch.setenv(f"DAYBOOK_MXMERCHANT_{name}", "set")

    assert load().has_api(mxmerchant.PROCESSOR)


def test_a_dot_env_file_is_read_and_the_environment_beats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("DAYBOOK_PORT=9000\nDAYBOOK_REPORTING_TZ=Europe/Paris\nOTHER=1\n")
    monkeypatch.setenv("DAYBOOK_REPORTING_TZ", "Asia/Tokyo")

    settings = load()

    assert (settings.port, settings.reporting_tz) == (9000, "Asia/Tokyo")


def test_a_wrong_value_in_dot_env_is_named_too() -> None:
    Path(".env").write_text("DAYBOOK_PORT=many\n")

    with pytest.raises(SettingsError, match="DAYBOOK_PORT holds 'many'; it may hold: "):
        load()


@pytest.mark.parametrize("command", ["run", "web", "worker", "verify"])
def test_a_wrong_setting_stops_every_command_with_one_line(command: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "service.cli", command],
        env={**os.environ, "DAYBOOK_STANDARD_WEBHOOK_SECRETS": "acme=pa55word!"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )

    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("daybook: DAYBOOK_STANDARD_WEBHOOK_SECRETS holds a value not shown here; ")
    assert ran.stderr.count("\n") == 1
    assert "pa55word" not in ran.stderr
