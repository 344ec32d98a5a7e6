"""Serves the wrist camera to programs without ROS, over a Unix socket or TCP on loopback: the same promises, asked for by message.

A client asks and waits; the server keeps the promise with a `FrameReader` of that connection and answers with an image or
with the error. So ages are judged in one place, by the ROS clock, and no frame grows old in a socket's buffer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from wristworld_ros import __version__
from wristworld_ros.errors import UserError
from wristworld_ros.policy import octo, openpi, wire
from wristworld_ros.policy.frames import FrameReader, FrameSource
from wristworld_ros.policy.settings import BridgeSettings
from wristworld_ros.types import WristImage

FITS: dict[str, Callable[[WristImage], WristImage]] = {
    'none': lambda wrist: wrist,
    'openpi_droid': openpi.fit_wrist,
    'octo': octo.fit_wrist,
}
SEND_S = 5.0  # for which a client may leave an answer unread


class FrameServer:
    """Listens from the moment it is made until it is closed; each connection has a thread.

    Args:
        source: The wrist camera.
        settings: Address, greatest age, fit, number of clients; what names the camera is not used here.

    Attributes:
        address: Where it listens; with the port that was taken where 0 was asked for.

    Raises:
        UserError: The address cannot be listened on.
    """

    def __init__(self, source: FrameSource, settings: BridgeSettings):
        self._source, self._settings = source, settings
        self._fit = FITS[settings.fit]
        self._listener, self.address = listen(settings.address)
        self._connections: set[socket.socket] = set()
        self._lock, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._accept, name='frame_server', daemon=True)
        self._thread.start()

    @property
    def clients(self) -> int:
        """Open connections."""
        with self._lock:
            return len(self._connections)

    def close(self) -> None:
        """Close every connection and take the address off."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for connection in [self._listener, *self._connections]:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in it
        self._thread.join(5.0)
        self._listener.close()
        kind, _, path = self.address.partition(':')
        if kind == 'unix':
            with contextlib.suppress(OSError):
                os.unlink(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed, or out of file descriptors for a while
                if self._closed:
                    return
                time.sleep(0.05)
                continue
            threading.Thread(target=self._serve, args=(connection,), name='frame_client', daemon=True).start()

    def _admit(self, connection: socket.socket) -> bool:
        """Whether there is room for one more client."""
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            if self._closed or len(self._connections) >= self._settings.clients:
                return False
            self._connections.add(connection)
            return True

    def _refuse(self, connection: socket.socket) -> None:
        """Tell a client, once it asks, that there are too many."""
        connection.settimeout(SEND_S)
        wire.receive_request(connection)
        what = f'The server has {self._settings.clients} clients, which is all it takes'
        wire.send(connection, wire.error_reply(UserError(what, 'close one, or start it with more --clients')))

    def _serve(self, connection: socket.socket) -> None:
        """Answer one client until it goes."""
        reader = FrameReader(self._source, self._settings.max_age)
        try:
            if not self._admit(connection):
                self._refuse(connection)
                return
            while self._answer(connection, reader):
                pass
        except (OSError, wire.RequestError):
            pass  # the client went away, does not read, or speaks something else
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _answer(self, connection: socket.socket, reader: FrameReader) -> bool:
        """Answer the next request; False where there is none any more."""
        pixels, goes_on = None, True
        try:
            request = wire.receive_request(connection)
            if request is None:
                return False
            if request.call == 'hello':
                fields = wire.hello(__version__, self._settings.fit, self._settings.max_age)
            else:
                fields, pixels = wire.image_reply(self._fit(_read(reader, request)))
        except UserError as error:
            fields, goes_on = wire.error_reply(error), not isinstance(error, wire.FramingError)
        connection.settimeout(SEND_S)
        wire.send(connection, fields, pixels)
        connection.settimeout(None)
        return goes_on


def _read(reader: FrameReader, request: wire.Request) -> WristImage:
    """The image that a request asks for."""
    if request.call == 'read_latest':
        return reader.read_latest(request.max_age)
    wait = reader.read if request.call == 'read' else reader.async_read
    return wait() if request.timeout is None else wait(request.timeout)


def listen(address: str) -> tuple[socket.socket, str]:
    """A socket that listens, and its address as clients give it.

    Args:
        address: tcp:HOST:PORT on loopback, or unix:PATH. A socket that a dead server left there is replaced.

    Raises:
        UserError: The address cannot be taken.
    """
    kind, _, rest = address.partition(':')
    try:
        return _listen_unix(rest) if kind == 'unix' else _listen_tcp(rest)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f'{address} is taken by another program', 'close that, or give another --address'
            ) from error
        reason = error.strerror or str(error).rstrip('.')
        raise UserError(f'{address} cannot be listened on ({reason})', 'give another --address') from error


def _listen_tcp(rest: str) -> tuple[socket.socket, str]:
    host, _, port = rest.rpartition(':')
    if int(port) > 65535:
        raise UserError(f'The port of tcp:{rest} is {port}', 'give 0 to 65535')
    family = socket.AF_INET6 if host.startswith('[') else socket.AF_INET
    listener = socket.create_server((host.strip('[]'), int(port)), family=family)
    return listener, f'tcp:{host}:{listener.getsockname()[1]}'


def _listen_unix(path: str) -> tuple[socket.socket, str]:
    path = str(Path(path).absolute())
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)  # before it listens: until then nobody gets in
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener, f'unix:{path}'


def _remove_dead(path: str) -> None:
    """Take away the socket of a server that is no more."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UserError(f'{path} is there, and is no socket', 'give another --address')
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise UserError(f'unix:{path} is taken by another program', 'close that, or give another --address')
