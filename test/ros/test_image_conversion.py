"""Image messages become the RGB images they stand for, or an error says which part of them cannot be used."""

import array
import time
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from wristworld_ros.errors import UserError
from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.ros.conversions import (
    PLAIN,
    ImageError,
    ImageFault,
    message_data,
    to_compressed,
    to_image,
    to_rgb,
)

# How each encoding is made from RGB, said independently of the code under test.
FROM_RGB = {
    'rgb8': lambda rgb: rgb,
    'bgr8': lambda rgb: rgb[..., ::-1],
    'rgba8': lambda rgb: np.dstack([rgb, np.full(rgb.shape[:2], 7, np.uint8)]),
    'bgra8': lambda rgb: np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 7, np.uint8)]),
    'mono8': lambda rgb: rgb[..., :1],
}
images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


def message(pixels: np.ndarray, kind: str, padding: int = 0, **changes) -> Image:
    height, width, channels = pixels.shape
    rows = np.full((height, width * channels + padding), 99, np.uint8)
    rows[:, : width * channels] = pixels.reshape(height, -1)
    msg = Image(height=height, width=width, encoding=kind, step=rows.shape[1], data=array.array('B', rows.tobytes()))
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


def test_every_plain_encoding_is_covered_here():
    assert set(FROM_RGB) == set(PLAIN)


@pytest.mark.parametrize('encoding', FROM_RGB)
@settings(deadline=None, max_examples=60)
@given(rgb=images, padding=st.integers(0, 5), big=st.integers(0, 1))
def test_each_encoding_gives_the_image_whatever_the_padding(encoding, rgb, padding, big):
    expected = np.repeat(rgb[..., :1], 3, -1) if encoding == 'mono8' else rgb
    out = to_rgb(message(FROM_RGB[encoding](rgb), encoding, padding, is_bigendian=big))
    assert out.dtype == np.uint8 and out.flags.c_contiguous
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize('encoding', FROM_RGB)
@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    step=st.integers(0, 40),
    length=st.integers(0, 200),
    data=st.data(),
)
def test_no_message_of_any_shape_reads_outside_its_data(encoding, size, step, length, data):
    msg = Image(height=size[0], width=size[1], encoding=encoding, step=step, data=array.array('B', bytes(length)))
    row = size[1] * PLAIN[encoding][0]
    good = 0 not in size and step >= row and length >= step * (size[0] - 1) + row
    if good:
        assert to_rgb(msg).shape == (*size, 3)
    else:
        with pytest.raises(ImageError):
            to_rgb(msg)


@pytest.mark.parametrize(
    ('changes', 'fault'),
    [
        ({'step': 5}, 'step'),
        ({'data': array.array('B', bytes(11))}, 'data'),
        ({'data': array.array('B')}, 'data'),
        ({'height': 0}, 'size'),
        ({'width': 0}, 'size'),
        ({'encoding': 'no_such_encoding'}, 'encoding'),
        ({'encoding': ''}, 'encoding'),
    ],
)
def test_a_malformed_image_names_its_fault(changes, fault):
    with pytest.raises(ImageError) as error:
        to_rgb(message(np.zeros((2, 2, 3), np.uint8), 'rgb8', **changes))
    assert error.value.fault is ImageFault(fault)
    assert '\n' not in str(error.value)


def test_every_fault_is_for_the_user_and_has_its_counter():
    error = ImageError(ImageFault.STEP, 'step is 5', 'set it')
    assert isinstance(error, UserError) and (error.what, error.fix) == ('step is 5', 'set it')
    assert {fault.counter for fault in ImageFault} <= set(VirtualWristStatus.get_fields_and_field_types())


@pytest.mark.skipif(bool(find_spec('cv_bridge')), reason='cv_bridge is installed')
@pytest.mark.parametrize(('encoding', 'helps'), [('bayer_rggb8', True), ('yuv422_yuy2', True), ('8UC3', False)])
def test_cv_bridge_is_advised_only_where_it_would_help(encoding, helps):
    with pytest.raises(ImageError) as error:
        to_rgb(message(np.zeros((2, 2, 3), np.uint8), encoding))
    assert ('cv_bridge' in error.value.fix) == helps and 'rgb8' in error.value.fix


def test_other_encodings_agree_with_cv_bridge_or_ask_for_it():
    bayer = Image(height=4, width=4, encoding='bayer_rggb8', step=4, data=array.array('B', bytes(range(16))))
    try:
        from cv_bridge import CvBridge
    except ImportError:
        with pytest.raises(ImageError, match='cv_bridge'):
            to_rgb(bayer)
        return
    np.testing.assert_array_equal(to_rgb(bayer), CvBridge().imgmsg_to_cv2(bayer, 'rgb8'))


@pytest.mark.parametrize('encoding', FROM_RGB)
def test_plain_encodings_agree_with_cv_bridge(encoding):
    cv_bridge = pytest.importorskip('cv_bridge', reason='cv_bridge is not installed')
    rgb = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    msg = message(FROM_RGB[encoding](rgb), encoding, padding=3)
    np.testing.assert_array_equal(to_rgb(msg), cv_bridge.CvBridge().imgmsg_to_cv2(msg, 'rgb8'))


@settings(deadline=None, max_examples=60)
@given(rgb=images)
def test_an_image_comes_back_from_its_message(rgb):
    header = Header(frame_id='here')
    msg = to_image(rgb[:, ::-1], header)  # not contiguous
    assert (msg.encoding, msg.step, msg.header) == ('rgb8', 3 * rgb.shape[1], header)
    np.testing.assert_array_equal(to_rgb(msg), rgb[:, ::-1])


def test_message_data_is_made_without_a_loop_over_bytes():
    big = np.zeros((480, 640, 3), np.uint8)
    start = time.perf_counter()
    for _ in range(10):
        assert len(message_data(big)) == big.size
    assert (time.perf_counter() - start) / 10 < 0.01


def test_jpeg_there_and_back_keeps_the_image_and_its_colours():
    rgb = np.zeros((32, 48, 3), np.uint8)
    rgb[:, :24, 0], rgb[:, 24:, 2] = 200, 200
    out = to_rgb(to_compressed(rgb, Header(), quality=95))
    assert np.abs(out.astype(int) - rgb)[:, 4:20].mean() < 8 and np.abs(out.astype(int) - rgb)[:, 28:44].mean() < 8


def test_png_is_read_exactly():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    png = cv2.imencode('.png', rgb[..., ::-1])[1]
    np.testing.assert_array_equal(to_rgb(CompressedImage(format='png', data=message_data(png))), rgb)


@pytest.mark.parametrize(
    ('data', 'fault'), [(b'', 'size'), (b'no image', 'data'), (b'\xff\xd8\xff' + bytes(40), 'data')]
)
def test_compressed_data_without_an_image_is_refused(data, fault):
    with pytest.raises(ImageError) as error:
        to_rgb(CompressedImage(format='jpeg', data=array.array('B', data)))
    assert error.value.fault is ImageFault(fault)
