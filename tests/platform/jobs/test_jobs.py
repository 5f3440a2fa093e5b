"""Real jobs on a real cluster: what runs, what is printed, and how it ends."""

import json
import re
import shutil
import signal
import time

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

TRAIN = [
    "train",
    "--policy.type=sac",
    "--env.type=gym",
    "--env.task=PandaReach-v3",
    "--policy.actor_network_kwargs.hidden_dims=[32,32]",
    "--policy.critic_network_kwargs.hidden_dims=[32,32]",
    "--policy.device=cpu",
    "--policy.online_step_before_learning=50",
    "--policy.online_buffer_capacity=5000",
    "--batch_size=16",
    "--eval_freq=0",
    "--eval.n_episodes=2",
    "--eval.max_episodes_rendered=0",
]


CONFIG = """
import signal, time
from dataclasses import dataclass

@dataclass
class InfoConfig:
    pass

"""
CHATTER = """
def run(config):
    for number in range(200):
        print("tick", number, flush=True)
        time.sleep(0.1)
"""
SLOW_TO_STOP = """
def save(*_):
    time.sleep(6)
    print("saved", flush=True)
    raise SystemExit(130)

def run(config):
    signal.signal(signal.SIGTERM, save)
    print("working", flush=True)
    time.sleep(600)
"""


def shipped(checkout, folder, program):
    """Return a folder in which `leray info` is another program."""
    shutil.copytree(checkout, folder)
    (folder / "leray/platform/info.py").write_text(CONFIG + program)
    return folder


def wait_for_line(process, text: str, timeout_s: float = 200.0) -> list[str]:
    """Read a process's output up to a line that holds a text."""
    lines: list[str] = []
    deadline = time.monotonic() + timeout_s
    while not lines or text not in lines[-1]:
        line = process.stdout.readline()
        assert line, f"ended without {text!r}: {lines} {process.stderr.read()}"
        assert time.monotonic() < deadline, lines
        lines.append(line)
    return lines


def submission_id(printed: str) -> str:
    found = re.search(r"job (\S+) is submitted", printed)
    assert found, printed
    return found[1]


def test_a_job_runs_the_code_that_was_sent(head, checkout, tmp_path):
    """In the user's folder, but without the code that is there by now."""
    (tmp_path / "leray").mkdir()
    (tmp_path / "leray/__init__.py").write_text("raise SystemExit('edited since')")
    submit = ["submit", f"--address={head.address}", f"--working_dir={checkout}"]
    done = head.leray(*submit, "--submission_id=first", "--", "info", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "job first is submitted" in done.stdout
    assert re.search(r"leray\s+9\.9\.9", done.stdout), done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_a_job_is_known_by_its_name(head, checkout, tmp_path):
    at = f"--address={head.address}"
    submit = ["submit", at, f"--working_dir={checkout}", "--submission_id=named", "--", "info"]
    assert head.leray(*submit, cwd=tmp_path).returncode == 0
    again = head.leray(*submit, cwd=tmp_path)
    assert again.returncode == 2
    assert "--submission_id=named: there is such a job on this cluster" in again.stderr

    listed = head.leray("jobs", "list", cwd=tmp_path, RAY_API_SERVER_ADDRESS=head.address)
    assert re.search(r"named +SUCCEEDED .* 0:\d\d:\d\d +info\n", listed.stdout), listed.stdout
    logs = head.leray("jobs", "logs", "--submission_id=named", at, cwd=tmp_path)
    assert "9.9.9" in logs.stdout
    stopped = head.leray("jobs", "stop", "--submission_id=named", at, cwd=tmp_path)
    assert (stopped.returncode, stopped.stdout) == (0, "job named has already ended: SUCCEEDED\n")


@pytest.mark.slow
def test_a_failing_command_s_exit_code_is_passed_on(head, checkout, tmp_path):
    (tmp_path / "empty").mkdir()  # a path of the folder the user is in
    command = ["eval", "--policy.path=empty"]
    submit = ["submit", f"--address={head.address}", f"--working_dir={checkout}"]
    done = head.leray(*submit, "--", *command, cwd=tmp_path)
    assert done.returncode == 2
    assert "leray eval: error: empty: holds no policy" in done.stdout
    assert re.search(r"^job \S+ failed, exit code 2\n$", done.stderr)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 64}, "the cluster refuses the token; put the one that "),
        ({"RAY_AUTH_MODE": "disabled"}, "the cluster refuses the token; put the one that "),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "RAY_AUTH_TOKEN_PATH=/nowhere: no such file"),
    ],
)
def test_without_the_token_nothing_is_done(head, checkout, setting, said):
    line = ["submit", f"--address={head.address}", "--", "info"]
    done = head.leray(*line, cwd=checkout, **setting)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.slow
def test_a_job_that_is_not_there(head, checkout):
    for verb in ("logs", "stop"):
        done = head.leray(
            "jobs", verb, "--submission_id=nobody", f"--address={head.address}", cwd=checkout
        )
        assert done.returncode == 2
        assert "--submission_id=nobody: " in done.stderr
        assert "knows no such job" in done.stderr


