"""Who imports tells the workers, where there is a Redis; without it they find out by themselves."""

from pathlib import Path

from redis import Redis

from tests.support.ports import free_port
from tests.support.valkey import ValkeyServer
from tests.transfer.installation import Installation, lines
from tests.transfer.test_stripe import EVENTS


def test_an_import_nudges_the_workers(daybook: Installation, tmp_path: Path) -> None:
    (file := tmp_path / "events.jsonl").write_bytes(lines(EVENTS[:3]))
    with ValkeyServer() as valkey:
        daybook.environment["DAYBOOK_REDIS_URL"] = valkey.connection_url
        daybook.import_("stripe", file)

        with Redis.from_url(valkey.connection_url) as redis:
            (job,) = redis.zrange("daybook:queue", 0, -1)
            assert job.startswith(b"advance:")


def test_an_import_does_not_need_redis(daybook: Installation, tmp_path: Path) -> None:
    (file := tmp_path / "events.jsonl").write_bytes(lines(EVENTS[:3]))
    daybook.environment["DAYBOOK_REDIS_URL"] = f"redis://127.0.0.1:{free_port()}"

    assert daybook.import_("stripe", file)["recorded"] == 3
