"""The HTTP server around the routes: bodies, faults, and the record of every request."""

import contextlib
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from .accounts import ACCOUNTS, Account
from .api import ROUTES, Api, Route
from .environment import client_environment
from .exchange import Answer, Recorded, Request
from .faults import Fault, FaultBook
from .store import Refusal, Store

BLOCK = 1 << 20  # bytes
PACES_A_SECOND = 20
CONTROL = "/__control__/"
CONTENTS = ("lfs_upload", "xet_xorb")  # routes whose bodies are on disk


class LoopbackHub:
    """A Hugging Face Hub on 127.0.0.1, running from construction to `close`.

    `faults` is what goes wrong next, `requests` what arrived; other processes reach both below
    /__control__/ (POST faults, DELETE faults, GET requests, DELETE requests).
    """

    def __init__(
        self,
        folder: Path,
        *,
        accounts: Iterable[Account] = ACCOUNTS,
        port: int = 0,
        page_size: int = 1000,
    ) -> None:
        self.accounts = {account.token: account for account in accounts}
        self.faults = FaultBook(route.name for route in ROUTES)
        self.requests: list[Recorded] = []
        self.store = Store(folder)
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.api = Api(self.store, self.url, page_size=page_size)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Like a machine that is switched off: open connections end too."""
        self.faults.clear()
        self._server.shutdown()
        self._server.server_close()
        self._server.drop_connections()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def environment(self, home: Path, *, token: str | None = None) -> dict[str, str]:
        """The variables by which a process of its own uses this hub and nothing else."""
        return client_environment(home, url=self.url, token=token)

    def count(self, *routes: str) -> int:
        """How many requests came on these routes."""
        return sum(request.route in routes for request in self.requests)

    def places_of(self, text: str) -> list[str]:
        """Stored files, bodies and addresses in which a text, such as a token, occurs."""
        wanted = text.encode()
        files = [path for path in self.store.folder.rglob("*") if path.is_file()]
        places = [str(path) for path in files if wanted in path.read_bytes()]
        return places + [
            f"{request.method} {request.path}"
            for request in self.requests
            if wanted in request.body or text in unquote(request.path)
        ]


class _Server(ThreadingHTTPServer):
    hub: LoopbackHub
    daemon_threads = True
    block_on_close = False  # a hanging request does not keep the hub from closing
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # its thread may be ending it just now
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away is what many tests are about; anything else is a fault of ours.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _find_route(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    for route in ROUTES:
        if route.method == method and (match := re.fullmatch(route.pattern, path)):
            found = match.groupdict()
            return route, {name: unquote(part) for name, part in found.items() if part}
    return None


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; else each answer waits 40 ms

    def log_message(self, format: str, *args: Any) -> None:
        pass  # requests are recorded instead

    def _serve(self) -> None:
        address = urlsplit(self.path)
        if address.path.startswith(CONTROL):
            return self._control(address.path.removeprefix(CONTROL))
        method = "GET" if self.command == "HEAD" else self.command
        route, parameters = _find_route(method, address.path) or (None, {})
        headers = {name.lower(): value for name, value in self.headers.items()}
        record = Recorded(self.command, self.path, route.name if route else "unknown", headers)
        self.server.hub.requests.append(record)

        fault = self.server.hub.faults.take(record.route)
        if fault and fault.kind == "reset":
            return self._reset()
        if fault and fault.kind == "hang" and not self.server.hub.faults.hang(fault.seconds):
            return self._reset()
        chunks = self._recorded(self._body(_pace(fault)), record)
        if fault and fault.kind == "status":
            answer = _fault_answer(fault)
        else:
            query = parse_qs(address.query)
            answer = self._answer(route, parameters, query, headers, chunks)
        for _ in chunks:
            pass  # what a route did not read would be taken for the next request
        if fault and fault.kind == "lost":
            return self._reset()
        record.status = answer.status
        self._send(answer, _pace(fault))
        return None

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _answer(
        self,
        route: Route | None,
        parameters: dict[str, str],
        query: dict[str, list[str]],
        headers: dict[str, str],
        chunks: Iterator[bytes],
    ) -> Answer:
        hub = self.server.hub
        try:
            signed = route is not None and route.signed
            account = None if signed else _account(headers, hub.accounts)
            if route is None:
                raise Refusal(404, f"No such page: {self.path}", code="RepoNotFound")
            return route.handle(hub.api, Request(parameters, query, account, chunks))
        except Refusal as refusal:
            return _refusal_answer(refusal)

    # --------------------------------------------------------------------------------- bodies

    def _body(self, bytes_per_second: int | None) -> Iterator[bytes]:
        size = int(self.headers.get("Content-Length", 0))
        while size:
            chunk = self.rfile.read(min(size, _block(bytes_per_second)))
            if not chunk:
                raise ConnectionResetError("the client went away")
            size -= len(chunk)
            _wait(bytes_per_second)
            yield chunk

    def _recorded(self, chunks: Iterator[bytes], record: Recorded) -> Iterator[bytes]:
        for chunk in chunks:
            record.body_bytes += len(chunk)
            if record.route not in CONTENTS:
                record.body += chunk
            yield chunk

    def _send(self, answer: Answer, bytes_per_second: int | None) -> None:
        if answer.file:
            return self._send_file(answer, answer.file, bytes_per_second)
        body = answer.body()
        self._send_head(answer.status, {"Content-Type": "application/json", **answer.headers})
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return None

    def _send_file(self, answer: Answer, path: Path, bytes_per_second: int | None) -> None:
        size = path.stat().st_size
        first, last = _range(self.headers.get("Range"), size)
        whole = (first, last) == (0, size - 1)
        if first > max(last, 0):
            self._send_head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return self.end_headers()
        self._send_head(200 if whole else 206, answer.headers)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if not whole:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return None
        with path.open("rb") as file:
            file.seek(first)
            left = last - first + 1
            while left:
                chunk = file.read(min(left, _block(bytes_per_second)))
                self.wfile.write(chunk)
                left -= len(chunk)
                _wait(bytes_per_second)
        return None

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)

    def _reset(self) -> None:
        """Close so that the client's kernel reports a reset, not an end of the stream."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)  # on, 0 seconds: what is unsent is dropped
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        os.close(self.connection.detach())

    # -------------------------------------------------------------------------------- control

    def _control(self, name: str) -> None:
        hub = self.server.hub
        body = b"".join(self._body(None))
        answer = Answer()
        if (self.command, name) == ("POST", "faults"):
            try:
                hub.faults.add(Fault(**json.loads(body)))
            except (ValueError, TypeError) as error:
                answer = Answer({"error": str(error)}, 400)
        elif (self.command, name) == ("DELETE", "faults"):
            hub.faults.clear()
        elif (self.command, name) == ("GET", "requests"):
            records = [{**asdict(record), "body": None} for record in hub.requests]
            answer = Answer(records)
        elif (self.command, name) == ("DELETE", "requests"):
            hub.requests.clear()
        else:
            answer = Answer({"error": f"No such control: {self.command} {name}"}, 404)
        self._send(answer, None)


