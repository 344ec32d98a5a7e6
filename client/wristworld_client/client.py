"""The client: asks `wristworld serve` for an image and waits for the answer."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from wristworld_client.errors import (
    CameraClosedError,
    ConnectionFailedError,
    FrameTimeoutError,
    InvalidFrameError,
    StaleFrameError,
    WristCameraError,
)
from wristworld_client.msgpack import pack, unpack
from wristworld_client.status import Geometry

PROTOCOL = 1
DEFAULT_ADDRESS = 'tcp:127.0.0.1:5650'
GRACE_S = 3.0  # beyond what the server was told to wait
MAX_WAIT_S, MAX_AGE_S = 60.0, 3600.0
MAX_MAP, MAX_PIXELS = 1 << 16, 1 << 28  # bytes of an answer
_LENGTHS = struct.Struct('>II')
_ERRORS = {
    'invalid': InvalidFrameError,
    'stale': StaleFrameError,
    'timeout': FrameTimeoutError,
    'closed': CameraClosedError,
}
_START = 'start `wristworld serve`, or give its address'


@dataclass(frozen=True)
class WristImage:
    """A wrist image, valid and fresh when the server sent it.

    image: uint8 [h, w, 3], RGB, memory of its own. stamp_ns: acquisition time of the anchor images that it shows. age: seconds
    from the stamp to the answer, by the ROS clock. K: float64 [3, 3], pixels. T_camera_world: float64 [4, 4], metres; the world is
    the TF frame `world`. frame_id: TF frame of the camera. geometry: what it was made from. coverage, confidence, agreement: 0 to
    1 (agreement is NaN with one anchor). residuals: float64 [V], metres, NaN where unknown.
    """

    image: np.ndarray
    stamp_ns: int
    age: float
    K: np.ndarray
    T_camera_world: np.ndarray
    world: str
    frame_id: str
    geometry: Geometry
    coverage: float
    confidence: float
    agreement: float
    residuals: np.ndarray


class WristClient:
    """The virtual wrist camera, read from a `wristworld serve`. Calls of several threads wait for each other.

    It connects with the first call, and again with the next one after a connection broke.

    Args:
        address: tcp:HOST:PORT or unix:PATH.
        connect_timeout: Seconds to wait for the server to take the connection.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, connect_timeout: float = 5.0):
        self.address = address
        self._target = _target(address)
        self._connect_timeout = connect_timeout
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._closed = False

    def read(self, timeout: float = 1.0) -> WristImage:
        """The next frame: one that arrives after this call.

        Args:
            timeout: How long to wait for it, seconds, at most 60.

        Raises:
            InvalidFrameError: It is invalid.
            StaleFrameError: It shows too old a moment.
            FrameTimeoutError: None came in time.
            ConnectionFailedError: The server does not answer.
        """
        return self._wait('read', timeout)

    def async_read(self, timeout: float = 0.2) -> WristImage:
        """The newest frame that this client has not had: at once where there is one, otherwise the next.

        Args:
            timeout: How long to wait for it, seconds, at most 60.

        Raises:
            InvalidFrameError: It is invalid.
            StaleFrameError: Too old ones came, and no other in time.
            FrameTimeoutError: None came in time.
            ConnectionFailedError: The server does not answer.
        """
        return self._wait('async_read', timeout)

    def read_latest(self, max_age: float | None = None) -> WristImage:
        """The newest frame, at once, whether this client has had it or not.

        Args:
            max_age: Seconds from its stamp that it may have; None is the server's limit.

        Raises:
            InvalidFrameError: It is invalid.
            StaleFrameError: It is older than that.
            FrameTimeoutError: There is none yet.
            ConnectionFailedError: The server does not answer.
        """
        limit = None if max_age is None else _seconds('max_age', max_age, MAX_AGE_S)
        return self._exchange({'call': 'read_latest', 'max_age': limit}, 0.0, _image)

    def hello(self) -> dict[str, Any]:
        """What the server says of itself: version, fit (for which policy it resizes), max_age.

        Raises:
            ConnectionFailedError: The server does not answer.
        """
        return self._exchange({'call': 'hello'}, 0.0, lambda fields, pixels: fields)

    def close(self) -> None:
        """Close the connection, for good."""
        self._closed = True
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for an answer
        with self._lock:
            self._drop()

    def __enter__(self) -> WristClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, call: str, timeout: float) -> WristImage:
        seconds = _seconds('timeout', timeout, MAX_WAIT_S)
        return self._exchange({'call': call, 'timeout': seconds}, seconds, _image)

    def _exchange(
        self, request: dict[str, Any], wait: float, understood: Callable[[dict[str, Any], np.ndarray], Any]
    ) -> Any:
        """One question and what its answer means; raises what the answer says."""
        with self._lock:
            if self._closed:
                raise CameraClosedError('The client is closed', 'make another one')
            try:
                if self._socket is None:
                    self._connect()
                fields, pixels = self._turn(request, wait)
                error = _error(fields)
                answer = None if error else understood(fields, pixels)
            except WristCameraError:
                self._drop()
                raise
            except (OSError, ValueError, KeyError, TypeError) as failure:
                self._drop()
                if self._closed:
                    raise CameraClosedError('The client was closed meanwhile', 'make another one') from failure
                what = str(failure).rstrip('.') or type(failure).__name__
                raise ConnectionFailedError(f'{self.address} does not answer ({what})', _START) from failure
            except BaseException:
                self._drop()  # Ctrl-C in the middle of an answer: its rest must not be taken for the next one
                raise
        if error:
            raise error
        return answer

    def _connect(self) -> None:
        family, where = self._target
        connection = socket.socket(family)
        try:
            connection.settimeout(self._connect_timeout)
            connection.connect(where)
            if family != getattr(socket, 'AF_UNIX', None):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        self._socket = connection
        fields, _ = self._turn({'call': 'hello'}, 0.0)
        if error := _error(fields):
            raise error
        if fields.get('server') != 'wristworld':
            raise ConnectionFailedError(f'{self.address} is no wristworld server', _START)

    def _turn(self, request: dict[str, Any], wait: float) -> tuple[dict[str, Any], np.ndarray]:
        connection = self._socket
        assert connection is not None
        connection.settimeout(wait + GRACE_S)
        body = pack({'protocol': PROTOCOL, **request})
        connection.sendall(_LENGTHS.pack(len(body), 0) + body)
        size, pixels = _LENGTHS.unpack(_receive(connection, _LENGTHS.size).data)
        if size > MAX_MAP or pixels > MAX_PIXELS:
            raise ConnectionFailedError(f'{self.address} is no wristworld server', _START)
        fields = unpack(_receive(connection, size))
        if not isinstance(fields, dict) or fields.get('protocol') != PROTOCOL:
            spoken = fields.get('protocol') if isinstance(fields, dict) else None
            what = f'{self.address} speaks protocol {spoken!r}, and this client {PROTOCOL}'
            raise ConnectionFailedError(what, 'install the same version on both sides')
        return fields, _receive(connection, pixels)

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _image(fields: dict[str, Any], pixels: np.ndarray) -> WristImage:
    """The image of an answer; its pixels are the memory that they were received into."""
    height, width = fields['height'], fields['width']
    if fields['encoding'] != 'rgb8' or pixels.size != height * width * 3:
        raise ConnectionFailedError(
            'The server sent an image of another form', 'install the same version on both sides'
        )
    return WristImage(
        image=pixels.reshape(height, width, 3), stamp_ns=fields['stamp_ns'], age=fields['age'],
        K=np.array(fields['K']).reshape(3, 3), T_camera_world=np.array(fields['T_camera_world']).reshape(4, 4),
        world=fields['world'], frame_id=fields['frame_id'], geometry=Geometry(fields['geometry']), coverage=fields['coverage'],
        confidence=fields['confidence'], agreement=fields['agreement'], residuals=np.array(fields['residuals'], np.float64),
    )  # fmt: skip


