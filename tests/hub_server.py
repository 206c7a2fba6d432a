"""A stand-in for the API of a Hugging Face hub: repositories in memory, on a port of this machine."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secret"


@dataclass
class Repo:
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        held = dict(self.commits.get(self.branches.get(branch, ""), {})) | files
        said = [str(len(self.commits)), *(f"{name}:{hashlib.sha1(data).hexdigest()}" for name, data in sorted(held.items()))]
        sha = hashlib.sha1("\n".join(said).encode()).hexdigest()
        self.branches[branch], self.commits[sha] = sha, held
        return sha

    def sha(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Hub:
    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)

    def make(self, name: str, files: dict[str, bytes], *, private: bool = False) -> Repo:
        repo = self.repos[name] = Repo(private)
        repo.commit("main", files)
        return repo


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/").split("/")
        if path[:2] == ["api", "models"]:
            self._describe("/".join(path[2:4]), path[4:])
        elif path[2:3] == ["resolve"]:
            self._resolve("/".join(path[:2]), path[3], "/".join(path[4:]))
        else:
            self._answer(404, {"error": "not found"})

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        self.hub.blobs[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, {})

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path).strip("/").split("/"), self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid credentials"})
        elif path == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif path == ["api", "validate-yaml"]:
            self._answer(200, {"errors": [], "warnings": []})
        elif path[2:] == ["info", "lfs", "objects", "batch"]:
            self._batch(json.loads(body))
        else:
            self._change(self.hub.repos["/".join(path[2:4])], path[4], "/".join(path[5:]), body)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            self._answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
            return
        self.hub.make(name, {".gitattributes": b""}, private=asked.get("visibility") == "private" or asked.get("private") is True)
        self._answer(200, {"url": f"{self.hub.url}/{name}"})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [{**each, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}} for each in asked["objects"]]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _change(self, repo: Repo, kind: str, branch: str, body: bytes) -> None:
        if kind == "branch":
            repo.branches.setdefault(branch, repo.branches["main"])
            self._answer(200, {})
        elif kind == "preupload":
            self.hub.sent += [file["path"] for file in json.loads(body)["files"]]
            modes = [("lfs" if file["path"].endswith(".safetensors") else "regular", file["path"]) for file in json.loads(body)["files"]]
            self._answer(200, {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for mode, name in modes]})
        else:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {each["value"]["path"]: base64.b64decode(each["value"]["content"]) for each in lines if each["key"] == "file"}
            files |= {each["value"]["path"]: self.hub.blobs[each["value"]["oid"]] for each in lines if each["key"] == "lfsFile"}
            sha = repo.commit(branch, files)
            name = next(name for name, other in self.hub.repos.items() if other is repo)
            self._answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})

    def _found(self, name: str, revision: str) -> tuple[Repo, str] | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self._answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        sha = repo.sha(revision)
        if sha is None:
            self._answer(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repo, sha

    def _describe(self, name: str, rest: list[str]) -> None:
        found = self._found(name, "/".join(rest[1:]) or "main")
        if found is None:
            return
        repo, sha = found
        if rest[:1] == ["tree"]:
            self._answer(
                200, [{"type": "file", "path": p, "size": len(d), "oid": hashlib.sha1(d).hexdigest()} for p, d in repo.commits[sha].items()]
            )
            return
        siblings = [{"rfilename": path} for path in sorted(repo.commits[sha])]
        self._answer(200, {"id": name, "modelId": name, "sha": sha, "private": repo.private, "siblings": siblings, "tags": []})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        found = self._found(name, revision)
        if found is None:
            return
        repo, sha = found
        data = repo.commits[sha].get(path)
        if data is None:
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        if self.command == "GET":
            self.hub.downloads.append(path)
        self._send(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": sha})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers until the `with` ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
