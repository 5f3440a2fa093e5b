import pytest

from leray.cli import main
from leray.errors import ConfigError
from leray.platform.jobs import submit
from leray.platform.jobs.config import ListConfig, OneJobConfig, SubmitConfig


@pytest.fixture(autouse=True)
def no_address(monkeypatch):
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def submitted(monkeypatch):
    """Return what `leray submit` is called with, in place of the call."""
    configs: list[SubmitConfig] = []
    monkeypatch.setattr(submit, "run", configs.append)
    return configs


def test_the_address_given_counts_then_the_environment_s(monkeypatch):
    assert ListConfig().resolved_address == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # of a cluster, not of its job server
    assert ListConfig().resolved_address == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://a:1")
    assert ListConfig().resolved_address == "http://a:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://b:2/")
    assert ListConfig().resolved_address == "https://b:2"
    assert ListConfig(address="http://c:3/").resolved_address == "http://c:3"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "head:8265"}, "--address=head:8265: give the job server's address, as in"),
        ({"submission_id": "a/b"}, "--submission_id=a/b: give letters, digits"),
        ({"entrypoint_num_cpus": -1}, "--entrypoint_num_cpus=-1: give a number >= 0"),
        ({"entrypoint_memory": -1}, "--entrypoint_memory=-1: give a number of bytes >= 0"),
        ({"stop_wait_s": -1}, "--stop_wait_s=-1"),
    ],
)
def test_wrong_values_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        SubmitConfig(**options)


def test_a_job_s_name_may_not_leave_its_place():
    with pytest.raises(ConfigError, match="not a job's name"):
        OneJobConfig(submission_id="../x")


def test_what_stands_after_the_dashes_is_the_command(submitted):
    line = ["submit", "--follow=false", "--env.VERSION=1.10", "--env.FLAG=true", "--env.T=a: b"]
    command = ["train", "--policy.type=sac", "--env.type=gym", "--env.task=Pendulum-v1"]
    assert main([*line, "--entrypoint_resources.robot=1", "--", *command]) == 0
    (config,) = submitted
    assert config.arguments == command
    assert config.env == {"VERSION": "1.10", "FLAG": "true", "T": "a: b"}
    assert config.entrypoint_resources == {"robot": 1.0}
    assert config.reserves
    assert not SubmitConfig().reserves


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["submit"], "what to run is missing: give it after --, as in `leray submit -- train"),
        (["submit", "train", "--steps=3"], "what to run is missing: give it after --"),
        (["submit", "--", "trian"], "trian: unknown command; did you mean train?"),
        (["submit", "--", "train", "--stepz=3"], "--stepz: unknown flag; did you mean --steps?"),
        (["submit", "--", "train", "--resume=true", "--stepz=3"], "--stepz: unknown flag"),
        (["submit", "--", "train", "--config_path=/nowhere.yaml", "--x=3"], "--x: unknown flag"),
        (["submit", "--", "train", "--policy.type=sacc"], "--policy.type=sacc: unknown"),
        (["submit", "--", "submit", "--", "info"], "submit: speaks to a cluster from outside"),
        (["submit", "--", "jobs", "list"], "jobs list: speaks to a cluster from outside"),
        (["submit", "--folow=true", "--", "info"], "--folow: unknown flag; did you mean --follow?"),
    ],
)
def test_a_command_that_would_not_be_understood_is_not_sent(line, said, submitted, capsys):
    assert main(line) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"leray submit: error: {said}")
    assert printed.count("\n") == 1
    assert submitted == []


def test_files_of_another_machine_are_not_looked_for(submitted):
    resumed = ["train", "--resume=true", "--output_dir=/there/run"]
    by_config = ["train", "--config_path=/there/train.yaml"]
    for command in (resumed, by_config, ["info", "--help"], ["cluster", "check", "there.yaml"]):
        assert main(["submit", "--", *command]) == 0
    assert len(submitted) == 4


def test_help_is_of_the_command_that_asks(submitted, capsys):
    assert main(["submit", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--entrypoint_num_gpus" in printed
    assert "--arguments" not in printed
    assert main(["jobs"]) == 0
    assert "jobs stop" in capsys.readouterr().out
    assert submitted == []


def test_no_server_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "--address=http://127.0.0.1:9", "--", "info"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("leray submit: error: http://127.0.0.1:9: no Ray job server answers;")
    assert printed.count("\n") == 1