def _error(fields: dict[str, Any]) -> WristCameraError | None:
    """The error that an answer says."""
    said = fields['error']
    return said and _ERRORS.get(said['kind'], WristCameraError)(said['what'], said['fix'], said['status'])


def _receive(connection: socket.socket, size: int) -> np.ndarray:
    """So many bytes as uint8 [size], received to where they stay."""
    data, got = np.empty(size, np.uint8), 0
    while got < size:
        count = connection.recv_into(data.data[got:])
        if not count:
            raise ConnectionError('it closed the connection')
        got += count
    return data


def _seconds(name: str, value: Any, most: float) -> float:
    """A time span, checked."""
    if not isinstance(value, Real) or not 0 <= value <= most:  # type: ignore[operator]
        raise WristCameraError(f'{name} is {value!r}', f'give seconds, 0 to {most:g}')
    return float(value)


def _target(address: str) -> tuple[int, Any]:
    """Family and address of a socket."""
    kind, _, rest = address.partition(':')
    host, _, port = rest.rpartition(':')
    if kind == 'unix' and rest:
        return socket.AF_UNIX, rest
    if kind == 'tcp' and host and port.isdigit() and int(port) < 1 << 16:
        return (socket.AF_INET6 if host.startswith('[') else socket.AF_INET), (host.strip('[]'), int(port))
    raise WristCameraError(f'address is {address!r}', 'give tcp:HOST:PORT or unix:PATH')
