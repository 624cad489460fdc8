"""Many workers on one PostgreSQL: what one of them drops, another takes up, whatever became of the first."""

from collections.abc import Iterator

import httpx
import pytest

from tests.storm import checks
from tests.storm.cluster import Cluster
from tests.storm.traffic import SETTINGS, Traffic
from tests.support.postgres import PostgresServer
from tests.support.processes import NO_TLS
from tests.support.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers. Each test leaves it whole, with all that was ever delivered in its books."""
    # what the books' commits don't wait for stays in memory: the moment in which a crash loses it lasts
    postgres = PostgresServer(wal_writer_delay="10s", wal_writer_flush_after="1GB")
    directory = tmp_path_factory.mktemp("cluster")
    with Cluster(directory, workers=2, postgres=postgres, **SETTINGS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic(1)


def test_another_worker_takes_up_what_a_killed_one_held(cluster: Cluster, traffic: Traffic) -> None:
    deliver(cluster, traffic)
    cluster.wait_caught_up()

    cluster.workers[0].kill()
    deliver(cluster, traffic)

    cluster.wait_caught_up()
    cluster.workers[0].start()


async def test_a_worker_that_wakes_up_late_changes_nothing(cluster: Cluster, traffic: Traffic) -> None:
    deliver(cluster, traffic)
    cluster.wait_caught_up()

    cluster.workers[1].pause()
    deliver(cluster, traffic)
    cluster.wait_caught_up()
    cluster.workers[1].resume()
    deliver(cluster, traffic)
    cluster.wait_caught_up()

    assert checks.verified(cluster) == await checks.books_of(traffic.sent)


async def test_books_that_a_crash_set_back_catch_up_though_nothing_new_comes(
    cluster: Cluster, traffic: Traffic
) -> None:
    # given workers that know their books to be at the ledger's end, and books that are not there any more
    assert any(set_back(cluster, traffic) for _ in range(20))

    # when the workers go on
    for worker in cluster.workers:
        worker.resume()

    # then they make again what was lost
    cluster.wait_caught_up()
    assert checks.verified(cluster) == await checks.books_of(traffic.sent)


def set_back(cluster: Cluster, traffic: Traffic) -> bool:
    """Crash PostgreSQL while every worker is held; whether the books' last commits were lost with it."""
    assert cluster.postgres is not None
    for worker in cluster.workers:
        worker.resume()
    deliver(cluster, traffic)
    cluster.wait_caught_up()
    for worker in cluster.workers:
        worker.pause()
    cluster.postgres.stop("immediate")
    cluster.postgres.start()
    found = wait_until(cluster.webs[0].ready, "the web process has PostgreSQL again")
    return any(found["lag_events"].values())


def deliver(cluster: Cluster, traffic: Traffic, count: int = 100) -> None:
    with httpx.Client(base_url=cluster.webs[0].url, timeout=PATIENCE_SECONDS, verify=NO_TLS) as client:
        for _ in range(count):
            delivery = traffic.next()
            client.post(delivery.path, content=delivery.body, headers=delivery.headers()).raise_for_status()
