"""Image messages become the RGB images they stand for, or an error says which part of them cannot be used."""

import array
import struct
import time
import zlib
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
from wristworld_ros.ros.conversions import message_data, to_compressed, to_image, to_rgb
from wristworld_ros.ros.image_header import PLAIN, ImageError, ImageFault, ImageLimits, read_header

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
    row = size[1] * PLAIN[encoding].channels
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
@pytest.mark.parametrize(
    ('encoding', 'helps'), [('nv21', True), ('nv24', True), ('8UC3', False), ('16UC1', False), ('no_such', False)]
)
def test_cv_bridge_is_advised_only_where_it_would_help(encoding, helps):
    with pytest.raises(ImageError) as error:
        to_rgb(message(np.zeros((2, 2, 3), np.uint8), encoding))
    assert ('cv_bridge' in error.value.fix) == helps and 'rgb8' in error.value.fix


MOSAICS = {'rggb': 'RGGB', 'bggr': 'BGGR', 'gbrg': 'GBRG', 'grbg': 'GRBG'}


def mosaic(pattern: str, color: tuple[int, int, int], size=12) -> np.ndarray:
    """What a sensor with that pattern measures of a surface of one colour."""
    values = [color['RGB'.index(c)] for c in MOSAICS[pattern]]
    return np.tile(np.array(values, np.uint8).reshape(2, 2), (size // 2, size // 2))[..., None]


@pytest.mark.parametrize('pattern', MOSAICS)
@pytest.mark.parametrize('bits', [8, 16])
def test_mosaics_become_colours_on_raw_and_compressed_topics_alike(pattern, bits):
    color, name = (200, 120, 40), f'bayer_{pattern}{bits}'
    samples = mosaic(pattern, color)
    if bits == 16:
        samples = samples.astype(np.uint16) * 257
    raw = Image(height=12, width=12, encoding=name, step=12 * bits // 8, data=array.array('B', samples.tobytes()))
    png = CompressedImage(format=f'{name}; png compressed ', data=message_data(cv2.imencode('.png', samples)[1]))
    np.testing.assert_array_equal(to_rgb(raw), to_rgb(png))
    assert np.abs(to_rgb(raw)[2:-2, 2:-2].astype(int) - color).max() <= 1


@pytest.mark.parametrize('big', [0, 1])
@pytest.mark.parametrize('encoding', ['rgb16', 'bgr16', 'rgba16', 'bgra16', 'mono16'])
def test_sixteen_bits_are_scaled_to_eight_in_either_byte_order(encoding, big):
    rgb = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    samples = FROM_RGB[encoding.replace('16', '8')](rgb).astype('>u2' if big else '<u2') * 257
    samples = samples.astype('>u2' if big else '<u2')
    msg = Image(height=3, width=5, encoding=encoding, is_bigendian=big, step=10 * samples.shape[2])
    msg.data = array.array('B', samples.tobytes())
    np.testing.assert_array_equal(to_rgb(msg), np.repeat(rgb[..., :1], 3, -1) if encoding == 'mono16' else rgb)


@pytest.mark.parametrize(
    ('encoding', 'order'), [('yuv422', 'uyvy'), ('uyvy', 'uyvy'), ('yuv422_yuy2', 'yuyv'), ('yuyv', 'yuyv')]
)
def test_yuv_of_usb_cameras_is_read(encoding, order):
    grey = {'y': 180, 'u': 128, 'v': 128}
    data = array.array('B', [grey[c] for c in order] * 2 * 2)
    out = to_rgb(Image(height=2, width=4, encoding=encoding, step=8, data=data))
    assert out.shape == (2, 4, 3) and np.ptp(out) <= 1 and 180 < out[0, 0, 0] < 200
    with pytest.raises(ImageError) as error:
        to_rgb(Image(height=2, width=3, encoding=encoding, step=8, data=data))
    assert error.value.fault is ImageFault.SIZE and 'even' in error.value.what


@pytest.mark.parametrize('encoding', ['bayer_rggb8', 'mono16', 'rgb16', 'yuv422', 'yuv422_yuy2'])
def test_other_encodings_agree_with_cv_bridge(encoding):
    cv_bridge = pytest.importorskip('cv_bridge', reason='cv_bridge is not installed')
    size = {'bayer_rggb8': 1, 'rgb16': 6}.get(encoding, 2)
    data = array.array('B', np.random.default_rng(0).bytes(16 * size))
    msg = Image(height=4, width=4, encoding=encoding, step=4 * size, data=data)
    assert np.abs(to_rgb(msg).astype(int) - cv_bridge.CvBridge().imgmsg_to_cv2(msg, 'rgb8')).max() <= 1


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


def compressed(fmt: str, pixels: np.ndarray, codec: str = 'png', keep: float = 1.0) -> CompressedImage:
    data = cv2.imencode(f'.{codec}', pixels)[1]
    return CompressedImage(format=fmt, data=message_data(data[: int(keep * len(data))]))


DEPTH = np.arange(48, dtype=np.uint16).reshape(6, 8) * 99


@pytest.mark.parametrize(
    ('fmt', 'words'),
    [
        ('16UC1; png compressed ', "'16UC1' is that of depth"),
        ('32FC1; png compressed ', "'32FC1' is that of depth"),
        ('16UC1; compressedDepth png', 'compressedDepth'),
        ('16UC1; compressedDepth', 'compressedDepth'),
        ('png', 'whether it is depth'),
        ('', 'whether it is depth'),
        ('rgb8; png compressed bgr8', '16 bits'),
        ('8UC3; png compressed ', 'red, green and blue'),
    ],
)
def test_what_is_no_colour_image_on_a_raw_topic_is_none_on_a_compressed_one(fmt, words):
    with pytest.raises(ImageError) as error:
        to_rgb(compressed(fmt, DEPTH))
    assert error.value.fault is ImageFault.ENCODING and words in error.value.what
    assert 'cv_bridge' not in str(error.value)


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1', '8UC3'])
def test_the_same_encodings_are_refused_on_a_raw_topic_in_the_same_words(encoding):
    errors = []
    raw = Image(height=6, width=8, encoding=encoding, step=32, data=array.array('B', bytes(192)))
    for msg in (raw, compressed(f'{encoding}; png compressed ', DEPTH)):
        with pytest.raises(ImageError) as error:
            to_rgb(msg)
        errors.append((error.value.fault, str(error.value)))
    assert errors[0] == errors[1]


def test_grey_of_sixteen_bits_is_taken_where_the_format_says_that_it_is_an_image():
    out = to_rgb(compressed('mono16; png compressed ', np.full((4, 6), 0x8080, np.uint16)))
    assert out.shape == (4, 6, 3) and (out == 0x80).all()


@pytest.mark.parametrize('codec', ['png', 'jpg'])
def test_data_that_ends_early_is_no_half_grey_image(codec, capfd):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with pytest.raises(ImageError) as error:
        to_rgb(compressed('', image, codec, keep=0.5))
    assert error.value.fault is ImageFault.DATA and '\n' not in str(error.value)
    assert capfd.readouterr().err == '', 'image libraries write nothing to the log'


@pytest.mark.parametrize('codec', ['png', 'jpg'])
@settings(deadline=None, max_examples=150)
@given(at=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6), keep=st.floats(0, 1))
def test_damaged_data_is_an_image_or_an_error_for_the_user(codec, at, keep):
    msg = compressed('', np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3), codec, keep)
    for where, value in at:
        if len(msg.data):
            msg.data[int(where * len(msg.data))] = value
    try:
        out = to_rgb(msg, ImageLimits(10_000, 4))
        assert out.dtype == np.uint8 and out.ndim == 3 and out.shape[2] == 3
    except ImageError as error:
        assert '\n' not in str(error)


@pytest.mark.parametrize('codec', ['png', 'jpg'])
@pytest.mark.parametrize('hw', [(1, 400), (400, 1), (101, 101), (10, 41)])
def test_limits_are_read_from_headers_before_anything_is_decoded(codec, hw, monkeypatch):
    monkeypatch.setattr('wristworld_ros.ros.conversions.PIL.Image.open', None)
    pixels, limits = np.zeros((*hw, 3), np.uint8), ImageLimits(10_000, 4)
    raw = Image(height=hw[0], width=hw[1], encoding='rgb8', step=3 * hw[1], data=message_data(pixels))
    for msg in (raw, compressed('', pixels, codec)):
        with pytest.raises(ImageError) as error:
            to_rgb(msg, limits)
        assert error.value.fault is ImageFault.LIMIT and f'{hw[1]}x{hw[0]}' in error.value.what
        assert 'max_' in error.value.what and error.value.fault.counter == 'images_over_limit'


def test_a_bomb_costs_nothing():
    """12000 x 12000 pixels in 140 kB."""

    def chunk(kind, body):
        return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))

    header = struct.pack('>IIBBBBB', 12000, 12000, 8, 0, 0, 0, 0)
    png = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(bytes(12000 * 12001)))
    msg = CompressedImage(format='png', data=array.array('B', png))
    start = time.perf_counter()
    with pytest.raises(ImageError, match='12000x12000'):
        read_header(msg, ImageLimits())
    assert time.perf_counter() - start < 0.05