@pytest.mark.slow
def test_a_stopped_run_leaves_a_checkpoint_and_goes_on(head, checkout, tmp_path):
    submit = ["submit", f"--address={head.address}", f"--working_dir={checkout}"]
    command = [*TRAIN, "--output_dir=run", "--steps=1000000", "--save_freq=1000000"]
    process = head.start(
        "-m", "leray", *submit, "--", *command, "--log_freq=50", cwd=tmp_path, COLUMNS="200"
    )
    try:
        name = submission_id("".join(wait_for_line(process, "is submitted")))
        wait_for_line(process, "step 200")
        stopped = head.leray(
            "jobs", "stop", f"--submission_id={name}", f"--address={head.address}", cwd=tmp_path
        )
        assert stopped.returncode == 0, stopped.stderr
        assert f"job {name} has ended: STOPPED" in stopped.stdout
        assert "leray train --resume=true --output_dir=run" in stopped.stdout
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert f"job {name} was stopped" in err
    finally:
        process.kill()
    counters = tmp_path / "run/checkpoints/last/training_state/training_step.json"
    steps = json.loads(counters.read_text())["env_steps"]
    assert steps > 100
    goal = steps + 100
    done = head.leray(
        *submit,
        "--",
        *("train", "--resume=true", "--output_dir=run", f"--steps={goal}"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(counters.read_text())["env_steps"] == goal
    assert (tmp_path / "outputs/mlflow.db").is_file()


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_running(head, checkout, tmp_path):
    folder = shipped(checkout, tmp_path / "shipped", CHATTER)
    submit = ["submit", f"--address={head.address}", f"--working_dir={folder}", "--", "info"]
    process = head.start("-m", "leray", *submit, cwd=tmp_path)
    name = submission_id("".join(wait_for_line(process, "is submitted")))
    wait_for_line(process, "tick 1")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    which = f"--submission_id={name} --address={head.address}"
    assert f"leray jobs logs {which} --follow=true" in err
    assert f"leray jobs stop {which}" in err
    assert "Traceback" not in err
    followed = head.leray("jobs", "logs", *which.split(), "--follow=true", cwd=tmp_path)
    assert followed.returncode == 0, followed.stderr
    ticks = re.findall(r"^tick (\d+)$", followed.stdout, re.MULTILINE)
    assert ticks == [str(number) for number in range(200)]


@pytest.mark.slow
def test_a_stopped_job_has_more_time_than_ray_gives(head, checkout, tmp_path):
    folder = shipped(checkout, tmp_path / "shipped", SLOW_TO_STOP)
    submit = ["submit", f"--address={head.address}", f"--working_dir={folder}", "--", "info"]
    process = head.start("-m", "leray", *submit, cwd=tmp_path)
    name = submission_id("".join(wait_for_line(process, "is submitted")))
    wait_for_line(process, "working")
    which = [f"--submission_id={name}", f"--address={head.address}"]
    early = head.leray("jobs", "stop", *which, "--timeout_s=0.1", cwd=tmp_path)
    assert early.returncode == 2
    assert f"job {name} is asked to stop and still RUNNING after 0 s" in early.stderr
    stopped = head.leray("jobs", "stop", *which, cwd=tmp_path)
    assert stopped.returncode == 0
    assert process.communicate(timeout=60)[0].endswith("saved\n")
    assert process.returncode == 130


@pytest.mark.slow
def test_results_on_one_of_several_nodes_are_warned_of(head, checkout, tmp_path, second_node):
    line = ["submit", f"--address={head.address}", f"--working_dir={checkout}", "--follow=false"]
    command = ["--", "eval", "--policy.path=nothing"]
    deadline = time.monotonic() + 120
    while True:
        done = head.leray(*line, "--entrypoint_num_cpus=1", *command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        if "on one of 2 nodes, and are lost with it: give --output_dir=" in done.stderr:
            break
        assert time.monotonic() < deadline, done.stderr  # the node may not have joined yet
    assert done.stderr.startswith("warning: results go to outputs in the job's copy")
    assert "leray jobs stop --submission_id=" in done.stdout
    assert head.leray(*line, *command, cwd=tmp_path).stderr == ""  # on the head, this machine


@pytest.mark.slow
@pytest.mark.parametrize("entrypoint", [["python", "-m", "leray"], ["leray"]])
def test_ray_s_own_command_works_too(head, checkout, tmp_path, entrypoint):
    """`python` has no such package installed there; `leray` is the installed one's script."""
    command = [*TRAIN, "--steps=100", f"--output_dir={tmp_path / 'run'}", "--mlflow.enable=false"]
    submit = ["-m", "ray.scripts.scripts", "job", "submit", f"--address={head.address}"]
    process = head.start(*submit, "--working-dir", ".", "--", *entrypoint, *command, cwd=checkout)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, out + err
    config = (tmp_path / "run/train_config.yaml").read_text()
    assert "steps: 100" in config
    assert (tmp_path / "run/checkpoints/last/pretrained_model/model.safetensors").is_file()
