"""The commands of a `ray up` file that start Ray: token, dashboard, resources, labels."""

import re

from leray.platform.cluster_check.common import label_problem
from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.findings import Findings
from leray.platform.cluster_check.shell import RayStart, command_words, ray_starts
from leray.platform.cluster_check.start_options import option_problem

_HEAD, _WORKERS = "head_start_ray_commands", "worker_start_ray_commands"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MODE = "RAY_AUTH_MODE"
_MODES = re.compile(rf"{_MODE}=[\"']?(\w+)")


def check_start_commands(document: Entry, findings: Findings) -> None:
    """Check how Ray is started on the head and on the workers."""
    for key in (_HEAD, _WORKERS):
        commands = document[key]
        if not commands:
            findings.error(
                commands,
                f"{key} is missing, and Ray's own have no token and may open the dashboard to "
                "everyone; write them out",
            )
            continue
        starts = starts_in(commands, findings)
        if not starts and commands.elements:
            findings.error(commands, f"{key}: no `ray start` in it; add one")
        for start in starts:
            _check_start(start, findings, is_head=key == _HEAD)
            _check_mode(start, document, findings)
    if document["provider"]["type"].value != "local" and document[_HEAD]:
        _check_autoscaling(document[_HEAD], findings)
    _check_token(document, findings)
    _check_ports(document["docker"], findings)


def starts_in(commands: Entry, findings: Findings | None = None) -> list[RayStart]:
    """Return the `ray start` commands of a list of shell lines."""
    return [start for entry in commands.elements for start in ray_starts(entry, findings)]


def _check_start(start: RayStart, findings: Findings, *, is_head: bool) -> None:
    options = start.options
    host = options.get("dashboard-host", _LOOPBACK[0])
    if host not in _LOOPBACK:
        findings.error(
            start.line_of("dashboard-host"),
            f"--dashboard-host={host}: opens the dashboard, and with it the cluster, to the "
            "network; use 127.0.0.1 and `ray dashboard`",
        )
    if is_head and "head" not in options:
        findings.error(start.entry, "ray start: the head is not started with --head; add it")
    if not is_head and "head" in options:
        findings.error(start.line_of("head"), "ray start --head on a worker; use --address=")
    if not is_head and "head" not in options and "address" not in options:
        findings.error(
            start.entry, "ray start: does not say which head to join; --address=$RAY_HEAD_IP:6379"
        )
    for name in options:
        problem = option_problem(name)
        if problem:
            findings.error(start.line_of(name), problem)
    start.resources(findings)
    for name, value in start.labels().items():
        problem = label_problem(name, value)
        if problem:
            findings.error(start.line_of("labels"), problem)


def _check_autoscaling(commands: Entry, findings: Findings) -> None:
    for start in starts_in(commands):
        if "autoscaling-config" not in start.options:
            findings.error(
                start.entry,
                "ray start: the head does not scale the cluster; add "
                "--autoscaling-config=~/ray_bootstrap_config.yaml",
            )


def _check_mode(start: RayStart, document: Entry, findings: Findings) -> None:
    """Check that Ray is started with token authentication."""
    entries = [*document["docker"]["run_options"].elements, start.entry]
    modes = {mode: each for each in entries for mode in _MODES.findall(each.text)}
    if not modes:
        findings.error(
            start.entry,
            f"ray start: without a token anybody who reaches a port may run code; put "
            f"`export {_MODE}=token;` before it, or `--env {_MODE}=token` in docker's run_options",
        )
    for mode, entry in modes.items():
        if mode != "token":
            line = entry.line_of(f"{_MODE}={mode}", _MODE)
            findings.error(line, f"{_MODE}={mode}: authentication is off; write {_MODE}=token")


def _check_token(document: Entry, findings: Findings) -> None:
    """Check that the token gets to the nodes."""
    mounts = document["file_mounts"]
    if any(remote.rstrip("/").endswith("/.ray/auth_token") for remote in mounts.mapping):
        return
    wanted = [
        word.partition("=")[2]
        for entry in document.walk()
        if "RAY_AUTH_TOKEN_PATH=" in entry.text
        for word in command_words(entry.text)
        if word.startswith("RAY_AUTH_TOKEN_PATH=")
    ]
    if any(path.startswith(remote.rstrip("/")) for path in wanted for remote in mounts.mapping):
        return
    findings.error(
        mounts,
        'file_mounts: the token does not get to the nodes; add "~/.ray/auth_token": '
        '"~/.ray/auth_token", with the home of the user who starts Ray before the first',
    )


def _check_ports(docker: Entry, findings: Findings) -> None:
    """Check that containers publish no ports; they share the network of their host anyway."""
    options = [
        each
        for key in ("run_options", "head_run_options", "worker_run_options")
        for each in docker[key].elements
    ]
    for option in options:
        words = command_words(option.text)
        if words and (words[0] in ("-p", "-P") or words[0].startswith("--publish")):
            findings.error(
                option,
                f"{option.text}: publishes a port of the container; drop it, and use `ray "
                "dashboard` or an SSH tunnel",
            )
