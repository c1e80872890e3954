"""A hub of Hugging Face's kind on the loopback address, as far as huggingface_hub asks it."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """What it has, and what happened.

    repositories: "owner/name" -> file name -> content. listed: what it says that it has, if not
    that. breaks: how often to break off in the middle of a file. cuts: after how many bytes to
    break off, an answer each. stall: after how many bytes to fall silent, until `go_on` is set.
    ranges: whether parts of files are given. store: address of another server that has the files.
    refused: names of files that are not given. requests: method and path of each. sent: bytes of
    files.
    """

    repositories: dict[str, dict[str, bytes]]
    url: str = ""
    breaks: int = 0
    cuts: list[int] = field(default_factory=list)
    stall: int | None = None
    go_on: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    ranges: bool = True
    store: str = ""
    sent: int = 0
    listed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def commit(self, repository: str) -> str:
        return hashlib.sha1(repository.encode()).hexdigest()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def missing(self, code: str) -> None:
            self.answer(404, b"{}", {"X-Error-Code": code, "X-Error-Message": "not here"})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            hub.tokens.append(self.headers.get("Authorization"))
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self.describe("/".join(parts[2:4]), parts[4:])
            elif len(parts) > 4 and parts[2] == "resolve":
                self.send_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            else:
                self.missing("EntryNotFound")

        def describe(self, repository: str, rest: list[str]) -> None:
            files = hub.listed.get(repository, hub.repositories.get(repository))
            if files is None:
                return self.missing("RepoNotFound")
            commit = hub.commit(repository)
            if len(rest) > 1 and rest[1] not in ("main", "v1", commit):
                return self.missing("RevisionNotFound")
            listed = [
                {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for n, d in files.items()
            ]
            names = [{"rfilename": n, "size": len(d)} for n, d in files.items()]
            about = {"id": repository, "sha": commit, "siblings": names, "private": False}
            found: object = listed if rest[:1] == ["tree"] else about
            self.answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

        def send_file(self, repository: str, revision: str, name: str) -> None:
            data = hub.repositories.get(repository, {}).get(name)
            if data is None:
                return self.missing("EntryNotFound")
            headers = {
                "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
                "X-Repo-Commit": hub.commit(repository),
                "Accept-Ranges": "bytes",
            }
            if hub.store:
                headers |= {"Location": hub.store + self.path, "X-Linked-Size": str(len(data))}
                return self.answer(302, b"", headers)
            if self.command == "HEAD":
                return self.answer(200, data, headers)
            if name in hub.refused:
                return self.answer(403, b"{}", {"X-Error-Message": "enough"})
            start, status = 0, 200
            if (wanted := self.headers.get("Range")) and hub.ranges:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, status = int(first), 206
                end = int(last) + 1 if last else len(data)
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
                data = data[:end]
            body = data[start:]
            left = len(body)
            if hub.breaks:
                hub.breaks -= 1
                left //= 2
            elif hub.cuts:
                left = min(hub.cuts.pop(0), left)
            elif hub.stall is not None:
                left = min(hub.stall, left)
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[:left])
            hub.sent += left
            if left < len(body):
                self.wfile.flush()
                if hub.stall is not None:
                    hub.stalled.set()
                    hub.go_on.wait(60)
                self.close_connection = True
                self.connection.shutdown(2)

    return Handler


@contextlib.contextmanager
def serve(repositories: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """A hub that runs while the block does."""
    hub = Hub(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
