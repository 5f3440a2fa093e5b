"""One run at a place: the lock is held, refused, given back, and taken over from the dead."""

import json
import subprocess
import sys
import threading
import time

import pytest

from leray.errors import ConfigError
from leray.platform.home import lock as module
from leray.platform.home.home import open_home
from leray.platform.home.lock import LOCK, LockLostError, RunLock
from leray.platform.home.store import Store
from tests.platform.home.conftest import Trainer
from tests.platform.home.test_home import wait_for


def taken(url: str) -> RunLock:
    lock = RunLock(Store(url))
    lock.acquire(print)
    return lock


def content(url: str) -> dict:
    return json.loads(Store(url).read(LOCK))


def write(url: str, **changes) -> None:
    found = {"owner": "other", "host": "other", "pid": 7, "machine": "other", "heartbeat": 0.0}
    Store(url).write(LOCK, json.dumps(found | changes).encode())


def test_a_second_run_is_refused_until_the_first_gives_the_place_back(url):
    first = taken(url)
    with pytest.raises(ConfigError, match=r"in use by process \d+ on .*, last sign of life 0 s"):
        taken(url)
    first.check()
    first.release()
    assert LOCK not in Store(url).top()
    taken(url).release()


def test_a_run_in_use_is_refused_by_open_home(url, machine):
    with open_home(url) as home:
        Trainer(home.local)
        machine("second")
        with pytest.raises(ConfigError, match="in use by process"):
            open_home(url, resume=True)
        assert home.finish() == []


def test_the_sign_of_life_is_renewed(url):
    lock = taken(url)
    first = content(url)["heartbeat"]
    wait_for(lambda: content(url)["heartbeat"] > first)
    lock.release()


@pytest.mark.parametrize("age_s", [200.0, -1000.0])
def test_a_stale_lock_is_taken_over_with_a_note(url, capsys, age_s):
    write(url, heartbeat=time.time() - age_s)
    lock = taken(url)
    assert content(url)["owner"] != "other"
    assert "taken over from process 7 on other" in capsys.readouterr().out
    lock.release()


def test_a_lock_that_only_looks_old_is_not_taken_over(url):
    """The clock of its machine is behind, and its signs of life go on."""
    over = threading.Event()

    def live() -> None:
        while not over.wait(0.01):
            write(url, heartbeat=time.time() - 1000)

    write(url, heartbeat=time.time() - 1000)
    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(ConfigError, match="in use by process 7 on other"):
            taken(url)
    finally:
        over.set()
        thread.join()


def test_a_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(url, capsys):
    if module._machine() is None:
        pytest.skip("this system does not tell one boot from another")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write(url, machine=module._machine(), pid=ended.pid, heartbeat=time.time())
    taken(url).release()
    assert f"taken over from process {ended.pid}" in capsys.readouterr().out


def test_whoever_lost_the_place_writes_there_no_more(url, caplog):
    with open_home(url) as home:
        trainer = Trainer(home.local)
        wait_for(lambda: "train_config.yaml" in Store(url).top())
        write(url, heartbeat=time.time())
        trainer.collect()
        trainer.save()
        wait_for(lambda: "has taken over" in caplog.text)
        left = home.finish()
    assert left[0] == "checkpoint 000005"
    assert content(url)["owner"] == "other"


def test_of_two_that_take_it_at_once_one_has_it(url, monkeypatch):
    monkeypatch.setattr(module, "SETTLE_S", 0.2)
    monkeypatch.setattr(Store, "create", lambda self, name, text: self.write(name, text) or True)
    refused: list[ConfigError] = []
    locks = [RunLock(Store(url)) for _ in range(2)]

    def take(lock: RunLock) -> None:
        try:
            lock.acquire(print)
        except ConfigError as error:
            refused.append(error)

    threads = [threading.Thread(target=take, args=[lock]) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    losers = 0
    for lock in locks:
        try:
            lock.check()
        except LockLostError:
            losers += 1
    assert losers == 1
    for lock in locks:
        lock.release()


def test_a_torn_lock_is_not_taken_for_a_loss(url):
    lock = taken(url)
    lock._released.set()
    Store(url).write(LOCK, b'{"owner": "ot')
    lock.check()
    lock.release()
