"""How files of look-backs come to be: whole or not at all, once, and whoever waits or dies."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.lookback import files, maker
from service.lookback.files import LookbackFiles, LookbackSpec, remove_all_files
from service.lookback.make_file import make_file, open_lookback_files
from tests.lookback.test_reads import tell
from tests.support.running import Daybook, running
from tests.support.waiting import PATIENCE_SECONDS

AT = {"position": 3, "today": "2025-10-31"}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """These tests are of the process, which few events do without."""
    monkeypatch.setattr(maker, "FEW_EVENTS", 0)
    return monkeypatch


async def test_the_books_of_few_events_need_no_process(daybook: Daybook, few: pytest.MonkeyPatch) -> None:
    few.undo()
    await tell(daybook, 5)
    few.setattr(maker, "run_process", None)

    assert (await asked(daybook)).json()["meta"]["position"] == 3


def kept(data_dir: Path) -> list[str]:
    """What is in the directory of look-backs, but for the lock."""
    return sorted(path.name for path in (data_dir / "lookback").glob("*") if path.name != "lock")


async def until_under_way(daybook: Daybook) -> int:
    """The process that makes a file, once it builds."""
    data_dir = daybook.state.settings.data_dir
    while not any(name.startswith("building-") for name in kept(data_dir)):  # noqa: ASYNC110 - by another process
        await asyncio.sleep(0.002)
    process = daybook.state.lookback._process
    assert process is not None
    assert process.pid is not None
    return process.pid


async def asked(daybook: Daybook, **query: Any) -> httpx.Response:
    return await daybook.ask("/api/v1/mrr", **(AT | query))


async def test_a_request_that_can_not_wait_is_503_and_a_later_one_finds_the_file(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tell(daybook, 5)
    monkeypatch.setattr(maker, "_WAIT_SECONDS", 0.0)

    early = await asked(daybook, timeout_ms=0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (late := await asked(daybook, timeout_ms=30_000)).status_code == 503:
            pass
    again = await asked(daybook, timeout_ms=0)

    assert (early.status_code, early.headers["retry-after"]) == (503, "5")
    assert "being prepared" in early.json()["detail"]
    assert (late.status_code, late.json()["meta"]["position"]) == (200, 3)
    assert (again.status_code, again.content) == (200, late.content)
    assert len(kept(daybook.state.settings.data_dir)) == 1


async def test_a_killed_build_leaves_no_file_that_is_read(daybook: Daybook) -> None:
    await tell(daybook, 5)
    data_dir = daybook.state.settings.data_dir

    request = asyncio.create_task(asked(daybook))
    os.kill(await until_under_way(daybook), signal.SIGKILL)
    killed = await request

    assert (killed.status_code, killed.headers["retry-after"]) == (503, "5")
    assert all(name.startswith("building-") for name in kept(data_dir))
    assert (await asked(daybook)).json()["meta"]["position"] == 3
    assert [name.rpartition(".")[2] for name in kept(data_dir)] == ["db"]  # what was left is gone, too


async def test_several_web_processes_make_a_file_once(data_dir: Path) -> None:
    async with running(data_dir) as one, running(data_dir) as other:
        await tell(one, 5)

        answers = await asyncio.gather(*(asked(daybook) for daybook in (one, other, one, other)))

        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert len(kept(data_dir)) == 1
        assert not (data_dir / "lookback").stat().st_mode & 0o077


async def test_a_web_process_that_stops_ends_what_it_has_begun(data_dir: Path) -> None:
    async with running(data_dir) as daybook:
        await tell(daybook, 5)
        request = asyncio.create_task(asked(daybook))
        pid = await until_under_way(daybook)
        daybook.state.lookback.stop()
        answer = await request

    assert answer.status_code == 503
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not [name for name in kept(data_dir) if name.endswith(".db")]


async def test_files_that_were_removed_are_made_anew(daybook: Daybook) -> None:
    await tell(daybook, 5)
    data_dir = daybook.state.settings.data_dir
    first = await asked(daybook)

    remove_all_files(data_dir)
    gone = kept(data_dir)
    again = await asked(daybook, timeout_ms=2_001)  # another request: the answer of the first one is kept

    assert gone == []
    assert [path.name for path in data_dir.glob("lookback*")] == ["lookback"]
    assert (again.status_code, again.content) == (200, first.content)
    remove_all_files(data_dir)
    remove_all_files(data_dir)  # of nothing


async def test_a_file_under_way_when_all_are_removed_is_never_put_in_place(daybook: Daybook) -> None:
    await tell(daybook, 5)
    data_dir = daybook.state.settings.data_dir
    request = asyncio.create_task(asked(daybook))
    pid = await until_under_way(daybook)

    os.kill(pid, signal.SIGSTOP)
    remove_all_files(data_dir)
    os.kill(pid, signal.SIGCONT)
    answer = await request

    assert answer.status_code == 503
    assert list(data_dir.glob("lookback*")) == []


# The files


def wanted(position: int, since: int | None = None) -> LookbackSpec:
    return LookbackSpec(position=position, digest="0123456789abcdef", since=since)


def put(at: LookbackFiles, of: LookbackSpec, size: int = 1) -> None:
    with at.lock(), at.workdir() as workdir:
        (workdir / "made").write_bytes(b"x" * size)
        at.put(workdir / "made", of)


def test_the_least_used_files_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MAX_FILES", 3)
    at = LookbackFiles(tmp_path, "key")
    for position in (1, 2, 3):
        put(at, wanted(position))
        _age(tmp_path, position)
    assert at.find(wanted(1))

    put(at, wanted(4))

    assert [bool(at.find(wanted(position))) for position in (1, 2, 3, 4)] == [True, False, True, True]


def test_large_files_make_room_sooner_and_the_newest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MAX_BYTES", 1_000)
    at = LookbackFiles(tmp_path, "key")
    put(at, wanted(1), 600)
    put(at, wanted(2), 600)
    assert [bool(at.find(wanted(position))) for position in (1, 2)] == [False, True]

    put(at, wanted(3), 2_000)
    assert [bool(at.find(wanted(position))) for position in (2, 3)] == [False, True]


def test_a_file_is_made_from_the_nearest_of_its_own_kind(tmp_path: Path) -> None:
    at = LookbackFiles(tmp_path, "key")
    for each in (wanted(1), wanted(5), wanted(9), wanted(6, since=2), wanted(7, since=3)):
        put(at, each)
    put(LookbackFiles(tmp_path, "other"), wanted(7))

    assert [base.position for base, _ in at.find_bases(wanted(8))] == [5, 1]
    assert [base.position for base, _ in at.find_bases(wanted(8, since=2))] == [6]
    assert list(at.find_bases(wanted(6, since=2))) == []


def _age(data_dir: Path, position: int) -> None:
    """Let a file have been used long ago, those of lower positions longest."""
    (path,) = (data_dir / "lookback").glob(f"key-books-{position}-*")
    os.utime(path, (position, position))


async def test_a_file_of_another_ledger_is_no_base(daybook: Daybook) -> None:
    await tell(daybook, 5)
    settings = daybook.state.settings
    of_another = LookbackSpec(position=4, digest="0" * 16)
    put(open_lookback_files(settings), of_another)

    await make_file(settings, LookbackSpec(position=5, digest="1" * 16))

    assert open_lookback_files(settings).find(LookbackSpec(position=5, digest="1" * 16))
