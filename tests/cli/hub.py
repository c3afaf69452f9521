"""A stand-in for the Hugging Face hub's HTTP API on this machine: as much of it as an upload and a download need."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

from huggingface_hub import ModelCard

TOKEN, COMMIT = "hf_stand_in", "c" * 40


class Hub(http.server.ThreadingHTTPServer):
    """repositories: name → whether it is private. files: repository's name → path → content. asked: what it was asked
    for. refuse: status to answer every upload with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.refuse = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def stand_in() -> Iterator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        self.server.asked.append(self.path)

    def _answer(self, status: int, content: Any = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials in Authorization header"})
        if self.path == "/api/validate-yaml":
            metadata = ModelCard(json.loads(body)["content"], ignore_metadata_errors=False).data
            errors = [] if metadata.license else [{"message": "no license"}]
            return self._answer(400 if errors else 200, {"warnings": [], "errors": errors})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.server.repositories:
                return self._answer(409, {"error": "it is there already", "url": f"{self.server.address}/{name}"})
            self.server.repositories[name] = asked.get("visibility") == "private"
            return self._answer(200, {"url": f"{self.server.address}/{name}"})
        name, step = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path).groups()
        if self.server.refuse:
            return self._answer(self.server.refuse, {"error": "the disk of the stand-in is full"})
        if step == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        for line in body.splitlines():
            if (item := json.loads(line))["key"] == "file":
                held = self.server.files.setdefault(name, {})
                held[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
        self._answer(200, {"commitUrl": f"{self.server.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_GET(self) -> None:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)", self.path):
            if match[1] not in self.server.repositories:
                return self._answer(404, {"error": "not found"}, X_Error_Code="RepoNotFound")
            return self._answer(200, {"id": match[1], "private": self.server.repositories[match[1]], "siblings": []})
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        content = self.server.files.get(match[1], {}).get(match[2]) if match else None
        if content is None:
            return self._answer(404, {"error": "not found"}, X_Error_Code="EntryNotFound")
        self._answer(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET
