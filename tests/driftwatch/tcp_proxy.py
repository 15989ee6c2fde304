"""A TCP proxy between a client and a server that can be told to misbehave as networks do."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

CHUNK = 65_536


@dataclass
class TcpProxy:
    """Listens on one port of 127.0.0.1 and hands bytes on to another, until it is told otherwise.

    Faults are of the connections that there are at that moment; new ones are served as ever.
    """

    target: int
    port: int
    bytes_per_s: float | None = None  # None: as fast as it goes
    n_opened: int = 0
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    _orphans: set[socket.socket] = field(default_factory=set)  # of them nothing is handed on any more
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _flows: threading.Event = field(default_factory=threading.Event)
    _pumps: list[threading.Thread] = field(default_factory=list)

    def cut(self) -> None:
        """Ends every connection at once, both ways, in the middle of whatever was under way."""
        with self._lock:
            ends, self._pairs = [end for pair in self._pairs for end in pair], []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def lose_server(self) -> None:
        """Leaves every connection half open: the server's end is gone, and the client is never told."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            self._orphans.update(client for client, _ in pairs)
        for _, server in pairs:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """Keeps every connection open and hands nothing on, new ones included, until `release`."""
        self._flows.clear()

    def release(self) -> None:
        """Hands on what was held, and what comes."""
        self._flows.set()

    @contextlib.contextmanager
    def serving(self) -> "Iterator[TcpProxy]":
        """Serves until the end of the block."""
        self._flows.set()
        with socket.create_server(("127.0.0.1", self.port)) as listener:
            thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
            thread.start()
            try:
                yield self
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                self._flows.set()
                self.cut()
                for orphan in self._orphans:
                    with contextlib.suppress(OSError):
                        orphan.shutdown(socket.SHUT_RDWR)
                thread.join()
                for pump in self._pumps:
                    pump.join()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._pairs.append((client, server))
                self.n_opened += 1
            for ends in ((client, server), (server, client)):
                self._pumps.append(threading.Thread(target=self._pump, args=ends, daemon=True))
                self._pumps[-1].start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK if self.bytes_per_s is None else 1024):
                if self.bytes_per_s is not None:
                    time.sleep(len(data) / self.bytes_per_s)
                self._flows.wait()
                if source not in self._orphans:  # a half-open connection takes bytes, and they go nowhere
                    sink.sendall(data)
        if sink not in self._orphans:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)  # which ends the other direction's wait
        source.close()
