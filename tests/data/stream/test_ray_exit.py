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
LEAVE_OPEN = """
batches = open_stream().batches()
next(batches)
print("used", flush=True)
"""
SHUT_DOWN = (
    LEAVE_OPEN
    + """
ray.shutdown()  # under the feet of the pipeline
"""
)


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
    plan = DatasetStream(readers, SampleSpec(), config).plan
    assert used + left == [plan.batch(number).tolist() for number in range(len(used) + 40)]


@pytest.mark.parametrize("code", [LEAVE_OPEN, SHUT_DOWN], ids=["left open", "shut down"])
def test_a_process_ends_in_seconds_with_a_pipeline_open(filmed, code):
    """Ray Data's thread must not start Ray anew, which would hang the exit."""
    process = started(code, filmed.root)
    assert process.stdout.readline() == "used\n"
    ended = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - ended < 30
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "Started a local Ray instance" not in errors
