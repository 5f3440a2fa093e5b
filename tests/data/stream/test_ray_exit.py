"""Processes that consume a stream through Ray: killed and resumed, or ended in any order."""

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
import ray

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.plan import StreamConfig
from leray.data.stream.samples import SampleSpec
from leray.data.stream.stream import DatasetStream

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

OPEN = """
import sys
import ray
from leray.data.lerobot.reader import DatasetReader
from leray.data.stream import ray_stream
from leray.data.stream.plan import StreamConfig
from leray.data.stream.samples import SampleSpec
from leray.data.stream.stream import DatasetStream

ray_stream.MAX_CHUNKS = 8

def open_stream():
    ray.init(address=sys.argv[1], log_to_driver=False)
    config = StreamConfig(batch_size=4, seed=3, chunk_mb=1)
    return DatasetStream([DatasetReader.open(sys.argv[2])], SampleSpec(), config, workers=2)
"""
CONSUME = """
batches = open_stream().batches()
with open(sys.argv[3], "w") as journal:
    for batch in batches:
        print(*batch["index"].tolist(), file=journal, flush=True)
"""
END = """
def open_and_use():
    batches = open_stream().batches()
    next(batches)
    return batches

left_open = open_and_use()
ray.shutdown()  # under its feet
print("shut down", ray.is_initialized(), flush=True)
also_open = open_and_use()
print("at the end", flush=True)
"""


def started(code: str, *arguments: object) -> subprocess.Popen:
    address = ray.get_runtime_context().gcs_address
    return subprocess.Popen(
        [sys.executable, "-c", OPEN + code, address, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_consumer_goes_on_with_exactly_what_was_left(filmed, tmp_path):
    journal = tmp_path / "journal"
    process = started(CONSUME, filmed.root, journal)
    deadline = time.monotonic() + 120
    while not (journal.is_file() and journal.read_text().count("\n") > 30):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    lines = journal.read_text().split("\n")[:-1]  # the last line may be cut
    used = [list(map(int, line.split())) for line in lines]
    config = StreamConfig(batch_size=4, seed=3, chunk_mb=1)
    readers = [DatasetReader.open(filmed.root)]
    resumed = DatasetStream(readers, SampleSpec(), config).batches(start=len(used))
    left = [batch["index"].tolist() for batch in itertools.islice(resumed, 40)]
    resumed.close()
    whole = DatasetStream(readers, SampleSpec(keys=["action"]), config)  # decodes nothing
    plan = DatasetStream(readers, SampleSpec(), config).plan
    assert used + left == [plan.batch(number).tolist() for number in range(len(used) + 40)]
    assert whole.plan.batch_size == 4


def test_a_process_ends_in_seconds_whatever_is_left_open(filmed):
    """An open pipeline must neither hang `ray.shutdown` or the exit, nor start Ray anew."""
    process = started(END, filmed.root)
    lines = [process.stdout.readline() for _ in range(2)]
    ended = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert lines == ["shut down False\n", "at the end\n"], errors
    assert time.monotonic() - ended < 15
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "Started a local Ray instance" not in errors
