import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from leray.cli import COMMANDS
from leray.platform.parsing import parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORTER = {
    "train": ["--steps=400", "--eval.n_episodes=2", "--eval.max_episodes_rendered=0"],
    "eval": ["--eval.n_episodes=2", "--eval.max_episodes_rendered=0"],
    "record": [],
}


def commands(page: Path) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("leray ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_understood(page, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    found = commands(page)
    assert found, f"{page} shows no command"
    for _, name, *options in found:
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
        for _, name, *options in commands(page):
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
