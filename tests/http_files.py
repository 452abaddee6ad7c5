"""A file server for the tests: byte ranges, and the faults that a network has.

It runs as a process of its own: rasterio holds Python's lock during some requests, and a thread could not answer.
"""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Faults:
    """What goes wrong, and afterwards what was asked."""

    sound: int = 10**9
    """Requests of bytes that are answered well before the fault sets in."""
    kind: str = ""
    """`drop`: half of the bytes, then the connection is closed; `refuse`: 503; `stall`: nothing comes."""
    times: int = 10**9
    """How many requests are hit."""
    requests: list[str] = field(default_factory=list)
    """Path and range of each."""


@contextmanager
def serve(folder: Path, faults: Faults | None = None) -> Iterator[str]:
    """Serve a folder on a free port of this machine; yields the address."""
    faults = faults or Faults()
    command = [sys.executable, __file__, str(folder), str(faults.sound), faults.kind, str(faults.times)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()
            faults.requests = json.loads(server.stdout.readline())
            server.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    faults: Faults
    lock = threading.Lock()

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.folder / self.path.lstrip("/")
        fault = self._fault() if body and path.is_file() else ""
        if fault == "stall":
            time.sleep(60)
        if fault == "refuse" or not path.is_file():
            self.send_response(503 if fault else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, status = path.read_bytes(), 200
        size, start, end = len(data), 0, len(data) - 1
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end, status = int(asked[1]), min(int(asked[2] or end), end), 206
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start + 1))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.end_headers()
        if body:
            part = data[start : end + 1]
            self.wfile.write(part[: len(part) // 2] if fault == "drop" else part)
            self.close_connection = fault == "drop"

    def _fault(self) -> str:
        with self.lock:
            self.faults.requests.append(f"{self.path} {self.headers.get('Range', '')}")
            self.faults.sound -= 1
            if self.faults.sound >= 0 or self.faults.times <= 0:
                return ""
            self.faults.times -= 1
            return self.faults.kind


def main() -> None:
    """Serve until stdin is closed; the port, and at the end the requests, on stdout."""
    folder, sound, kind, times = sys.argv[1:]
    _Handler.folder, _Handler.faults = Path(folder), Faults(int(sound), kind, int(times))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    print(json.dumps(_Handler.faults.requests), flush=True)


if __name__ == "__main__":
    main()
