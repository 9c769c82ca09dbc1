"""Processes started afresh: what they see, and that they end when told to."""

import multiprocessing
import os
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from analysis.spawned import Spawned


@pytest.mark.slow
def test_a_process_sees_its_environment_and_ends_in_the_middle_of_its_work(monkeypatch):
    monkeypatch.setenv("OF_THIS", "this")
    monkeypatch.setenv("OF_BOTH", "this")
    monkeypatch.delenv("OF_THAT", raising=False)
    pool = Spawned(1, {"OF_BOTH": "that", "OF_THAT": "that"})
    names = ("OF_THIS", "OF_BOTH", "OF_THAT")
    assert [pool.submit(os.getenv, name).result() for name in names] == ["this", "that", "that"]
    assert [os.getenv(name) for name in names] == ["this", "this", None]
    number = pool.submit(os.getpid).result()
    assert number in {process.pid for process in multiprocessing.active_children()}

    working = pool.submit(time.sleep, 3600)
    while not working.running():
        time.sleep(0.01)
    pool.end()
    assert number not in {process.pid for process in multiprocessing.active_children()}
    with pytest.raises(BrokenProcessPool):
        working.result()
