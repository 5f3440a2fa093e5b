import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from leray.cli import COMMANDS, main
from leray.platform.parsing import parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS_HUB = ("dataset pull", "dataset push")
SHORTER = {
    "train": ["--steps=400", "--eval.n_episodes=2", "--eval.max_episodes_rendered=0"],
    "eval": ["--eval.n_episodes=2", "--eval.max_episodes_rendered=0"],
    "record": [],
    **{name: [] for name in COMMANDS if name.startswith("dataset ") and name not in NEEDS_HUB},
}


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Return the name of each command that a page shows, and its options."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        if line.startswith("leray "):
            words = shlex.split(line, comments=True)[1:]
            length = 2 if " ".join(words[:2]) in COMMANDS else 1
            found.append((" ".join(words[:length]), words[length:]))
    return found


def programs(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_understood(page, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    found = commands(page)
    assert found, f"{page} shows no command"
    for name, options in found:
        assert name in COMMANDS
        if "--help" in options or "--resume=true" in options or name in ("ui", "info"):
            continue
        module, _, class_name = COMMANDS[name].config.partition(":")
        config_class = getattr(__import__(module, fromlist=[class_name]), class_name)
        parse(config_class, options, command=name)


@pytest.mark.slow
def test_commands_run_in_order(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = []
    for page in PAGES:
        for name, options in commands(page):
            if name not in SHORTER or "--help" in options:
                continue
            line = [name, *options, *SHORTER[name]]
            if "--resume=true" in options:
                line.append("--steps=500")
            if any(option.startswith("--policy.type=sac") for option in options):
                line.append("--policy.online_step_before_learning=100")
            if options in done:
                continue  # a page may repeat the command of another
            done.append(options)
            run = subprocess.run(
                [sys.executable, "-m", "leray", *line],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                env={**__import__("os").environ, "PYTHONPATH": str(ROOT)},
                check=False,
            )
            assert run.returncode == 0, f"leray {shlex.join(line)}\n{run.stderr[-3000:]}"


def test_the_page_on_datasets_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    task = ["--env.type=gym", "--env.task=PandaReach-v3", "--policy.type=expert"]
    assert main(["record", *task, "--dataset.root=demos", "--dataset.num_episodes=5"]) == 0
    page = ROOT / "docs" / "datasets.md"
    for name, options in commands(page):
        if name not in NEEDS_HUB:
            assert main([*name.split(), *options]) == 0, f"{name}: {capsys.readouterr().err}"
    exec(compile(programs(page), str(page), "exec"), {})
    assert main(["dataset", "check", "--root=recorded", "--videos=full"]) == 0
    assert "(64, 20, 3)" in capsys.readouterr().out


def test_the_page_on_clusters_checks_its_files(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    found = commands(ROOT / "docs" / "clusters.md")
    assert {name for name, _ in found} == {"cluster check"}
    for name, options in found:
        assert main([*name.split(), *options]) == 0, capsys.readouterr().out


def test_the_file_of_the_page_on_sweeps_is_understood(tmp_path):
    from leray.tune.config import SweepConfig

    page = (ROOT / "docs" / "sweeps.md").read_text()
    file = tmp_path / "sweep.yaml"
    file.write_text(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    config = parse(SweepConfig, [f"--config_path={file}"], command="sweep")
    assert config.search_space().points() == [{"seed": 0}, {"seed": 1}, {"seed": 2}]


@pytest.mark.ray
def test_the_program_of_the_page_on_imitation_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = ["--env.type=gym", "--env.task=PandaReach-v3"]
    record = ["--policy.type=expert", "--dataset.root=reach", "--dataset.num_episodes=5"]
    assert main(["record", *task, *record]) == 0
    short = ["--steps=20", "--eval.n_episodes=2", "--eval.max_episodes_rendered=0"]
    train = ["--policy.type=bc", "--dataset.root=reach", "--output_dir=outputs/bc"]
    assert main(["train", *task, *train, *short, "--mlflow.enable=false"]) == 0
    page = ROOT / "docs" / "imitation.md"
    names: dict = {}
    exec(compile(programs(page), str(page), "exec"), names)
    assert names["action"].shape == (3,)
