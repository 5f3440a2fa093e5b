"""Files of `ray up` with one mistake each: found, in the right line, for the right reason."""

import re

import pytest
import yaml

from leray.cli import main
from leray.platform.cluster_check.check import check_file

TRAINING = """
policy: {type: sac, device: cuda}
env: {type: gym, task: PandaReach-v3}
learners: {num_learners: 1}
runners: {num_env_runners: 16, custom_resources_per_env_runner: {sim: 1}}
"""

CHANGED = [
    ("aws", "cluster_name:", "cluster_nam:", "did you mean cluster_name?"),
    ("aws", "max_workers: 10", "max_workers: ten", "max_workers: is 'ten'; Ray wants an integer"),
    ("aws", "head_node_type: head", "head_node_type: heads", "allowed are head, learner, sim"),
    ("aws", "min_workers: 0", "min_workers: 3", "min_workers is larger than max_workers"),
    ("aws", "min_workers: 0", "min_worker: 0", "did you mean min_workers?"),
    ("aws", '"sim": 16}', '"sim": 1.5}', "resources.sim: is 1.5; Ray wants an integer"),
    ("aws", "      role: sim", "      role: 5", "labels.role: is 5; Ray wants a string"),
    ("aws", "      role: sim", "      role: -sim", "not a label's value"),
    ("aws", "idle_timeout_minutes: 10", "idle_timeout_minutes: 0", "gives workers back"),
    ("aws", "leray:0.1.0-cuda", "leray:latest", "is not pinned"),
    ("aws", "leray:0.1.0-cuda", "leray:0.0.9-cuda", "LeRay 0.1.0 is installed here"),
    ("gcp", "REPLACE_ME_REGISTRY/leray:0.1.0", "rayproject/ray:2.54.0", "Ray 2.60.0 is installed"),
    ("aws", "--env RAY_AUTH_MODE=token", "--env RAY_AUTH_MODE=disabled", "authentication is off"),
    ("aws", "--env RAY_AUTH_MODE=token", "--env RAY_AUTH_TOKEN=a1b2c3", "in plain sight"),
    ("aws", "--ulimit nofile=65536:65536", "-p 8265:8265", "publishes a port"),
    ("aws", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "opens the dashboard"),
    ("gcp", "--dashboard-host=127.0.0.1", "--dashboard-host '::'", "opens the dashboard"),
    ("onprem", "--dashboard-host=127.0.0.1", "--dashboard-host=10.0.0.4", "opens the dashboard"),
    ("aws", "--dashboard-host=", "--dashbord-host=", "did you mean dashboard-host?"),
    ("onprem", "type: local", "type: locl", "did you mean local?"),
    ("gcp", "type: gcp", "type: kuberay", "not for `ray up`"),
    ("onprem", "ray[default]==2.60.0", "ray[default]==2.59.1", "write ray==2.60.0"),
    ("onprem", "python3.12", "python3.10", "LeRay runs on 3.11 to 3.13"),
    ("onprem", """'{"robot": 1}'""", """'{robot: 1}'""", "is not JSON"),
    ("onprem", """'{"robot": 1}'""", """'{"GPU": 1}'""", "its own option num-gpus"),
    ("onprem", "--labels=role=robot", "--labels=role=a+b", "not a label's value"),
    ("onprem", '"pyproject.toml"\n', '"pyproject.tom"\n', "pyproject.tom: is not there"),
    ("onprem", "~/.ssh/REPLACE_ME_KEY", "~/.ssh/none", "~/.ssh/none: is not there"),
    ("onprem", "REPLACE_ME_SIM_HOST_2", "REPLACE_ME_GPU_HOST", "is the head too"),
    ("onprem", "REPLACE_ME_SIM_HOST_2", "REPLACE_ME_SIM_HOST_1", "is listed twice"),
]

