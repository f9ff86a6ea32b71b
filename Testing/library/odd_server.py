"""HTTP servers that misbehave as told, on a free port of this machine."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class OddServer:
    """requests: (method, path) of each request, and headers: of the same, in the order in which they came."""

    url: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def odd_server(answer: Answer, certificate: Path | None = None) -> Iterator[OddServer]:
    """A server that lets ``answer`` write each answer, the request's body already read. certificate: PEM with its key."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            found.requests.append((self.command, self.path))
            found.headers.append(dict(self.headers))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer(self)

        do_GET = do_POST = handle_any

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    found = OddServer(f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}/dicom-web")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", kind: str = "application/dicom+json",
         **headers: str) -> None:
    """An answer without Content-Length, as Orthanc sends long ones: the connection's end is the message's end."""
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def cutting_relay(port: int, after_bytes: int) -> Iterator[int]:
    """A port that passes everything on to ``port``, and goes away for good once it has sent ``after_bytes`` back."""
    relay = _Relay(socket.create_server(("127.0.0.1", 0)), port, after_bytes)
    thread = threading.Thread(target=relay.accept, daemon=True)
    thread.start()
    try:
        yield relay.listener.getsockname()[1]
    finally:
        relay.go_away()
        thread.join()


@dataclass
class _Relay:
    listener: socket.socket
    port: int
    left_bytes: int
    open: list[socket.socket] = field(default_factory=list)

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.port))
            self.open += [near, far]
            threading.Thread(target=self.pass_on, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self.pass_on, args=(far, near, True), daemon=True).start()

    def pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if counted:
                    data = data[:self.left_bytes]
                    self.left_bytes -= len(data)
                target.sendall(data)
                if self.left_bytes <= 0:
                    self.go_away()
            target.shutdown(socket.SHUT_WR)

    def go_away(self) -> None:
        for end in (self.listener, *self.open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
