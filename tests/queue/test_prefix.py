"""Every key and channel is under the prefix, also for a user who may touch nothing else."""

import re
import shlex
from collections.abc import Callable

import pytest
from redis.exceptions import DataError

from service.queue.client import KEYS
from service.queue.nudge import connect
from service.worker import main
from tests.queue.workers import Woken, arrives, has_begun, nudging, ready, working
from tests.support.paths import ROOT
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually

OPERATIONS = ROOT / "docs" / "operations.md"
PASSWORD = "p@ss:w/rd%?#"
ENCODED = "p%40ss%3Aw%2Frd%25%3F%23"


def acl() -> list[str]:
    """The user that docs/operations.md makes, with a password of ours: its name and its rules."""
    (words,) = re.findall(r"ACL SETUSER ([^`]*)```", OPERATIONS.read_text().replace("\\\n", ""))
    return [f">{PASSWORD}" if word == ">password" else word for word in shlex.split(words)]


def sweeping(woken: Woken) -> list:
    return [main._sweep_cron(woken)]


async def test_nudge_and_sweep_work_for_the_user_in_the_docs_and_touch_nothing_else(
    server: ValkeyServer, losses: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "SWEEP_SECONDS", 1)
    name, *rules = acl()
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", name, *rules)
    url = f"redis://{name}:{ENCODED}@127.0.0.1:{server.port}/0"

    async with working(url, crons=sweeping) as woken, nudging(url) as nudger:
        await ready(server.client)
        for position in range(1, 6):
            await arrives(nudger, position, woken)
        swept = woken.times
        await eventually(lambda: woken.times > swept + 2, "a sweep wakes")
        with server.client() as admin:
            keys, channels = admin.keys("*"), admin.pubsub_channels()
            denied = admin.execute_command("ACL", "LOG")

    assert losses() == []
    assert denied == []
    assert sorted(channels) == [b"daybook:fetch", b"daybook:look"]
    assert keys
    assert all(key.startswith(b"daybook:") for key in keys)


def test_the_user_in_the_docs_may_run_every_command_that_we_know() -> None:
    allowed = {word.removeprefix("+") for word in acl() if word.startswith("+")}

    assert allowed == {command.lower() for command in KEYS} - {"auth"}


@pytest.mark.parametrize(("nudged", "other"), [("one", "two"), ("two", "one")])
async def test_two_prefixes_on_one_server_do_not_see_each_other(
    server: ValkeyServer, losses: Callable[[], list[str]], nudged: str, other: str
) -> None:
    url = server.connection_url
    async with (
        working(url, nudged) as awake,
        working(url, other) as asleep,
        nudging(url, nudged) as nudger,
    ):
        await ready(server.client, prefix=nudged)
        await ready(server.client, prefix=other)
        await has_begun(asleep)
        before = asleep.times
        for position in range(1, 11):
            await arrives(nudger, position, awake)
        assert asleep.times == before
        with server.client() as admin:
            assert losses() == []
            assert {key.partition(b":")[0] for key in admin.keys("*")} == {b"one", b"two"}


@pytest.mark.parametrize("command", ["KEYS", "FLUSHDB", "CONFIG GET", "ACL", "EVAL", "get"])
async def test_a_command_that_is_not_known_is_not_sent(server: ValkeyServer, command: str) -> None:
    async with connect(server.connection_url, "daybook") as redis:
        await redis.set("a", 1)
        with pytest.raises(DataError):
            await redis.execute_command(command, "a")
        with pytest.raises(DataError):
            async with redis.pipeline(transaction=True) as pipe:
                await pipe.set("a", 2).execute_command(command, "a").execute()

        assert await redis.get("a") == b"1"


async def test_transactions_and_pipelines_are_under_the_prefix_as_well(server: ValkeyServer) -> None:
    async with connect(server.connection_url, "daybook") as redis:
        async with redis.pipeline(transaction=True) as pipe:
            await pipe.watch("a", "b")
            pipe.multi()
            await pipe.set("a", 1).psetex("b", 60_000, 2).zadd("c", {"a": 1.0}).incr("d").execute()
        async with redis.pipeline(transaction=False) as pipe:
            assert await pipe.get("a").exists("a", "b", "c", "d").delete("a", "b").execute() == [b"1", 4, 2]

    with server.client() as admin:
        assert set(admin.keys("*")) == {b"daybook:c", b"daybook:d"}
        assert admin.zrange("daybook:c", 0, -1) == [b"a"]
