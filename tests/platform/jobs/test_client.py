"""Ray's own client against a job server that answers as wished, over HTTP."""

import http.server
import json
import threading
from collections.abc import Iterator

import pytest
import ray

from leray.cli import main
from leray.errors import ConfigError, LerayError
from leray.platform.jobs import client
from leray.platform.jobs.client import connect, plain_errors

NOT_READY = (500, "No available agent to submit job, please try again later.")
VERSION = {"version": "4", "ray_version": ray.__version__, "session_name": "session_of_nobody"}
NODES = {"data": {"summary": [{"raylet": {"state": state}} for state in ("ALIVE", "DEAD")]}}


class Answers(http.server.BaseHTTPRequestHandler):
    version = VERSION
    failures: list[str]
    submissions: list[tuple[int, str]]
    received: list[dict]

    def do_GET(self):
        if self.failures:
            self.reply(500, self.failures.pop())
            return
        answer = {"/api/version": self.version, "/nodes?view=summary": NODES}[self.path]
        self.reply(200, json.dumps(answer))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(json.loads(body))
        self.reply(*self.submissions.pop(0))

    def reply(self, code, text):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def answers(monkeypatch) -> Iterator[type[Answers]]:
    """What a server says, with its address; `submissions` is to be filled."""
    monkeypatch.setattr(client, "FIRST_PAUSE_S", 0.01)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    kind = type("Kind", (Answers,), {"failures": [], "submissions": [], "received": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        kind.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield kind
        server.shutdown()


def call(answers, *options):
    line = ["submit", f"--address={answers.address}", "--working_dir=null", "--follow=false"]
    return main([*line, *options, "--", "info"])


def test_a_cluster_that_is_not_ready_is_asked_again(answers, capsys):
    done = json.dumps({"job_id": "me", "submission_id": "me"})
    answers.failures = ["not yet", "not yet"]
    answers.submissions = [NOT_READY, NOT_READY, (200, done)]
    assert call(answers, "--env.A=1", "--entrypoint_num_cpus=2", "--submission_id=me") == 0
    assert "job me is submitted" in capsys.readouterr().out
    assert answers.submissions == []
    request = answers.received[-1]
    assert request["entrypoint"] == "python -m leray info"
    assert request["entrypoint_num_cpus"] == 2
    assert request["submission_id"] == "me"
    assert request["runtime_env"]["env_vars"] == {"A": "1", "RAY_JOB_STOP_WAIT_TIME_S": "600"}
    assert request["metadata"] == {"leray_command": "info"}


def test_it_is_not_asked_for_ever(answers, capsys, monkeypatch):
    monkeypatch.setattr(client, "READY_WITHIN_S", 0.0)
    answers.submissions = [NOT_READY] * 9
    assert call(answers) == 2
    assert "No available agent to submit job" in capsys.readouterr().err


def test_what_a_server_fails_with_is_one_line(answers, capsys):
    answers.submissions = [(500, "Traceback:\n  File x\nValueError: no disk\n")]
    assert call(answers) == 2
    printed = capsys.readouterr().err
    assert printed == f"leray submit: error: {answers.address}: ValueError: no disk\n"


def test_another_ray_is_warned_of(answers, capsys):
    answers.version = VERSION | {"ray_version": "2.51.1"}
    connect(answers.address)
    assert f"runs Ray 2.51.1, this machine Ray {ray.__version__}" in capsys.readouterr().err
    answers.version = VERSION
    server = connect(answers.address)
    assert capsys.readouterr().err == ""
    assert server.num_nodes() == 1
    assert not server.is_here()  # though it answers on loopback


def test_what_is_no_job_server_is_said(answers):
    answers.version = {"hello": "world"}
    with pytest.raises(ConfigError, match="does not answer as a Ray job server does"):
        connect(answers.address)


def test_an_error_without_words_has_some():
    said = "a: the server failed and does not say how"
    with pytest.raises(LerayError, match=said), plain_errors("a"):
        raise RuntimeError(" \n")
