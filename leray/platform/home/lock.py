"""The lock that keeps two runs from bringing their outputs to the same place."""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leray.errors import ConfigError, LerayError
from leray.platform.home.store import Store

logger = logging.getLogger(__name__)

LOCK = "run.lock"
HEARTBEAT_S = 15.0
"""Time between two signs of life in the lock."""
STALE_S = 120.0
"""Age at which a sign of life counts no longer."""
SETTLE_S = 0.5
"""Time in which two processes that took the lock at once see which of them has it."""
READS = 5
"""How often a lock is read that is not whole, as it is being written."""


class LockLostError(LerayError):
    """Another process has taken the place over."""


class RunLock:
    """Holds the lock of a place, with a thread that keeps it fresh.

    Not every store can create a file only if it is not there, so whoever has written the lock reads
    it again a moment later: the last writer has it.

    Args:
        store: the place; `acquire` takes its lock.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mine = {
            "owner": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": _machine(),
        }
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="leray-lock", daemon=True)

    def acquire(self, say: Callable[[str], None]) -> None:
        """Take the lock, also one that its owner has left behind.

        Args:
            say: told when a lock is taken over.

        Raises:
            ConfigError: a living process has it.
        """
        if not self._store.create(LOCK, self._content()):
            found = self._found()
            if found is not None:
                self._take_over(found, say)
            self._store.write(LOCK, self._content())
        time.sleep(SETTLE_S)
        found = self._found()
        if found and found["owner"] != self._mine["owner"]:
            raise self._in_use(found)
        self._thread.start()

    def check(self) -> None:
        """Do nothing while the lock is ours.

        Raises:
            LockLostError: another process has it now.
        """
        found = self._found()
        if found and found["owner"] != self._mine["owner"]:
            raise LockLostError(f"{_who(found)} has taken over {self._store.url}")

    def release(self) -> None:
        """Give the lock back, if it is still ours."""
        self._released.set()
        if self._thread.is_alive():
            self._thread.join(HEARTBEAT_S)
        try:
            self.check()
            self._store.remove([LOCK])
        except Exception as error:  # the store is away: the lock grows old by itself
            logger.debug("%s: the lock stays: %s", self._store.url, error)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_S):
            try:
                self.check()
                self._store.write(LOCK, self._content())
            except LockLostError:
                return
            except Exception as error:  # whoever brings files there tells of it
                logger.debug("%s: no sign of life given: %s", self._store.url, error)

    def _content(self) -> bytes:
        return json.dumps({**self._mine, "heartbeat": time.time()}).encode()

    def _found(self) -> dict[str, Any] | None:
        """Return what the lock says; None where none is, nothing where it is not whole."""
        for _ in range(READS):
            try:
                found = json.loads(self._store.read(LOCK))
                return {
                    **found,
                    "owner": str(found["owner"]),
                    "heartbeat": float(found["heartbeat"]),
                }
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError):  # it may be being written
                time.sleep(SETTLE_S / READS)
        return {}

    def _take_over(self, found: dict[str, Any], say: Callable[[str], None]) -> None:
        """Return where the lock's owner is gone.

        Clocks of two machines may differ, so an old sign of life counts only if no new one comes.
        """
        url = self._store.url
        if not self._has_died(found):
            age_s = _age_s(found)
            if abs(age_s) <= STALE_S:
                raise self._in_use(found)
            wait_s = 1.5 * HEARTBEAT_S
            say(f"{url} is locked, last sign of life {age_s:.0f} s ago: watching it {wait_s:.0f} s")
            time.sleep(wait_s)
            now = self._found()
            if now is not None and now != found:
                raise self._in_use(now)
        say(f"{url}: taken over from {_who(found)}, which has gone without giving it back")

    def _has_died(self, found: dict[str, Any]) -> bool:
        """Tell whether the owner ran on this very machine and runs no longer."""
        machine, pid = self._mine["machine"], found.get("pid")
        if machine is None or found.get("machine") != machine or not isinstance(pid, int):
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's
            return False
        return False

    def _in_use(self, found: dict[str, Any]) -> ConfigError:
        return ConfigError(
            f"--output_dir={self._store.url}: in use by {_who(found)}, last sign of life "
            f"{_age_s(found):.0f} s ago: stop that run (what a killed one leaves may be taken over "
            f"after {STALE_S:.0f} s), or give another address"
        )


def _who(found: dict[str, Any]) -> str:
    return f"process {found.get('pid', 'unknown')} on {found.get('host', 'unknown')}"


def _age_s(found: dict[str, Any]) -> float:
    return time.time() - float(found.get("heartbeat", 0))


def _machine() -> str | None:
    """Return what tells this boot of this machine, and its process ids, from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return None
