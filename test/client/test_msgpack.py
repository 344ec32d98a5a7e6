"""The client's own msgpack says and understands what msgspec's does, and takes nothing else."""

import contextlib
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wristworld_client.msgpack import pack, unpack

NUMBERS = st.integers(-(2**63), 2**64 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=40,
)


def depth(value):
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inner), default=0)
    return 0


@given(VALUES.filter(lambda value: depth(value) <= 8))
def test_both_understand_each_other(value):
    assert msgspec.msgpack.decode(pack(value)) == value
    assert unpack(msgspec.msgpack.encode(value)) == value


@pytest.mark.parametrize('length', [0, 31, 32, 255, 256, 65535, 65536])
def test_texts_bytes_lists_and_maps_of_every_length_class(length):
    for value in ('x' * length, b'x' * length, [7] * length, {str(i): i for i in range(length)}):
        assert unpack(msgspec.msgpack.encode(value)) == value
        assert msgspec.msgpack.decode(pack(value)) == value


def test_numbers_that_are_none():
    assert math.isnan(unpack(msgspec.msgpack.encode(math.nan))) and unpack(pack(math.inf)) == math.inf


@given(st.binary(max_size=60))
def test_whatever_comes_is_a_value_or_a_value_error(data):
    with contextlib.suppress(ValueError):
        unpack(data)


@pytest.mark.parametrize(
    'data', [b'', b'\xc4\x05ab', b'\xdd\xff\xff\xff\xff', b'\xdf\xff\xff\xff\xff', b'\xa2a', b'\x01\x01', b'\x81\x01\x01', b'\xc1', b'\xd4\x00\x00', b'\xa1\xff', b'\x91' * 100 + b'\x01']
)  # fmt: skip
def test_what_is_cut_or_of_another_type_is_refused(data):
    with pytest.raises(ValueError):
        unpack(data)


def test_another_type_cannot_be_packed():
    with pytest.raises(TypeError, match='set'):
        pack({'a': {1}})
