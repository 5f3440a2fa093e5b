"""The launch files of this repository pass, and name the versions that are pinned."""

import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import yaml

import leray
from leray.cli import main
from leray.platform.cluster_check.check import check_file
from leray.platform.cluster_check.schema import ray_schema
from leray.platform.cluster_check.start_options import start_options
from leray.platform.cluster_check.versions import _SUPPORTED, ray_version

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ROOT / "cluster"
TRAIN = CLUSTER / "train.yaml"
FILES = sorted(file for file in CLUSTER.glob("*.yaml") if file != TRAIN)
PINNED_RAY = "2.60.0"
"""The Ray whose private launcher functions `schema.py` was written against."""


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line)


def test_all_kinds_of_clusters_are_there():
    names = {file.stem for file in FILES}
    assert names == {"aws", "gcp", "onprem", "outputs-claim", "raycluster", "rayjob"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_launch_file_passes_with_notes_for_its_placeholders(file, home):
    findings = check_file(file)
    assert findings.errors == []
    lines = file.read_text().splitlines()
    noted = {each.line for each in findings.notes if "placeholder" in each.message}
    values = [
        number
        for number, line in enumerate(lines, 1)
        if "REPLACE_ME" in line and not line.lstrip().startswith("#")
    ]
    assert noted == set(values)
    assert noted, "something in it is yours to fill in"


@pytest.mark.parametrize("name", ["aws", "gcp", "raycluster"])
def test_the_training_run_fits(name, home, capsys):
    assert (
        main(["cluster", "check", f"cluster/{name}.yaml", "--train_config=cluster/train.yaml"]) == 0
    )
    assert "nothing to mend" in capsys.readouterr().out


def test_versions_are_those_of_the_constraints():
    assert version("ray") == ray_version() == pins()["ray"]
    for file in FILES:
        text = file.read_text()
        for found in re.findall(r"ray(?:\[\w+\])?==([\d.]+)", text):
            assert found == pins()["ray"], file
        for found in re.findall(r'rayVersion: "([\d.]+)"', text):
            assert found == pins()["ray"], file
        for found in re.findall(r"/leray:([\d.]+)", text):
            assert found == leray.__version__, file


def test_the_dockerfile_takes_its_versions_from_the_constraints():
    text = (CLUSTER / "Dockerfile").read_text()
    installs = re.findall(r"pip install((?:[^\n]|\\\n)*)", text.replace("\\\n", " "))
    assert len(installs) == 2
    for line in installs:
        assert "--constraint /opt/leray/constraints.txt" in line
    assert "==" not in text, "a version of its own would contradict the constraints one day"
    tags = re.findall(r"--tag leray:([\d.]+)", text)
    assert set(tags) == {leray.__version__}
    python = re.search(r"ARG PYTHON_VERSION=3\.(\d+)", text)
    assert int(python[1]) in _SUPPORTED
    assert f"python3.{python[1]}" in (CLUSTER / "onprem.yaml").read_text()
    assert re.findall(r"^USER (\w+)", text, re.MULTILINE) == ["ray"]
    allowed = (CLUSTER / "Dockerfile.dockerignore").read_text().split()
    copied = " ".join(re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)).split()
    assert {f"!{name}" for name in copied} == {name for name in allowed if name.startswith("!")}


def test_supported_pythons_are_those_of_the_package():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == f">=3.{_SUPPORTED.start},<3.{_SUPPORTED.stop}"


def test_private_functions_of_ray_are_as_they_were():
    """A new Ray: look at `schema.py` again, then move the version here."""
    from ray.autoscaler._private import util

    assert version("ray") == PINNED_RAY
    assert list(inspect.signature(util.prepare_config).parameters) == ["config"]
    assert list(inspect.signature(util.validate_config).parameters) == ["config"]
    assert {"head", "address", "resources", "labels", "dashboard-host"} <= start_options()


def test_the_schema_is_the_one_that_ray_uses(home):
    from ray.autoscaler._private.util import prepare_config

    jsonschema.Draft7Validator.check_schema(ray_schema())
    prepared = prepare_config(yaml.safe_load((CLUSTER / "aws.yaml").read_text()))
    jsonschema.validate(prepared, ray_schema())


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_ray_counts_on_kubernetes_what_the_check_counts(name):
    from ray.autoscaler._private.kuberay import autoscaling_config

    from leray.platform.cluster_check.documents import read_documents
    from leray.platform.cluster_check.kuberay import RayManifest, fleet_of_cluster

    (document,) = read_documents(CLUSTER / f"{name}.yaml", lambda line, name: None)
    cluster = RayManifest(document).cluster
    counted = autoscaling_config._generate_available_node_types_from_ray_cr_spec(cluster.value)
    for each, theirs in zip(fleet_of_cluster(cluster).types, counted.values(), strict=True):
        ours = {key: amount for key, amount in each.resources.items() if amount and key != "memory"}
        wanted = {
            k: amount for k, amount in theirs["resources"].items() if amount and k != "memory"
        }
        assert ours == wanted
        assert dict(each.labels) == theirs["labels"]


def test_a_missing_token_is_a_note_that_says_how_to_make_one(home):
    (home / ".ray" / "auth_token").unlink()
    findings = check_file(CLUSTER / "aws.yaml")
    assert findings.errors == []
    notes = [each.message for each in findings.notes if "get-auth-token --generate" in each.message]
    assert len(notes) == 1
