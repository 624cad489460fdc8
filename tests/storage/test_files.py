"""Files: one process holds a lock at a time, and a file is whole or not there."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from service.storage.files import create_file, locked, named_when_whole, replace_file


def test_a_lock_that_is_held_is_refused_until_it_is_given_back(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock):
        with pytest.raises(BlockingIOError), locked(lock, wait=False):
            pytest.fail("two held it")
        assert lock.exists()

    with locked(lock, wait=False):
        pass


def test_a_lock_is_given_back_by_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        raise ZeroDivisionError

    with locked(tmp_path / "lock", wait=False):
        pass


def test_a_file_is_replaced_as_a_whole_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "anchors"
    path.write_bytes(b"a longer text before")

    replace_file(path, b"new")

    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["anchors"]


def test_a_file_that_is_there_is_not_created_again(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    create_file(path, b"first")
    create_file(path, b"second")

    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["master.key"]


def test_a_file_that_was_not_finished_has_not_its_name(tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.write_text("old")
    with suppress(ZeroDivisionError), named_when_whole(path) as partial:
        partial.write_text("half of the n")
        raise ZeroDivisionError
    assert path.read_text() == "old"

    with named_when_whole(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
