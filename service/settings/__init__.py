"""Settings: environment variables (and a `.env` file), read once at start. See docs/operations.md."""

import base64
import binascii
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import chain, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    SettingsConfigDict,
)

from handlers import PROCESSORS
from service.core.cadence import FREQUENCY_LIMITS, WEEKS_PER_MONTH, parse_weeks_per_month
from service.core.delivery import Endpoint, Processor
from service.core.errors import SettingsError
from service.core.processor_api import Api
from service.rulebook import load_rulebook
from service.settings.read_keys import ReadKey
from service.settings.read_keys import parse as parse_read_key
from service.settings.redis_url import parse as parse_redis_url
from service.settings.secrets import check_secret

_PREFIX = "DAYBOOK_"
LIFELINE = "DAYBOOK_LIFELINE"  # no setting: `daybook run` tells its processes by it what they follow
_MASTER_KEY_BYTES = 32


def _parse_list(value: Any) -> Any:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


def _parse_keys(value: Any) -> Any:
    return tuple(map(parse_read_key, _parse_list(value)))


def _parse_pairs(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in _parse_list(value)]
    if not all(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) and secret for name, _, secret in pairs):
        raise ValueError("name=whsec_… pairs, comma-separated")
    return {name: tuple(s for n, _, s in pairs if n == name) for name, _, _ in pairs}


def _parse_hosts(value: Any) -> Any:
    hosts = tuple(host.lower().strip("[]") for host in _parse_list(value))
    if not all(_is_address(host) or re.fullmatch(r"[a-z0-9_.-]*[a-z0-9_-]", host) for host in hosts):
        raise ValueError("names of hosts without a port, with commas between them")
    return hosts


def _parse_networks(value: Any) -> Any:
    try:
        return tuple(ip_network(part) for part in _parse_list(value))
    except ValueError:
        raise ValueError("IP addresses, or networks such as 10.0.0.0/8, with commas between them") from None


def _parse_limits(value: Any) -> Any:
    try:
        limits = tuple(Decimal(part) for part in _parse_list(value))
    except (InvalidOperation, TypeError):
        limits = ()
    if (
        len(limits) not in {3, 4}
        or not all(limit.is_finite() for limit in limits)
        or not _is_falling(Decimal(10**12), *limits, Decimal(0))
    ):
        raise ValueError("three or four amounts, each below the one before, such as 10000,1000,100")
    return limits


def _parse_days(value: Any) -> Any:
    parts = _parse_list(value)
    days = tuple(int(part) if str(part).isascii() and str(part).isdigit() else 0 for part in parts)
    if len(days) != len(FREQUENCY_LIMITS) or not _is_falling(*map(Decimal, (10_000, *days[::-1], 0))):
        raise ValueError("three numbers of days, each above the one before, such as 31,92,184")
    return days


def _is_falling(*values: Decimal) -> bool:
    return all(higher > lower for higher, lower in pairwise(values))


def _parse_port(value: Any) -> Any:
    text = str(value)
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ValueError("a port from 0 to 65535")
    return int(text)


Network = IPv4Network | IPv6Network
List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_list)]
Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_hosts)]
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_parse_networks)]
Keys = Annotated[tuple[ReadKey, ...], NoDecode, BeforeValidator(_parse_keys)]
Pairs = Annotated[dict[str, tuple[str, ...]], NoDecode, BeforeValidator(_parse_pairs)]


# The settings that hold the secrets of webhooks.
_SECRETS = {endpoint.secrets for processor in PROCESSORS for endpoint in processor.endpoints}
# The checks of the processors' own settings, by name.
_CHECKS = {name: check for processor in PROCESSORS for name, check in processor.setting_checks}