ELSEWHERE = [
    # what is changed, and the line in which the mistake is seen
    ("aws", "idle_timeout_minutes: 10", "", "cluster_name", "idle_timeout_minutes is missing"),
    ("aws", "    - --env RAY_AUTH_MODE=token\n", "", None, "without a token anybody"),
    ("onprem", "    export RAY_AUTH_MODE=token;\n", "", None, "without a token anybody"),
    ("onprem", "  head_ip: REPLACE_ME_GPU_HOST\n", "", "provider:", "head_ip is missing"),
    ("onprem", '  "~/.ray/auth_token": "~/.ray/auth_token"\n', "", "file_mounts:", "the token"),
    ("aws", "    --autoscaling-config=~/ray_bootstrap_config.yaml\n", "", None, "does not scale"),
    (
        "aws",
        "max_workers: 2",
        "max_workers: 2\n    max_workers: 3",
        "max_workers: 3",
        "is there twice",
    ),
    (
        "aws",
        "      InstanceType: m6i.xlarge\n",
        "      InstanceType: m6i.xlarge\n      InstanceMarketOptions: {MarketType: spot}\n",
        "m6i.xlarge",
        "the head on a spot machine",
    ),
    (
        "gcp",
        "      machineType: e2-standard-4\n",
        "      machineType: e2-standard-4\n      scheduling: {provisioningModel: SPOT}\n",
        "e2-standard-4",
        "the head on a spot machine",
    ),
    (
        "aws",
        "  cache_stopped_nodes: false\n",
        "  cache_stopped_nodes: false\n  security_group:\n    IpPermissions:\n"
        "      - {FromPort: 8265, ToPort: 8265, IpProtocol: tcp,\n"
        "         IpRanges: [{CidrIp: 0.0.0.0/0}]}\n",
        "CidrIp",
        "open to the whole internet",
    ),
    (
        "gcp",
        "  - sudo mkdir -p /outputs\n",
        "  - gcloud compute firewall-rules create open --source-ranges=0.0.0.0/0\n",
        "firewall-rules",
        "open to the whole internet",
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "reason"), CHANGED)
def test_a_mistake_is_found_in_its_line(vary, name, old, new, reason):
    variant = vary(f"{name}.yaml", old, new)
    found = [each.line for each in variant.findings.errors if reason in each.message]
    assert found == [variant.changed], variant.findings.text()


@pytest.mark.parametrize(("name", "old", "new", "where", "reason"), ELSEWHERE)
def test_a_mistake_is_found_where_it_belongs(vary, name, old, new, where, reason):
    variant = vary(f"{name}.yaml", old, new)
    errors = [each for each in variant.findings.errors if reason in each.message]
    assert errors, variant.findings.text()
    lines = variant.file.read_text().splitlines()
    seen = lines[errors[0].line - 1]
    if where is not None:
        assert where in seen or where in lines[errors[0].line - 2], seen
    else:
        assert seen.strip() == "- >-", seen
    assert re.search(r"; |, ", errors[0].message), "says what to do"


