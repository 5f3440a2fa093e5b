"""The table of a running sweep, through a real pseudo-terminal and through a plain stream."""

import io
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from leray.tune.report.live import LiveTable
from tests.tune.report.sweeps import METRIC, record

PROGRAM = """
import os
from leray.tune.report.live import LiveTable
from sweeps import METRIC, sweep
records = sweep(300)
with LiveTable(metric=METRIC, mode="max", total=400) as table:
    table.update([])
    table.update(records[:2])
    table.message("message [bold]")
    print("printed by someone else")
    table.update(records)
    if "CI" not in os.environ:
        table.update(records[:12])
table.close()
"""


def plain(**options):
    stream = io.StringIO()
    return LiveTable(metric=METRIC, mode="max", stream=stream, **options), stream


def run_in_terminal(**environment: str) -> str:
    """Run the program with a pseudo-terminal of 30 lines as its output; return all it wrote."""
    ours, theirs = pty.openpty()
    here = str(Path(__file__).parent)  # for the program's import of sweeps
    terminal = {"TERM": "xterm", "COLUMNS": "110", "LINES": "30", "PYTHONPATH": here}
    variables = {**os.environ, **terminal, **environment}
    if not environment.get("CI"):
        variables.pop("CI", None)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=theirs, stdout=theirs, stderr=theirs, env=variables
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # Linux says so when the other side has closed
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    assert process.wait(60) == 0, written.decode()
    return written.decode()


def test_on_a_terminal_the_table_is_drawn_anew():
    text = run_in_terminal()
    assert "\x1b[1A" in text  # moves up to draw over what it drew
    assert "waiting for the first trial" in text
    assert "message [bold]" in text
    assert "printed by someone else" in text
    drawn = text.split("of 400 trials")
    assert "25 running  25 pending  200 finished  25 stopped  25 failed" in text
    full = next(part for part in drawn if "and 282 more trials" in part)
    assert full.count("\n") <= 30  # as many rows as the terminal has room for
    last = re.sub(r"\x1b\[[0-9;]*m", "", drawn[-1])
    assert ["8", "t00007", "running"] in [line.split()[:3] for line in last.splitlines()]
    assert text.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_in_ci_it_writes_lines():
    text = run_in_terminal(CI="true")
    assert "\x1b" not in text
    assert text.count("trial t") == 300 - 2 * 25  # neither the running nor the waiting ones


def test_a_line_for_every_trial_that_ends_and_none_twice():
    table, stream = plain(total=3)
    waiting = record("a", None, status="pending", values={"policy.lr": 0.001, "n": 2})
    running = replace(waiting, status="running", step=500, best=0.25)
    other = record("b", None, status="running")
    for state in ([waiting], [running, other], [replace(running, status="finished"), other]):
        table.update(state)
        table.update(state)
    failed = replace(other, status="failed", step=7, error="LearnerError: lost\nTraceback")
    table.update([replace(running, status="finished"), failed])
    table.close()
    assert stream.getvalue().splitlines() == [
        f"trial a finished at step 500  {METRIC} 0.25  lr=0.001 n=2  (1 of 3 ended)",
        "trial b failed at step 7  LearnerError: lost Traceback  (2 of 3 ended)",
    ]


def test_a_trial_that_is_tried_again_is_told_again():
    table, stream = plain()
    for status in ("failed", "running", "failed", "finished"):
        table.update([record("a", 0.5, status=status)])
    assert [line.split()[2] for line in stream.getvalue().splitlines()] == [
        "failed",
        "failed",
        "finished",
    ]


def test_messages_are_lines():
    table, stream = plain()
    table.message("best policy [saved]")
    assert stream.getvalue() == "best policy [saved]\n"