def test_more_data_than_any_image_takes_and_endless_scans_are_over_the_limit():
    limits = ImageLimits(100, 4)
    raw = Image(height=2, width=2, encoding='rgb8', step=6, data=array.array('B', bytes(801)))
    scans = CompressedImage(format='jpeg', data=array.array('B', b'\xff\xd8\xff' + b'\xff\xda' * 200))
    for msg in (raw, scans):
        with pytest.raises(ImageError) as error:
            read_header(msg, ImageLimits() if msg is scans else limits)
        assert error.value.fault is ImageFault.LIMIT


def test_what_a_stranger_writes_is_quoted_in_one_short_line():
    for msg in (
        Image(height=1, width=1, encoding='a\nb' * 1000),
        CompressedImage(format='a\nb' * 1000, data=array.array('B', b'no image')),
    ):
        with pytest.raises(ImageError) as error:
            to_rgb(msg)
        assert '\n' not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    ('data', 'name'), [(b'\0\0\0\1\x67', 'video'), (b'RIFF\0\0\0\0WEBP', 'WebP'), (b'II*\0', 'TIFF')]
)
def test_other_codecs_are_named(data, name):
    with pytest.raises(ImageError, match=name):
        to_rgb(CompressedImage(format='x', data=array.array('B', data + bytes(50))))
