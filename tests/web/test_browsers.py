"""What a page of another site can make a browser send: under its own name, across sites, to be redirected."""

from pathlib import Path

import httpx
import pytest

from service.web.openapi import description
from tests.support.running import Daybook, running
from tests.support.senders import MX_TOKEN, STRIPE
from tests.web.http_server import serve

KEY = {"X-API-Key": "the-only-read-key"}
LOOPBACK = ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1:8000", "127.8.8.8", "[::1]", "[::1]:8000"]
FOREIGN = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example:8000",
    "localhost:80@evil.example",
    "evil.example@localhost",
    "10.0.0.7",
    "[::2]:8000",
    "0.0.0.0",
    "",
]
CHECKED = ["/api/v1/mrr", "/docs", "/openapi.json", "/docs/assets/swagger-ui.css", "/metrics", "/nothing"]
NAVIGATION = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}


async def status(daybook: Daybook, path: str, **headers: str) -> int:
    answer = await daybook.http.get(path, headers=headers)
    if answer.status_code == 421:
        assert answer.json()["type"] == "urn:daybook:problem:misdirected"
    return answer.status_code


@pytest.mark.parametrize("host", LOOPBACK)
async def test_without_keys_it_is_asked_under_names_of_loopback(daybook: Daybook, host: str) -> None:
    assert await status(daybook, "/api/v1/mrr", Host=host) == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_without_keys_no_other_host_gets_a_read_or_a_page(daybook: Daybook, host: str) -> None:
    assert {await status(daybook, path, Host=host) for path in CHECKED} == {421}


async def test_two_hosts_are_none(daybook: Daybook) -> None:
    headers = [("Host", "localhost"), ("Host", "localhost")]

    assert (await daybook.http.get("/api/v1/mrr", headers=headers)).status_code == 421


@pytest.mark.parametrize("host", FOREIGN)
async def test_webhooks_and_probes_of_health_take_any_host(daybook: Daybook, host: str) -> None:
    posted = await daybook.post(STRIPE, STRIPE.event("1", 100), headers={"Host": host})

    assert posted.status_code == 200
    assert [await status(daybook, path, Host=host) for path in ("/healthz", "/readyz")] == [200, 200]


async def test_with_keys_it_is_asked_under_any_host(data_dir: Path) -> None:
    async with running(data_dir, api_keys=KEY["X-API-Key"]) as daybook:
        for host in FOREIGN:
            assert await status(daybook, "/api/v1/mrr", Host=host, **KEY) == 200


@pytest.mark.parametrize("keys", ["", KEY["X-API-Key"]])
async def test_the_hosts_that_are_set_are_all_that_there_are(data_dir: Path, keys: str) -> None:
    hosts = "daybook.example.com, 10.0.0.7,[2001:DB8::1]"
    async with running(data_dir, api_keys=keys, allowed_hosts=hosts) as daybook:
        for host, expected in (
            ("daybook.example.com", 200),
            ("Daybook.Example.com:443", 200),
            ("10.0.0.7:8000", 200),
            ("[2001:db8::1]:8000", 200),
            ("www.daybook.example.com", 421),
            ("example.com", 421),
            ("localhost", 421),
        ):
            assert await status(daybook, "/api/v1/mrr", Host=host, **KEY) == expected


@pytest.mark.parametrize("path", ["/api/v1/mrr", "/docs", "/healthz", "/docs/assets/swagger-ui.css"])
async def test_another_site_may_lead_here_and_nothing_else(daybook: Daybook, path: str) -> None:
    refused = await daybook.http.get(
        path, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    )

    assert (refused.status_code, refused.json()["type"]) == (403, "urn:daybook:problem:cross-site")
    assert (await daybook.http.get(path, headers=NAVIGATION)).status_code == 200
    for site in ("none", "same-origin", "same-site"):
        assert (await daybook.http.get(path, headers={"Sec-Fetch-Site": site})).status_code == 200


async def test_a_form_of_another_site_posts_nothing(daybook: Daybook) -> None:
    answer = await daybook.post(MX_TOKEN, MX_TOKEN.event("1", 100), headers=NAVIGATION)

    assert answer.status_code == 403
    assert await daybook.head() == 0


async def test_a_path_with_one_more_slash_is_none_and_is_not_redirected(daybook: Daybook) -> None:
    token = MX_TOKEN.secret
    for path, operations in description()["paths"].items():
        asked = path.format(customer_id="c", cause="c", position="1", id="1", name="acme", token=token)
        for method in operations:
            answer = await daybook.http.request(method, f"{asked}/")
            assert answer.status_code == 404
            assert token not in f"{answer.headers} {answer.text}"


def test_no_answer_is_to_be_guessed_the_type_of(data_dir: Path) -> None:
    with serve(data_dir) as (host, port):
        for path in ("/api/v1/mrr", "/api/v1/nothing", "/docs", "/docs/assets/swagger-ui.css", "/healthz"):
            answer = httpx.get(f"http://{host}:{port}{path}")
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
