"""Values of YAML files know their lines."""

import pytest

from leray.errors import ConfigError
from leray.platform.cluster_check.documents import read_documents
from leray.platform.cluster_check.shell import ray_starts

TEXT = """\
a: 1
b:
  - x
  - y: |
      one
      two
base: &base {c: 1, d: 2}
merged:
  <<: *base
  d: 3
---
second: yes
"""


@pytest.fixture
def documents(tmp_path):
    def read(text):
        file = tmp_path / "file.yaml"
        file.write_text(text)
        repeated = []
        return read_documents(file, lambda line, name: repeated.append((line, name))), repeated

    return read


def test_values_and_lines(documents):
    (first, second), repeated = documents(TEXT)
    assert first.value["b"] == ["x", {"y": "one\ntwo\n"}]
    assert first.value["merged"] == {"c": 1, "d": 3}
    assert (first["a"].line, first["b"][1]["y"].line) == (1, 4)
    assert first["b"][1]["y"].line_of("two") == 6
    assert first["b"][1]["y"].line_of("three") == 4
    assert (second["second"].value, second["second"].line) == (True, 12)
    assert repeated == []


def test_what_is_missing_has_the_line_of_what_should_hold_it(documents):
    (first, _), _ = documents(TEXT)
    missing = first["b"][7]["z"]
    assert not missing
    assert missing.line == first["b"].line == 2
    assert first["a"]["deeper"].line == 1


def test_keys_that_stand_twice_are_told(documents):
    _, repeated = documents("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    assert sorted(repeated) == [(2, "c"), (3, "a")]


@pytest.mark.parametrize(
    ("text", "line"), [("a: [1\n", 2), ("a: 'x\n", 2), ("a: 1\n b: 2\n", 2), ("[a]: 1\n", 1)]
)
def test_what_is_not_yaml_names_the_line(documents, text, line):
    with pytest.raises(ConfigError, match=f"file.yaml:{line}: not readable as YAML"):
        documents(text)


def test_ray_starts_are_found_in_shell_text(documents):
    command = """\
command: |
  export A=b; case "$(hostname)" in
  robot*) ~/venv/bin/ray start --address=$IP:6379 --resources='{"robot": 1}' --labels=a=b,c=d ;;
  *) ray start --head --num-cpus 4 && echo done
  esac
"""
    ((document,), _) = documents(command)
    robot, head = ray_starts(document["command"])
    assert robot.options == {
        "address": "$IP:6379",
        "resources": '{"robot": 1}',
        "labels": "a=b,c=d",
    }
    assert robot.resources() == {"robot": 1}
    assert robot.labels() == {"a": "b", "c": "d"}
    assert head.options == {"head": "", "num-cpus": "4"}
    assert (robot.line_of("labels"), head.line_of("num-cpus")) == (3, 4)
