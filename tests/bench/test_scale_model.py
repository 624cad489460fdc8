"""The model of many processes keeps to what is known of queues, and to its own bounds."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bench.scale import (
    COMMIT,
    CostLine,
    Layout,
    Parameters,
    Servers,
    Simulation,
    capacities,
    line_through,
    simulate,
)
from tests.support.effort import examples

PARAMETERS = Parameters(
    web=300e-6,
    append_web=CostLine(1.5e-3, 45e-6),
    append_postgres=CostLine(1e-3, 35e-6),
    disk=0.5e-3,
    fold_worker=CostLine(4e-3, 160e-6),
    fold_postgres=CostLine(2e-3, 60e-6),
    pass_over=16e-6,
    sender=45e-6,
)
layouts = st.builds(
    Layout,
    webs=st.integers(1, 6),
    workers=st.integers(0, 6),
    postgres_cores=st.integers(1, 4),
    shared_cores=st.sampled_from([0, 1, 2, 4]),
)


@examples(30)
@given(layout=layouts, per_second=st.floats(10, 20_000), seed=st.integers(0, 5))
def test_no_part_is_busy_for_more_than_all_of_the_time(layout, per_second, seed):
    said = simulate(PARAMETERS, layout, per_second=per_second, count=600, seed=seed)

    assert all(0 <= share <= 1 + 1e-9 for share in said.busy.values()), said.busy


@examples(30)
@given(layout=layouts, connections=st.integers(1, 600))
def test_nothing_goes_faster_than_its_slowest_part(layout, connections):
    said = simulate(PARAMETERS, layout, connections=connections, count=800)
    most = capacities(PARAMETERS, replace(layout, workers=0))

    assert said.throughput <= 1.01 * min(most["web"], most["turn"], most["PostgreSQL"])
    assert len(said.latency) == 800


@examples(20)
@given(layout=layouts)
def test_every_event_reaches_the_books(layout):
    said = simulate(PARAMETERS, layout, per_second=2_000, count=500)

    assert len(said.lag) == (500 if layout.workers else 0)
    assert all(lag > 0 for lag in said.lag)


@pytest.mark.parametrize("layout", [Layout(webs=1, workers=1), Layout(webs=2, workers=2, shared_cores=2)])
def test_more_load_never_lowers_latency(layout):
    middles = []
    for per_second in (20, 200, 600, 1_500, 4_000):
        runs = [
            simulate(PARAMETERS, layout, per_second=per_second, count=2_000, seed=seed) for seed in (1, 2, 3)
        ]
        middles.append(sum(run.latency[1_000] for run in runs) / 3)

    assert all(after >= 0.97 * before for before, after in pairwise(middles)), middles


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_server_lets_wait_as_the_formula_says(load):
    """M/D/1: a service of s, busy for a share r of the time, is waited for r s / (2 (1 - r)) in the mean."""
    simulation, chance, waits = Simulation(), random.Random(1), []
    server = Servers(simulation, 1)

    def customer():
        came = simulation.now
        yield server
        waits.append(simulation.now - came)
        yield 1.0
        server.leave()

    def arrivals():
        for _ in range(60_000):
            yield chance.expovariate(load)
            simulation.start(customer())

    simulation.start(arrivals())
    simulation.run(lambda: False)

    assert sum(waits) / 60_000 == pytest.approx(load / (2 * (1 - load)), rel=0.06)
    assert server.utilisation() == pytest.approx(load, rel=0.02)


def test_one_webhook_alone_takes_the_sum_of_its_parts():
    said = simulate(PARAMETERS, Layout(webs=1, workers=0), connections=1, count=50)
    alone = PARAMETERS.web + PARAMETERS.append_web.at(1) + PARAMETERS.append_postgres.at(1) + PARAMETERS.disk

    assert said.latency == pytest.approx([alone] * 50)
    assert said.throughput == pytest.approx(1 / (alone + PARAMETERS.sender))


def test_many_web_processes_reach_what_the_turn_can_take_and_no_more():
    layout = Layout(webs=8, workers=0, postgres_cores=16)
    said = simulate(PARAMETERS, layout, connections=8 * 2 * COMMIT, count=60_000)
    most = capacities(PARAMETERS, layout)

    assert min(most, key=most.get) == "turn"
    assert 0.8 * most["turn"] < said.throughput <= 1.01 * most["turn"]


def test_a_second_worker_halves_only_what_is_its_own():
    one, two = (capacities(PARAMETERS, Layout(webs=1, workers=n))["worker"] for n in (1, 2))

    assert one < two < 2 * one


def test_the_same_seed_gives_the_same_run():
    layout = Layout(webs=2, workers=2, shared_cores=2)
    first, second = (simulate(PARAMETERS, layout, per_second=900, count=500, seed=4) for _ in range(2))

    assert first == second


def test_servers_serve_in_the_order_of_coming():
    simulation, served = Simulation(), []
    servers = Servers(simulation, 1)

    def task(name):
        yield servers
        yield 1.0
        served.append((name, simulation.now))
        servers.leave()

    for name in "abc":
        simulation.start(task(name))
    simulation.run(lambda: False)

    assert served == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
    assert servers.utilisation() == 1.0


@given(batch=st.floats(1e-4, 1e-2), event=st.floats(1e-6, 1e-3))
def test_a_line_is_found_again_from_its_points(batch, event):
    sizes = (1, 8, 32, 128, 256)

    found = line_through(sizes, [batch + event * size for size in sizes])

    assert found.batch == pytest.approx(batch, rel=1e-6)
    assert found.event == pytest.approx(event, rel=1e-6)