class Settings(BaseSettings):
    """The settings: each field is an environment variable with the prefix DAYBOOK_."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_file=".env", extra="ignore", frozen=True, arbitrary_types_allowed=True
    )

    data_dir: Path = Path("./var")
    database_url: str | None = None
    master_key: str | None = None
    redis_url: str | None = None
    redis_prefix: str = Field(default="daybook", pattern="^[A-Za-z0-9._:-]+$")
    api_keys: Keys = ()  # before host, whose check reads it
    host: str = "127.0.0.1"
    allowed_hosts: Hosts = ()
    trusted_proxies: Networks = ()
    port: Annotated[int, BeforeValidator(_parse_port)] = 8000
    stripe_webhook_secrets: List = ()
    mxmerchant_webhook_secrets: List = ()
    mxmerchant_url_tokens: List = ()
    mxmerchant_api_url: str | None = None
    mxmerchant_consumer_key: str | None = None
    mxmerchant_consumer_secret: str | None = None
    mxmerchant_merchant_id: str | None = None
    standard_webhook_secrets: Pairs = Field(default_factory=dict)
    stripe_mode: Literal["live", "test"] = "live"  # before the key, whose check reads it
    stripe_api_key: str | None = None
    stripe_api_url: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    reporting_tz: str = "UTC"
    reporting_currency: str = Field(default="usd", pattern="^[a-z]{3}$")
    weeks_per_month: Annotated[Fraction, NoDecode, BeforeValidator(parse_weeks_per_month)] = WEEKS_PER_MONTH
    rulebook: Path | None = None
    segment_limits: Annotated[tuple[Decimal, ...], NoDecode, BeforeValidator(_parse_limits)] = (
        Decimal(10_000),
        Decimal(1_000),
        Decimal(100),
    )
    frequency_limits: Annotated[tuple[int, ...], NoDecode, BeforeValidator(_parse_days)] = FREQUENCY_LIMITS

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: str | None) -> str | None:
        try:
            urlsplit(url or "").port  # noqa: B018 - raises where it is no number
        except ValueError:
            raise ValueError("a URL whose port is a number") from None
        if url and not url.startswith("postgresql+asyncpg://"):
            raise ValueError("unset, or postgresql+asyncpg://user:password@host/database")
        if "sslmode=" in (url or ""):
            raise ValueError("a URL with ssl=require (or verify-full): asyncpg's name for sslmode")
        return url or None

    @field_validator("master_key")
    @classmethod
    def _check_master_key(cls, key: str | None) -> str | None:
        try:
            is_valid = not key or len(base64.b64decode(key, validate=True)) == _MASTER_KEY_BYTES
        except (binascii.Error, ValueError):
            is_valid = False
        if not is_valid:
            raise ValueError(
                f"{_MASTER_KEY_BYTES} random bytes in base64, as `openssl rand -base64 32` makes them"
            )
        if key:
            check_secret(key)
        return key or None

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: str | None) -> str | None:
        if url:
            parse_redis_url(url)
        return url or None

    @field_validator(*_CHECKS)
    @classmethod
    def _check_of_processor(cls, value: Any, info: ValidationInfo) -> Any:
        _CHECKS[info.field_name or ""](value, info.data)
        return value

    @field_validator(*_SECRETS)
    @classmethod
    def _check_secrets(cls, secrets: Any) -> Any:
        several = secrets.values() if isinstance(secrets, dict) else (secrets,)
        for secret in chain(*several):
            check_secret(secret)
        return secrets

    @field_validator("rulebook")
    @classmethod
    def _check_rulebook(cls, path: Path | None) -> Path | None:
        load_rulebook(path)
        return path

    @field_validator("reporting_tz")
    @classmethod
    def _check_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("the name of an IANA zone, such as America/New_York") from error
        return name

    @field_validator("reporting_currency", mode="before")
    @classmethod
    def _lower_case(cls, code: Any) -> Any:
        return code.lower() if isinstance(code, str) else code

    @field_validator("host")
    @classmethod
    def _open_only_with_keys(cls, host: str, info: ValidationInfo) -> str:
        has_keys = bool(info.data.get("api_keys", "unusable ones"))
        if not has_keys and not is_loopback(host):
            raise ValueError("a loopback address such as 127.0.0.1; any other needs DAYBOOK_API_KEYS")
        return host

    def secrets_of(self, endpoint: Endpoint, name: str = "") -> tuple[str, ...]:
        """The secrets that verify an endpoint's deliveries: those of `name` where each name has its own."""
        secrets: tuple[str, ...] | dict[str, tuple[str, ...]] = getattr(self, endpoint.secrets)
        return secrets.get(name, ()) if isinstance(secrets, dict) else secrets

    def has_webhook_secret(self) -> bool:
        """Whether the webhooks of any processor can be verified."""
        return any(getattr(self, name) for name in _SECRETS)

    def has_api(self, processor: Processor) -> bool:
        """Whether the API of a processor is set up."""
        return processor.api is not None and not self.unset_of(processor.api)

    def mode_of(self, processor: Processor) -> str:
        """The mode of a processor whose events count; "" where it has no modes."""
        return getattr(self, processor.mode_setting) if processor.mode_setting else ""

    def values_of(self, api: Api) -> dict[str, str]:
        """The values of the settings by which an API is asked, by name; "" where one is unset."""
        return {name: getattr(self, name) or "" for name in (*api.settings, api.url_setting)}

    def unset_of(self, api: Api) -> list[str]:
        """The variables that an API needs and that are unset."""
        return [f"{_PREFIX}{name.upper()}" for name in api.settings if not getattr(self, name)]


def is_loopback(host: str) -> bool:
    """Whether an address, or the name `localhost`, leads to this machine alone."""
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def unknown_variables() -> list[str]:
    """The names in the environment, and in the `.env` file, that look like settings and are none."""
    sources = (EnvSettingsSource(Settings), DotEnvSettingsSource(Settings))
    given = {name.upper() for source in sources for name in source.env_vars}
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields} | {LIFELINE}
    return sorted(name for name in given - known if name.startswith(_PREFIX))


def load(options: Mapping[str, str] = MappingProxyType({}), **overrides: Any) -> Settings:
    """The settings from the environment; `overrides`, and the `options` of a command, take precedence.

    Raises SettingsError in one line: the variable or the option, its value (never a secret) and the allowed
    values.
    """
    try:
        return Settings(**{**overrides, **options})
    except ValidationError as error:
        first = error.errors()[0]
        expected = str(first["msg"]).removeprefix("Value error, ")
        name = str(first["loc"][0])
        value = "a value not shown here" if _is_secret(name) else repr(first["input"])
        source = f"--{name}" if name in options else f"{_PREFIX}{name.upper()}"
        raise SettingsError(f"{source} holds {value}; it may hold: {expected}") from None


def _is_secret(name: str) -> bool:
    return any(part in name for part in ("secret", "key", "token", "url"))
