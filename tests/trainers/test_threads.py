"""The number of CPU threads: the user's word, else the faster of one and all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from nnunet_neurino.trainers import threads


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_users_word_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(threads, "_seconds", lambda n: pytest.fail("timed although the number is given"))
    assert threads.use_fastest_thread_count() == 3
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("one", "all_cores", "expected"), [(1.0, 0.6, 4), (0.2, 2.0, 1)])
def test_the_faster_one_is_taken(monkeypatch: pytest.MonkeyPatch, one: float, all_cores: float, expected: int) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setattr(threads, "_seconds", lambda n: one if n == 1 else all_cores)
    assert threads.use_fastest_thread_count() == expected
    assert torch.get_num_threads() == expected


def test_typical_work_can_be_timed() -> None:
    assert threads._seconds(1) > 0
