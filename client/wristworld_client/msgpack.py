"""As much of msgpack as the protocol needs: nil, bool, int, float, str, bin, arrays and maps. No extension types."""

from __future__ import annotations

import struct
from typing import Any

_DEPTH = 8  # maps and arrays in each other
_UNSIGNED = {0xCC: 'B', 0xCD: '>H', 0xCE: '>I', 0xCF: '>Q'}
_NUMBERS = {**_UNSIGNED, 0xD0: 'b', 0xD1: '>h', 0xD2: '>i', 0xD3: '>q', 0xCA: '>f', 0xCB: '>d'}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
# First byte -> what it begins and how its length is written.
_SIZED = {
    0xC4: ('bin', 'B'), 0xC5: ('bin', '>H'), 0xC6: ('bin', '>I'), 0xD9: ('str', 'B'), 0xDA: ('str', '>H'), 0xDB: ('str', '>I'),
    0xDC: ('array', '>H'), 0xDD: ('array', '>I'), 0xDE: ('map', '>H'), 0xDF: ('map', '>I'),
}  # fmt: skip


def pack(value: Any) -> bytes:
    """A value as msgpack.

    Args:
        value: None, bool, int of 64 bits, float, str, bytes, and lists and dicts of them.

    Raises:
        TypeError: It is of another type.
    """
    if value is None:
        return b'\xc0'
    if isinstance(value, bool):
        return b'\xc3' if value else b'\xc2'
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes([value])
        return b'\xcf' + struct.pack('>Q', value) if value > 0 else b'\xd3' + struct.pack('>q', value)
    if isinstance(value, float):
        return b'\xcb' + struct.pack('>d', value)
    if isinstance(value, str):
        text = value.encode()
        return b'\xdb' + struct.pack('>I', len(text)) + text
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b'\xc6' + struct.pack('>I', len(value)) + bytes(value)
    if isinstance(value, (list, tuple)):
        return b'\xdd' + struct.pack('>I', len(value)) + b''.join(map(pack, value))
    if isinstance(value, dict):
        return b'\xdf' + struct.pack('>I', len(value)) + b''.join(pack(k) + pack(v) for k, v in value.items())
    raise TypeError(f'{type(value).__name__} has no form in this protocol.')


def unpack(data: Any) -> Any:
    """The one value that some bytes hold.

    Args:
        data: bytes, bytearray or memoryview.

    Raises:
        ValueError: They hold something else.
    """
    reader = _Reader(memoryview(data))
    value = reader.value()
    if reader.position != len(reader.data):
        raise ValueError('There are bytes after the value.')
    return value


class _Reader:
    def __init__(self, data: memoryview):
        self.data, self.position = data, 0

    def value(self, depth: int = 0) -> Any:
        first = self._take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 256
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            return self._number(_NUMBERS[first])
        if first in _SIZED:
            kind, length = _SIZED[first]
            return self._sized(kind, self._number(length), depth)
        if first < 0x90:
            return self._sized('map', first & 0x0F, depth)
        if first < 0xA0:
            return self._sized('array', first & 0x0F, depth)
        if first < 0xC0:
            return self._sized('str', first & 0x1F, depth)
        raise ValueError(f'Type {first:#x} is none of this protocol.')

    def _sized(self, kind: str, size: int, depth: int) -> Any:
        if kind == 'bin':
            return bytes(self._take(size))
        if kind == 'str':
            return str(self._take(size), 'utf-8')
        if depth >= _DEPTH:
            raise ValueError('It is nested too deeply.')
        if kind == 'array':
            self._check(size)
            return [self.value(depth + 1) for _ in range(size)]
        self._check(2 * size)
        pairs = [(self.value(depth + 1), self.value(depth + 1)) for _ in range(size)]
        if not all(isinstance(key, str) for key, _ in pairs):
            raise ValueError('A key is no text.')
        return dict(pairs)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, size: int) -> memoryview:
        self._check(size)
        self.position += size
        return self.data[self.position - size : self.position]

    def _check(self, size: int) -> None:
        """That so many bytes are left: every value takes one at least."""
        if size > len(self.data) - self.position:
            raise ValueError('It ends too early.')
