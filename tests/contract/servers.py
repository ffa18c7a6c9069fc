"""A scriptable HTTP server on loopback, which can break off at any byte."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]  # lower-case names
    body: bytes


@dataclass(frozen=True)
class Answer:
    """A reply, or how it fails: `drop` resets at once, `half` in the middle of the body."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    how: Literal["whole", "hang", "drop", "half", "drip_head", "drip_body", "endless"] = "whole"

    def encoded(self) -> bytes:
        headers = {"Content-Length": str(len(self.body)), **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Scripted\r\n{lines}\r\n".encode() + self.body


class ScriptedHttp:
    """Answers each request with what `answer` says; one thread per connection."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        self._closing = threading.Event()
        self._clients: list[tuple[socket.socket, threading.Thread]] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def running(self) -> Iterator["ScriptedHttp"]:
        acceptor = threading.Thread(target=self._accept)
        acceptor.start()
        try:
            yield self
        finally:
            self._closing.set()
            self._listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(10)
            self._listener.close()
            for client, thread in self._clients:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
                thread.join(10)
                client.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(client,))
            self._clients.append((client, thread))
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client.makefile("rb") as stream:
                while request := _read(stream):
                    self.requests.append(request)
                    if not self._reply(client, self.answer(request)):
                        return
        except OSError:
            return

    def _reply(self, client: socket.socket, answer: Answer) -> bool:
        data = answer.encoded()
        head = data.index(b"\r\n\r\n") + 4
        match answer.how:
            case "whole":
                client.sendall(data)
                return True
            case "hang":
                self._closing.wait()
            case "drop":
                _reset(client)
            case "half":
                client.sendall(data[: (head + len(data)) // 2])
                _reset(client)
            case "drip_head":
                self._drip(client, data[:20] + b"x" * 10_000)
            case "drip_body":
                client.sendall(data[:head].replace(b"Length: ", b"Length: 1"))
                self._drip(client, b" " * 10_000)
            case "endless":
                client.sendall(b"HTTP/1.1 %d Scripted\r\n\r\n" % answer.status)
                while not self._closing.is_set():
                    client.sendall(b" " * 100_000)
        return False

    def _drip(self, client: socket.socket, data: bytes) -> None:
        for byte in data:
            if self._closing.wait(0.02):
                return
            client.sendall(bytes([byte]))


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.shutdown(socket.SHUT_RDWR)


def _read(stream) -> Request | None:  # type: ignore[no-untyped-def]
    first = stream.readline().decode().split()
    if len(first) < 2:
        return None
    headers: dict[str, str] = {}
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    return Request(first[0], first[1], headers, body)


def free_port() -> int:
    """A port for a server that is about to be started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port on which nobody listens: it is held, so that nobody else comes to meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