def _account(headers: dict[str, str], accounts: dict[str, Account]) -> Account | None:
    if "authorization" not in headers:
        return None
    token = headers["authorization"].removeprefix("Bearer ")
    if token not in accounts:
        raise Refusal(401, "Invalid credentials in Authorization header")
    return accounts[token]


def _refusal_answer(refusal: Refusal) -> Answer:
    # Headers are latin-1 on one line; the whole message is in the body.
    line = refusal.message.splitlines()[0].encode("latin-1", "replace").decode("latin-1")
    headers = {"X-Error-Message": line}
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    if refusal.commit:
        headers["X-Repo-Commit"] = refusal.commit
    return Answer({"error": refusal.message, "url": refusal.url}, refusal.status, headers)


def _fault_answer(fault: Fault) -> Answer:
    assert fault.status is not None
    headers = {"X-Error-Message": fault.text}
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    if fault.status >= 500:  # it is a proxy before the Hub that says so, and not in JSON
        page = f"<html><body>{fault.text}</body></html>".encode()
        return Answer(page, fault.status, {**headers, "Content-Type": "text/html"})
    return Answer({"error": fault.text}, fault.status, headers)


def _range(header: str | None, size: int) -> tuple[int, int]:
    """First and last byte wanted; the client asks for "bytes=a-" and "bytes=a-b"."""
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", header or "")
    if not wanted:
        return 0, size - 1
    last = int(wanted[2]) if wanted[2] else size - 1
    return int(wanted[1]), min(last, size - 1)


def _pace(fault: Fault | None) -> int | None:
    return fault.bytes_per_second if fault else None


def _block(bytes_per_second: int | None) -> int:
    return max(bytes_per_second // PACES_A_SECOND, 1) if bytes_per_second else BLOCK


def _wait(bytes_per_second: int | None) -> None:
    if bytes_per_second:
        time.sleep(1 / PACES_A_SECOND)
