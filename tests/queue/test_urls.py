"""DAYBOOK_REDIS_URL: every form reaches its server, and what is no URL stops the start unseen."""

import ssl
from pathlib import Path
from tempfile import mkdtemp

import pytest
import trustme
import valkey
from redis.exceptions import AuthenticationError, RedisError

from service.core.errors import SettingsError
from service.queue.nudge import connect
from service.settings import load
from service.settings.redis_url import parse
from tests.queue.servers import tls_front
from tests.support.valkey import ValkeyServer


def test_a_url_is_parsed_into_its_parts() -> None:
    found = parse("redis+sentinel://u%40:p%2F@a,[::1]:7/3?master=m&sentinel_username=s&sentinel_password=%2B")

    assert found.addresses == (("a", 26379), ("::1", 7))
    assert (found.username, found.password, found.db, found.master) == ("u@", "p/", 3, "m")
    assert (found.sentinel_username, found.sentinel_password) == ("s", "+")
    assert parse("redis://h").addresses == (("h", 6379),)
    assert parse("unix://:p@/run/x.sock?db=2").socket == "/run/x.sock"


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://u:pa55word",
        "redis://u:pa55word@",
        "redis://u:pa55word@h:port",
        "redis://u:pa55word@h:65536",
        "redis://u:12/pa55word@h",
        "redis://u:12#pa55word@h",
        "redis://u:pa55word@h/books",
        "redis://u:pa55word@h/-1",
        "redis://u:pa55word@h,i",
        "redis://u:pa55word@[h",
        "redis://u:pa55word@h?master=m",
        "redis://u:pa55word@h?ssl_ca_certs=/etc/hosts",
        "rediss://u:pa55word@h?ssl_check_hostname=perhaps",
        "rediss://u:pa55word@h?ssl_ca_certs=/nowhere/pa55word",
        "rediss://u:pa55word@h?ssl_certfile=/etc/hosts",
        "unix://u:pa55word@",
        "unix://u:pa55word@h/run/x.sock",
        "redis+sentinel://u:pa55word@h",
        "redis+sentinel://u:pa55word@?master=m",
        "redis+sentinel://u:pa55word@h?master=m&ssl_ca_certs=/etc/hosts",
        "valkey://u:pa55word@h",
    ],
)
def test_an_invalid_url_stops_the_start_and_is_not_shown(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(redis_url=url)

    line = str(caught.value)
    assert "\n" not in line
    assert "pa55word" not in line
    assert line.startswith("DAYBOOK_REDIS_URL holds a value not shown here; it may hold: ")


@pytest.mark.parametrize("prefix", ["", "a b", "a\n", "é", "a*", "{a}"])
def test_a_prefix_holds_letters_digits_and_four_signs(prefix: str) -> None:
    with pytest.raises(SettingsError, match="DAYBOOK_REDIS_PREFIX"):
        load(redis_prefix=prefix)

    assert load(redis_prefix="a.B_c-d:9").redis_prefix == "a.B_c-d:9"
    assert load().redis_prefix == "daybook"


async def reached(url: str) -> bool:
    async with connect(url, "daybook") as redis:
        return bool(await redis.ping())


async def test_a_database_by_number_and_a_password_without_a_user_are_used(server: ValkeyServer) -> None:
    with server.client() as admin:
        admin.config_set("requirepass", "p@ss")
    url = f"redis://:p%40ss@127.0.0.1:{server.port}/5"

    async with connect(url, "daybook") as redis:
        await redis.set("a", 1)

    with valkey.Valkey(port=server.port, password="p@ss", db=5) as admin:
        assert admin.keys("*") == [b"daybook:a"]
    with pytest.raises(AuthenticationError):
        await reached(url.replace("p%40ss", "other"))


async def test_a_unix_socket_is_reached() -> None:
    socket = Path(mkdtemp()) / "valkey.sock"  # pytest's own directories have too long a name
    with ValkeyServer(unix_socket_path=socket) as server:
        with server.client() as admin:
            admin.config_set("requirepass", "p@ss")
        assert await reached(f"unix://:p%40ss@{socket}?db=1")


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """An authority that we trust by ca.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


def context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(found)
    return found


async def test_tls_works_with_certificates_of_both_sides(
    server: ValkeyServer, authority: trustme.CA, tmp_path: Path
) -> None:
    asking = context(authority.issue_cert("localhost"))
    asking.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(asking)
    ours = authority.issue_cert("daybook.example.com")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    async with tls_front(server.port, asking) as port:
        url = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        shown = f"&ssl_certfile={tmp_path / 'cert.pem'}&ssl_keyfile={tmp_path / 'key.pem'}"

        assert await reached(url + shown)
        with pytest.raises(RedisError):
            await reached(url)


async def test_tls_refuses_a_server_that_is_not_the_host(
    server: ValkeyServer, authority: trustme.CA, tmp_path: Path
) -> None:
    async with tls_front(server.port, context(authority.issue_cert("other.example.com"))) as port:
        url = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}"

        with pytest.raises(RedisError):
            await reached(url)
        assert await reached(f"{url}&ssl_check_hostname=false")
        with pytest.raises(RedisError):
            await reached(f"rediss://localhost:{port}?ssl_check_hostname=false")
