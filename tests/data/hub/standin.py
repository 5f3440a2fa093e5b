"""A Hub of datasets and models on this machine: the part of its HTTP API that clients call.

Large files are redirected to another host name (`localhost` instead of `127.0.0.1`), as the real
Hub redirects to its storage, where tokens must not be sent.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

READER, WRITER = "hf_reader", "hf_writer"
"""Tokens: one may read private repos, the other may write."""
LARGE = (".parquet", ".mp4", ".safetensors")
"""Ends of the names of files that are kept in large-file storage."""
LICENSES = ("apache-2.0", "mit")
PAGE = 7
"""Entries of a file listing per answer."""


@dataclass
class Request:
    """What a client asked for."""

    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        parts = "".join(
            f"{name}:{hashlib.sha1(content).hexdigest()}" for name, content in files.items()
        )
        number = hashlib.sha1(f"{len(self.commits)} {parts}".encode()).hexdigest()
        self.commits[number] = dict(files)
        self.branches[branch] = number
        return number

    def find(self, revision: str) -> str | None:
        named = self.branches.get(revision) or self.tags.get(revision)
        return named or (revision if revision in self.commits else None)

    def head(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Clients of these tests hang up at will."""


class RefusalError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class Hub:
    """The server's content and its log; used as a context manager around the server's life."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.storage: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.refuse: Callable[[Request], RefusalError | None] = lambda request: None
        """Called for each request; what it returns is answered instead."""
        self.cut: dict[str, int] = {}
        """Files whose next download ends after so many bytes."""
        self.stall: set[str] = set()
        """Files whose download stops half way and hangs."""
        self.stalled = threading.Event()
        self.closing = threading.Event()
        self.url = ""

    @contextmanager
    def serve(self) -> Iterator["Hub"]:
        handler = type("Bound", (Handler,), {"hub": self})
        server = Server(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            self.closing.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def add(self, repo_id: str, files: dict[str, bytes], *, tag: str | None = None) -> Repo:
        """Put a dataset or model there without any upload."""
        repo = self.repos.setdefault(repo_id, Repo())
        commit = repo.commit("main", files)
        if tag is not None:
            repo.tags[tag] = commit
        return repo

    def fetched(self) -> list[str]:
        """Names of the files whose content was sent, in order."""
        names = (re.search(r"/(?:resolve/[^/]+|storage/[^/]+)/(.+)", r.path) for r in self.gets())
        return [unquote(match[1]) for match in names if match]

    def gets(self) -> list[Request]:
        """Requests for a file's content that were not merely redirected."""
        found = (r for r in self.requests if r.method == "GET")
        return [
            r
            for r in found
            if "/storage/" in r.path or ("/resolve/" in r.path and not r.path.endswith(LARGE))
        ]


def is_large(name: str) -> bool:
    return name.endswith(LARGE)