def test_the_exit_code_and_the_form_of_a_line(vary, capsys):
    variant = vary("aws.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0")
    assert main(["cluster", "check", str(variant.file)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{variant.file}:{variant.changed}: --dashboard-host=0.0.0.0: ")
    assert printed[-1].startswith(f"{variant.file}: 1 to mend, ")
    assert main(["cluster", "check", f"--file={variant.file}"]) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cluster_name: x\nprovider: {type: local\n", ":3: not readable as YAML"),
        ("- 1\n- 2\n", ":1: neither a file of `ray up`"),
        ("# nothing\n", ":1: holds nothing"),
        ("a: &a [*a]\n", "not readable as YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", ":1: not readable as YAML"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(tmp_path, capsys, text, reason):
    file = tmp_path / "file.yaml"
    file.write_text(text)
    assert main(["cluster", "check", str(file)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert reason in printed.err
    assert printed.err.count("\n") == 1
    assert main(["cluster", "check", str(tmp_path / "none.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_aliases_of_aliases_are_no_bomb(tmp_path, capsys):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    file = tmp_path / "file.yaml"
    file.write_text("\n".join(lines))
    assert main(["cluster", "check", str(file)]) == 2
    assert "more than 20000 values" in capsys.readouterr().err


def test_a_second_document_is_too_much_for_ray_up(vary):
    variant = vary("aws.yaml", "idle_timeout_minutes: 10", "idle_timeout_minutes: 10")
    variant.file.write_text(variant.file.read_text() + "---\ncluster_name: b\n")
    errors = check_file(variant.file).errors
    last = len(variant.file.read_text().splitlines())
    assert any(each.line == last and "second document" in each.message for each in errors)


@pytest.fixture
def training(tmp_path):
    def write(**changes):
        config = yaml.safe_load(TRAINING)
        for key, value in changes.items():
            config[key].update(value)
        file = tmp_path / "train.yaml"
        file.write_text(yaml.safe_dump(config))
        return file

    return write


RUNS = [
    ("aws", {}, None),
    ("onprem", {}, None),
    ("raycluster", {}, None),
    (
        "aws",
        {"runners": {"custom_resources_per_env_runner": {"robot": 1}}},
        "16 runners ask for 1 CPU, 1 robot each, no type of node has any",
    ),
    (
        "raycluster",
        {"runners": {"custom_resources_per_env_runner": {"robot": 1}}},
        "no type of node has any; add robot",
    ),
    (
        "onprem",
        {"runners": {"custom_resources_per_env_runner": {"camera_rig": 1}}},
        "no type of node has any; add camera_rig",
    ),
    (
        "onprem",
        {"runners": {"custom_resources_per_env_runner": {"robot": 2}}},
        "the largest node has 1",
    ),
    ("aws", {"learners": {"num_gpus_per_learner": 4}}, "4 GPU each, the largest node has 1"),
    ("aws", {"learners": {"num_learners": 3}}, "asks for 3 GPU, all nodes together have 2"),
    ("aws", {"learners": {"num_learners": 0}}, "on the head, which has no GPU"),
    (
        "aws",
        {"runners": {"num_env_runners": 100, "num_cpus_per_env_runner": 2}},
        "asks for 201 CPU, all nodes together have 144",
    ),
    (
        "raycluster",
        {"learners": {"labels": {"role": "learners"}}},
        "no type of node has these labels",
    ),
    (
        "aws",
        {
            "runners": {
                "num_env_runners": 0,
                "custom_resources_per_env_runner": {},
                "groups": [
                    {"name": "sims", "num_env_runners": 4, "labels": {"role": "sim"}},
                    {"name": "arm", "resources": {"robot": 1}},
                ],
            }
        },
        "1 runners of group arm ask for 1 CPU, 1 robot each, no type of node has any",
    ),
    (
        "aws",
        {"learners": {"labels": {"role": "sim"}}},
        "each on one node, and no type of node has all of it",
    ),
]


@pytest.mark.parametrize(("name", "changes", "reason"), RUNS)
def test_a_training_run_that_does_not_fit_is_told(vary, training, name, changes, reason):
    train_config = training(**changes)
    variant = vary(f"{name}.yaml", "leray", "leray", train_config=train_config)
    errors = variant.findings.errors
    if reason is None:
        assert errors == []
        return
    assert len(errors) == 1, variant.findings.text()
    assert reason in errors[0].message
    assert str(train_config) in errors[0].message
    where = {
        "aws": "available_node_types:",
        "onprem": "worker_start_ray_commands:",
        "raycluster": "workerGroupSpecs:",
    }
    lines = variant.file.read_text().splitlines()
    assert lines[errors[0].line - 1].strip() == where[name]


NOTES = [
    ("aws", "idle_timeout_minutes: 10", "idle_timeout_minutes: 90", "paid for 90 minutes"),
    ("gcp", "type: gcp", "type: azure", "its own settings are not looked at"),
    ("onprem", "~/.ssh/REPLACE_ME_KEY", "~/.ssh/REPLACE_ME_OTHER", "placeholder ~/.ssh/REPLACE"),
]


@pytest.mark.parametrize(("name", "old", "new", "reason"), NOTES)
def test_what_stops_nothing_is_a_note(vary, name, old, new, reason):
    variant = vary(f"{name}.yaml", old, new)
    assert variant.findings.errors == []
    noted = [each.line for each in variant.findings.notes if reason in each.message]
    assert noted == [variant.changed]


def test_a_head_of_the_workers_kind_counts_once_more(vary, training):
    variant = vary("aws.yaml", "head_node_type: head", "head_node_type: sim")
    spot = "      InstanceMarketOptions:\n        MarketType: spot\n"
    variant.file.write_text(variant.file.read_text().replace(spot, ""))
    nine = {"runners": {"num_env_runners": 9 * 16, "num_cpus_per_env_runner": 0.1}}
    assert check_file(variant.file, train_config=training(**nine)).errors == [], "8 and the head"
    nine["runners"]["num_env_runners"] += 1
    (error,) = check_file(variant.file, train_config=training(**nine)).errors
    assert "asks for 145 sim, all nodes together have 144" in error.message


def test_a_security_group_of_ray_is_noted(vary):
    group = "      SecurityGroupIds: [REPLACE_ME_SECURITY_GROUP]\n"
    variant = vary("aws.yaml", group, "")
    (note,) = [each for each in variant.findings.notes if "opens SSH" in each.message]
    assert variant.file.read_text().splitlines()[note.line - 1] == "    node_config:"
    assert note.message.startswith("head: ")
