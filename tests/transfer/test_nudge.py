"""Who imports tells the workers, where there is a Redis; without it they find out by themselves."""

from pathlib import Path

from redis import Redis

from tests.ports import free_port
from tests.transfer.kept import Kept, lines
from tests.transfer.test_stripe import EVENTS
from tests.valkey import ValkeyServer


def test_an_import_nudges_the_workers(kept: Kept, tmp_path: Path) -> None:
    (file := tmp_path / "events.jsonl").write_bytes(lines(EVENTS[:3]))
    with ValkeyServer() as valkey:
        kept.environment["DAYBOOK_REDIS_URL"] = valkey.connection_url
        kept.take("stripe", file)

        with Redis.from_url(valkey.connection_url) as redis:
            assert redis.zrange("daybook:queue", 0, -1) == [b"advance:3"]


def test_an_import_does_not_need_redis(kept: Kept, tmp_path: Path) -> None:
    (file := tmp_path / "events.jsonl").write_bytes(lines(EVENTS[:3]))
    kept.environment["DAYBOOK_REDIS_URL"] = f"redis://127.0.0.1:{free_port()}"

    assert kept.take("stripe", file)["recorded"] == 3