def oid(name: str, content: bytes) -> str:
    """The id of a file's content: SHA-256 in large-file storage, else that of a git blob."""
    if is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def handle_one(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        self.query = parse_qs(url.query)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        request = Request(self.command, url.path, self.headers.get("Range"), token)
        self.hub.requests.append(request)
        self.token = token
        try:
            if refusal := self.hub.refuse(request):
                raise refusal
            for method, pattern, answer in ROUTES:
                if (match := re.fullmatch(pattern, url.path)) and self.command in method:
                    answer(
                        self, **{key: unquote(value) for key, value in match.groupdict().items()}
                    )
                    return
            raise RefusalError(404, message=f"no such route: {self.command} {url.path}")
        except RefusalError as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self.answer({"error": refusal.message}, refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815

    def answer(
        self, value: object = None, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        content = json.dumps(value if value is not None else {}).encode()
        self.send_response(status)
        for name, text in ({"Content-Type": "application/json"} | (headers or {})).items():
            if text:
                self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def repo(self, name: str) -> Repo:
        if self.token not in (None, READER, WRITER):
            raise RefusalError(401, message="Invalid credentials in Authorization header")
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.token is None):
            raise RefusalError(401, "RepoNotFound", "Repository not found")
        return repo

    def readable(self, name: str) -> Repo:
        repo = self.repo(name)
        if repo.gated and self.token is None:
            raise RefusalError(403, "GatedRepo", "Access is restricted")
        return repo

    def commit_id(self, repo: Repo, revision: str) -> str:
        if (found := repo.find(revision)) is None:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def writable(self, name: str) -> Repo:
        repo = self.repo(name)
        if self.token != WRITER:
            raise RefusalError(403, message="You don't have the rights")
        return repo

    # ---- reading

    def refs(self, name: str) -> None:
        repo = self.repo(name)
        self.answer(
            {
                "branches": [
                    {"name": n, "ref": f"refs/heads/{n}", "targetCommit": c}
                    for n, c in repo.branches.items()
                ],
                "tags": [
                    {"name": n, "ref": f"refs/tags/{n}", "targetCommit": c}
                    for n, c in repo.tags.items()
                ],
                "converts": [],
            }
        )

    def info(self, name: str, revision: str = "main") -> None:
        repo = self.repo(name)
        commit = self.commit_id(repo, revision)
        siblings = [{"rfilename": path} for path in repo.commits[commit]]
        self.answer(
            {
                "id": name,
                "sha": commit,
                "private": repo.private,
                "gated": False,
                "downloads": 0,
                "tags": [],
                "siblings": siblings,
            }
        )

    def tree(self, name: str, revision: str, folder: str = "") -> None:
        repo = self.readable(name)
        files = repo.commits[self.commit_id(repo, revision)]
        folders = {
            "/".join(path.split("/")[:end])
            for path in files
            for end in range(1, path.count("/") + 1)
        }
        entries: list[dict] = [
            {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
            for path in sorted(folders)
        ]
        for path, content in sorted(files.items()):
            entry = {
                "type": "file",
                "path": path,
                "oid": hashlib.sha1(content).hexdigest(),
                "size": len(content),
            }
            if is_large(path):
                entry["lfs"] = {"oid": oid(path, content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        start = int(self.query.get("cursor", ["0"])[0])
        page = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={start + PAGE}"
        more = f'<{page}>; rel="next"'
        self.answer(
            entries[start : start + PAGE],
            headers={"Link": more if start + PAGE < len(entries) else ""},
        )

    def resolve(self, name: str, revision: str, path: str) -> None:
        repo = self.readable(name)
        commit = self.commit_id(repo, revision)
        content = repo.commits[commit].get(path)
        if content is None:
            raise RefusalError(404, "EntryNotFound", "Entry not found")
        etag = oid(path, content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}
        if is_large(path):
            self.hub.storage[etag] = content
            port = urlsplit(self.hub.url).port
            headers |= {
                "X-Linked-Etag": f'"{etag}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"http://localhost:{port}/storage/{etag}/{path}",
            }
            self.answer(status=302, headers=headers)
        else:
            self.send_content(path, content, headers)

    def stored(self, digest: str, path: str) -> None:
        if self.token is not None:
            raise RefusalError(400, message="tokens must not be sent to storage")
        self.send_content(path, self.hub.storage[digest], {"ETag": f'"{digest}"'})

    def send_content(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if start else 200)
        part = content[start:]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        for key, value in {
            **headers,
            "Content-Length": str(len(part)),
            "Accept-Ranges": "bytes",
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if path in self.hub.stall:
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.hub.stalled.set()
            self.hub.closing.wait(60)
            self.close_connection = True
            return
        if path in self.hub.cut:
            self.wfile.write(part[: self.hub.cut.pop(path)])
            self.close_connection = True
            return
        self.wfile.write(part)

    # ---- writing

    def create(self) -> None:
        wanted = json.loads(self.body)
        name = f"{wanted['organization'] or 'somebody'}/{wanted['name']}"
        url = {"url": f"{self.hub.url}/datasets/{name}", "name": name}
        if self.token != WRITER:
            raise RefusalError(401, message="Invalid username or password.")
        if name in self.hub.repos:
            self.answer({**url, "error": "You already created this dataset repo"}, 409)
            return
        private = wanted.get("private") or wanted.get("visibility") == "private"
        self.hub.repos[name] = Repo(private=bool(private))
        self.hub.repos[name].commit("main", {".gitattributes": b"*.parquet filter=lfs\n"})
        self.answer(url)

    def validate_yaml(self) -> None:
        card = json.loads(self.body)["content"]
        found = re.search(r"^license: (.+)$", card, re.MULTILINE)
        if found and found[1] not in LICENSES:
            self.answer(
                {
                    "errors": [{"message": '"license" must be one of apache-2.0, mit'}],
                    "warnings": [],
                },
                400,
            )
            return
        self.answer({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        repo = self.writable(name)
        there = repo.commits[self.commit_id(repo, revision)]
        answers = []
        for wanted in json.loads(self.body)["files"]:
            path = wanted["path"]
            answers.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if is_large(path) else "regular",
                    "shouldIgnore": False,
                    "oid": oid(path, there[path]) if path in there else None,
                }
            )
        self.answer({"files": answers})

    def batch(self, name: str) -> None:
        self.writable(name)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            href = f"{self.hub.url}/upload/{wanted['oid']}"
            new = (
                {} if wanted["oid"] in self.hub.storage else {"actions": {"upload": {"href": href}}}
            )
            objects.append({"oid": wanted["oid"], "size": wanted["size"], **new})
        self.answer({"transfer": "basic", "objects": objects})

    def upload(self, digest: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != digest:
            raise RefusalError(400, message="the content is not what it is called")
        self.hub.storage[digest] = self.body
        self.answer()

    def commit(self, name: str, revision: str) -> None:
        repo = self.writable(name)
        if revision not in repo.branches:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = dict(repo.head(revision))
        for line in self.body.splitlines():
            key, value = (json.loads(line)[part] for part in ("key", "value"))
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.storage[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        number = repo.commit(revision, files)
        self.answer(
            {
                "commitUrl": f"{self.hub.url}/datasets/{name}/commit/{number}",
                "commitOid": number,
                "success": True,
            }
        )

    def branch(self, name: str, branch: str) -> None:
        repo = self.writable(name)
        if branch in repo.branches:
            raise RefusalError(409, message="Reference already exists")
        repo.branches[branch] = repo.branches["main"]
        self.answer()

    def tag(self, name: str, revision: str) -> None:
        repo = self.writable(name)
        tag = json.loads(self.body)["tag"]
        if tag in repo.tags:
            raise RefusalError(409, message="Tag reference exists already")
        repo.tags[tag] = self.commit_id(repo, revision)
        self.answer()

    def delete_tag(self, name: str, tag: str) -> None:
        if self.writable(name).tags.pop(tag, None) is None:
            raise RefusalError(404, "RevisionNotFound", f"Tag {tag} not found")
        self.answer()


KIND = "(?:datasets|models)"
REPO = r"(?P<name>[^/]+/[^/]+)"
ROUTES: list[tuple[tuple[str, ...], str, Callable]] = [
    (("GET",), rf"/api/datasets/{REPO}/refs", Handler.refs),
    (("GET",), rf"/api/{KIND}/{REPO}", Handler.info),
    (("GET",), rf"/api/{KIND}/{REPO}/revision/(?P<revision>[^/]+)", Handler.info),
    (("GET",), rf"/api/{KIND}/{REPO}/tree/(?P<revision>[^/]+)/?", Handler.tree),
    (
        ("GET", "HEAD"),
        rf"(?:/datasets)?/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        Handler.resolve,
    ),
    (("GET",), r"/storage/(?P<digest>[^/]+)/(?P<path>.+)", Handler.stored),
    (("POST",), r"/api/repos/create", Handler.create),
    (("POST",), r"/api/validate-yaml", Handler.validate_yaml),
    (("POST",), rf"/api/datasets/{REPO}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    (("POST",), r"/datasets/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.batch),
    (("PUT",), r"/upload/(?P<digest>[0-9a-f]{64})", Handler.upload),
    (("POST",), rf"/api/datasets/{REPO}/commit/(?P<revision>[^/]+)", Handler.commit),
    (("POST",), rf"/api/datasets/{REPO}/branch/(?P<branch>[^/]+)", Handler.branch),
    (("POST",), rf"/api/datasets/{REPO}/tag/(?P<revision>[^/]+)", Handler.tag),
    (("DELETE",), rf"/api/datasets/{REPO}/tag/(?P<tag>[^/]+)", Handler.delete_tag),
]
