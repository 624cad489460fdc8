"""What a run lists: all of the period and no more than needed, however many runs before it were killed."""

from hypothesis import given
from hypothesis import strategies as st

from service.sync.reconcile.events import Progress, Window, advance_progress, start_progress


def newest_first(window: Window, events: set[int]) -> list[int]:
    return sorted((moment for moment in events if window.since <= moment <= window.until), reverse=True)


@given(
    events=st.sets(st.integers(0, 10_000), max_size=60),
    runs=st.lists(st.tuples(st.integers(1, 3_000), st.integers(0, 8)), min_size=1, max_size=6),
)
def test_however_often_it_is_killed_every_event_of_the_period_is_listed(
    events: set[int], runs: list[tuple[int, int]]
) -> None:
    listed: set[int] = set()
    now, progress = 4_000, None
    for elapsed, pages in runs:  # each is killed after so many pages of five
        now += elapsed
        progress = start_progress(progress, since=1_000, now=now)
        for _ in range(pages):
            page = newest_first(progress.left[0], events - listed)[:5] if progress.left else []
            if page:
                listed.update(page)
                progress = advance_progress(progress, page[-1])
            elif progress.left:
                progress = Progress(progress.began, progress.left[1:])
    progress = start_progress(progress, since=1_000, now=now + 1)
    for window in progress.left:
        listed.update(newest_first(window, events))

    assert {moment for moment in events if 1_000 <= moment <= now + 1} <= listed


def test_a_listed_period_is_not_listed_again() -> None:
    killed = advance_progress(start_progress(None, since=1_000, now=9_000), 5_000)

    assert start_progress(killed, since=2_000, now=10_000).left == (
        Window(8_700, 10_000),
        Window(1_000, 5_000),
    )


def test_a_longer_period_reaches_further_back() -> None:
    killed = advance_progress(start_progress(None, since=1_000, now=9_000), 5_000)

    assert start_progress(killed, since=500, now=10_000).left[-1] == Window(500, 5_000)


def test_after_a_whole_run_the_period_is_the_one_asked_for() -> None:
    assert start_progress(Progress(9_000, ()), since=500, now=10_000).left == (Window(500, 10_000),)
