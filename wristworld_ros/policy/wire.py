"""The messages between the server and programs without ROS: a msgpack map, then the pixels as they lie in memory.

A message is two unsigned 32-bit numbers, big endian (bytes of the map, bytes of the pixels), the map, the pixels. A client
asks and the server answers, in turns; docs/policies.md lists the keys. `client/wristworld_client` is the other side, which
shares no code with this one.
"""

from __future__ import annotations

import math
import socket
import struct
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from wristworld_ros.errors import UserError
from wristworld_ros.policy.errors import (
    CameraClosedError,
    FrameTimeoutError,
    InvalidFrameError,
    StaleFrameError,
    WristCameraError,
)
from wristworld_ros.types import WristImage

PROTOCOL = 1
LENGTHS = struct.Struct('>II')
MAX_REQUEST = 4096  # bytes; a request is a few numbers
MAX_WAIT_S = 60.0  # that one request may hold a connection
CALLS = ('hello', 'read', 'async_read', 'read_latest')
KINDS: dict[type[UserError], str] = {
    InvalidFrameError: 'invalid',
    StaleFrameError: 'stale',
    FrameTimeoutError: 'timeout',
    CameraClosedError: 'closed',
}


class RequestError(UserError):
    """A request that is none; the next one may be."""


class FramingError(RequestError):
    """Bytes that are no message: where the next one would begin is not known."""


@dataclass(frozen=True)
class Request:
    """What a client asks for. timeout, max_age: seconds; None where the call has none, or leaves it to the server."""

    call: str
    timeout: float | None = None
    max_age: float | None = None


def receive_request(connection: socket.socket) -> Request | None:
    """The next request; None where the client has gone.

    Raises:
        FramingError: What came is no message of this protocol; nothing after it can be read.
        RequestError: The message is no request.
        OSError: The connection broke.
    """
    lengths = _receive(connection, LENGTHS.size)
    if lengths is None:
        return None
    size, payload = LENGTHS.unpack(lengths)
    if not 0 < size <= MAX_REQUEST or payload:
        raise FramingError('A client sent what is no request', f'speak protocol {PROTOCOL} of docs/policies.md')
    body = _receive(connection, size)
    return None if body is None else read_request(body)


def read_request(body: bytes | bytearray) -> Request:
    """A request from its msgpack map.

    Raises:
        RequestError: It is none.
    """
    fix = f'speak protocol {PROTOCOL} of docs/policies.md; install the same version of wristworld-client'
    try:
        fields = msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError('A client sent a request that is not msgpack', fix) from error
    if not isinstance(fields, dict) or fields.get('protocol') != PROTOCOL:
        spoken = fields.get('protocol') if isinstance(fields, dict) else None
        raise RequestError(f'The client speaks protocol {spoken!r}, and the server {PROTOCOL}', fix)
    call = fields.get('call')
    if not isinstance(call, str) or call not in CALLS:
        raise RequestError(f'The client calls {str(call)[:40]!r}', f'call one of {", ".join(CALLS)}')
    return Request(call, _seconds(fields, 'timeout', MAX_WAIT_S), _seconds(fields, 'max_age', 3600.0))


def hello(version: str, fit: str, max_age: float) -> dict[str, Any]:
    """The answer to `hello`."""
    return {
        'protocol': PROTOCOL,
        'error': None,
        'server': 'wristworld',
        'version': version,
        'fit': fit,
        'max_age': max_age,
    }


def image_reply(wrist: WristImage) -> tuple[dict[str, Any], np.ndarray]:
    """The answer with an image: the map, and the pixels, uint8 [h, w, 3]."""
    pixels, camera = np.ascontiguousarray(wrist.image), wrist.camera
    fields = {
        'protocol': PROTOCOL, 'error': None, 'stamp_ns': wrist.stamp_ns, 'age': wrist.age_s, 'status': 0, 'height': camera.height,
        'width': camera.width, 'encoding': 'rgb8', 'K': camera.K.ravel().tolist(),
        'T_camera_world': camera.T_camera_world.ravel().tolist(), 'world': wrist.world, 'frame_id': wrist.frame_id,
        'geometry': int(wrist.geometry), 'coverage': float(wrist.coverage), 'confidence': float(wrist.confidence),
        'agreement': float(wrist.agreement), 'residuals': [float(value) for value in wrist.residuals],
    }  # fmt: skip
    return fields, pixels


def error_reply(error: UserError) -> dict[str, Any]:
    """The answer that says why there is no image."""
    kind = KINDS.get(type(error), 'request')
    status = error.status if isinstance(error, WristCameraError) else None
    said = {'kind': kind, 'status': None if status is None else int(status), 'what': error.what, 'fix': error.fix}
    return {'protocol': PROTOCOL, 'error': said}


def send(connection: socket.socket, fields: dict[str, Any], pixels: np.ndarray | None = None) -> None:
    """Send a message; the pixels go to the kernel from where they lie, without a copy.

    Raises:
        OSError: The connection broke, or the client does not read.
    """
    body = msgspec.msgpack.encode(fields)
    payload = memoryview(b'') if pixels is None else pixels.reshape(-1).data
    parts = [memoryview(LENGTHS.pack(len(body), len(payload)) + body), payload]
    while parts:
        sent = connection.sendmsg(parts)
        while parts and sent >= len(parts[0]):
            sent -= len(parts.pop(0))
        if parts:
            parts[0] = parts[0][sent:]


def _receive(connection: socket.socket, size: int) -> bytearray | None:
    """So many bytes; None where the client closed before."""
    data, got = bytearray(size), 0
    while got < size:
        count = connection.recv_into(memoryview(data)[got:])
        if not count:
            return None
        got += count
    return data


def _seconds(fields: dict[Any, Any], name: str, most: float) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not 0 <= value <= most
    ):
        raise RequestError(f'{name} is {str(value)[:40]}', f'give seconds, 0 to {most:g}')
    return float(value)
