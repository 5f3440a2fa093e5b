"""The display, seen through a real pseudo-terminal and through a real pipe."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from leray.platform.progress import Progress

METRICS = {
    "train/episode_return": -12.345,
    "train/success_rate": 0.5,
    "time/env_steps_per_s": 1234.4,
    "buffer/online": 20000,
    "loss/critic": 0.1,
}
PROGRAM = """
from leray.platform.progress import Progress
progress = Progress(1000)
progress.update(200, {"train/episode_return": -1.5, "train/success_rate": 0.25})
progress.message("checkpoint saved [bold]")
progress.update(400, {"eval/success_rate": 0.92})
print("printed by someone else")
progress.close()
progress.close()
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def plain(**options: object) -> tuple[Progress, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(1000, stream=stream, clock=clock, **options)  # type: ignore[arg-type]
    return progress, stream, clock


def run_in_terminal(**environment: str) -> str:
    """Run the program with a pseudo-terminal as its output; return all it wrote."""
    ours, theirs = pty.openpty()
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment}
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
    assert process.wait() == 0, written.decode()
    return written.decode()


def test_a_report_is_one_line_with_known_metrics_in_order() -> None:
    progress, stream, clock = plain()
    clock.now = 10.0
    progress.update(250, METRICS)
    progress.close()
    assert stream.getvalue() == (
        "step 250/1,000 (25%)  left 0:00:30  steps/s 1,234  return -12.35  success 50%  "
        "online 20,000\n"
    )


def test_lines_show_only_what_was_reported_now() -> None:
    progress, stream, _ = plain()
    progress.update(1, {"eval/success_rate": 0.9, "train/entropy": float("nan")})
    progress.update(2, {})
    first, second = stream.getvalue().splitlines()
    assert first.endswith("entropy -  eval success 90%")
    assert "eval" not in second


def test_updates_are_called_updates_and_small_rates_have_digits() -> None:
    progress, stream, _ = plain(unit="update")
    figures = {"time/samples_per_s": 123.4, "time/updates_per_s": 1.928, "loss/total": 0.12345}
    progress.update(500, figures | {"train/lr": 1e-5, "validation/loss": 0.5, "loss/l1": 3.0})
    assert stream.getvalue() == (
        "update 500/1,000 (50%)  left 0:00:00  updates/s 1.93  samples/s 123  loss 0.1235  "
        "lr 1.0e-05  validation loss 0.5000\n"
    )


def test_time_left_counts_only_this_process_s_steps() -> None:
    progress, _, clock = plain(start_step=800)
    assert progress.eta_s() is None
    clock.now = 60.0
    progress.update(900, {})
    assert progress.eta_s() == pytest.approx(60.0)
    progress.update(1100, {})
    assert progress.eta_s() == 0


def test_messages_are_lines() -> None:
    progress, stream, _ = plain()
    progress.message("evaluated at 20000: success 92 %")
    assert stream.getvalue() == "evaluated at 20000: success 92 %\n"


def test_a_pipe_gets_plain_lines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("step 200/1,000 (20%)")
    assert lines[1] == "checkpoint saved [bold]"
    assert lines[2].endswith("eval success 92%")


def test_a_terminal_gets_one_panel_redrawn_in_place() -> None:
    written = run_in_terminal()
    assert "\x1b[" in written
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert text.count("checkpoint saved [bold]") == 1
    assert "printed by someone else" in text
    last = text[text.rindex("step ") :]
    assert last.startswith("step 400/1,000 (40%)")
    for shown in ("return -1.50", "success 25%", "eval success 92%"):
        assert shown in last
    assert "━" in last


def test_ci_gets_plain_lines_even_on_a_terminal() -> None:
    written = run_in_terminal(CI="true")
    assert "\x1b" not in written
    assert written.startswith("step 200/1,000 (20%)")
