"""Depth images: what is read of them, and each fault with its fix."""

import struct
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from wristworld_ros.ros.conversions import message_data, to_stamp
from wristworld_ros.ros.depth_camera import DepthCamera, DepthError, DepthFault, fitted, metric_depth
from wristworld_ros.settings import NodeSettings

MS, S = 1_000_000, 1_000_000_000
FRAME = 'left_optical'


def camera(**settings):
    node = SimpleNamespace(resolve_topic_name=lambda topic, only_expand=False: f'/{topic}')
    return DepthCamera(node, 'left', NodeSettings(**settings))


def raw(values, encoding, stamp_ns=S, frame=FRAME, padding=0):
    values = np.pad(values, ((0, 0), (0, padding)))
    return Image(
        header=Header(stamp=to_stamp(stamp_ns), frame_id=frame), height=values.shape[0], width=values.shape[1] - padding,
        encoding=encoding, step=values.strides[0], data=message_data(values.view(np.uint8)),
    )  # fmt: skip


def millimetres(value=1500, hw=(24, 32), **kwargs):
    return raw(np.full(hw, value, np.uint16), '16UC1', **kwargs)


def metres(value=1.5, hw=(24, 32), **kwargs):
    return raw(np.full(hw, value, np.float32), '32FC1', **kwargs)


def depth_for(cam, hw=(24, 32), frame=FRAME, wait=0.0):
    return cam.depth_for(S, frame, hw, time.monotonic() + wait)


def fault(msg, **kwargs):
    cam = camera()
    if msg is not None:
        cam.take(msg)
    with pytest.raises(DepthError) as error:
        depth_for(cam, **kwargs)
    return error.value


@pytest.mark.parametrize('msg', [millimetres(), metres(), millimetres(padding=3), metres(padding=5)])
def test_integers_are_millimetres_and_floats_metres_whatever_the_step(msg):
    cam = camera()
    cam.take(msg)
    depth = depth_for(cam)
    assert depth.dtype == np.float32 and depth.shape == (24, 32)
    np.testing.assert_allclose(depth, 1.5, atol=1e-6)


def test_what_is_no_number_is_unknown():
    values = np.array([[1.0, np.nan, np.inf, -1.0]], np.float32)
    np.testing.assert_array_equal(metric_depth(raw(values, '32FC1'), 't', 100), [[1, 0, 0, 0]])


def test_compressed_depth_of_both_encodings_is_read():
    values = np.arange(600, 600 + 24 * 32, dtype=np.uint16).reshape(24, 32)
    png = cv2.imencode('.png', values)[1].tobytes()
    whole = CompressedImage(
        format='16UC1; compressedDepth png', data=message_data(np.frombuffer(bytes(12) + png, np.uint8))
    )
    np.testing.assert_allclose(metric_depth(whole, 't', 10_000), values / 1000, atol=1e-6)
    head = struct.pack('<iff', 0, 1000.0, -100.0)
    inverse = CompressedImage(format='32FC1; compressedDepth', data=message_data(np.frombuffer(head + png, np.uint8)))
    np.testing.assert_allclose(metric_depth(inverse, 't', 10_000), 1000 / (values + 100.0), rtol=1e-5)


def test_compressed_depth_that_is_no_png_or_too_large_is_refused():
    cam = camera(transport='compressed', max_image_pixels=100)
    png = cv2.imencode('.png', np.ones((24, 32), np.uint16))[1].tobytes()
    for data, kind in (
        (bytes(12) + png, DepthFault.DATA),
        (bytes(40), DepthFault.ENCODING),
        (bytes(3), DepthFault.ENCODING),
    ):
        msg = CompressedImage(format='16UC1; compressedDepth', data=message_data(np.frombuffer(data, np.uint8)))
        with pytest.raises(DepthError) as error:
            metric_depth(msg, cam.topic, 100)
        assert error.value.kind is kind


def test_the_same_aspect_at_another_size_is_resized_by_nearest_pixels():
    depth = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(fitted(depth, (4, 6)), np.repeat(np.repeat(depth, 2, 0), 2, 1))
    assert fitted(fitted(depth, (4, 6)), (2, 3)).tolist() == depth.tolist()


def test_another_aspect_is_refused():
    error = fault(millimetres(hw=(18, 32)))
    assert error.kind is DepthFault.SIZE and 'align_depth.enable:=true' in error.fix


def test_depth_of_another_frame_is_not_registered():
    error = fault(millimetres(frame='left_depth_optical'))
    assert error.kind is DepthFault.UNREGISTERED and 'align_depth.enable:=true' in error.fix
    assert 'left_depth_optical' in error.what and FRAME in error.what


@pytest.mark.parametrize(
    ('msg', 'looks'),
    [(millimetres(2), 'metres'), (metres(1500.0), 'millimetres'), (millimetres(60_000), 'millimetres')],
)
def test_implausible_units_are_said(msg, looks):
    error = fault(msg)
    assert error.kind is DepthFault.UNITS and f'were {looks}' in error.what


@pytest.mark.parametrize('msg', [millimetres(0), metres(0.0), metres(np.nan)])
def test_depth_of_nothing_is_said(msg):
    assert fault(msg).kind is DepthFault.EMPTY


@pytest.mark.parametrize(('off', 'word'), [(-200, 'older'), (200, 'newer')])
def test_depth_of_another_time_is_said_with_the_gap(off, word):
    error = fault(millimetres(stamp_ns=S + off * MS))
    assert error.kind is DepthFault.STAMP and f'200 ms {word}' in error.what and 'slop' in error.fix


def test_the_nearest_within_slop_is_taken():
    cam = camera()
    for off, value in ((-40, 1000), (10, 2000), (45, 3000)):
        cam.take(millimetres(value, stamp_ns=S + off * MS))
    np.testing.assert_allclose(depth_for(cam), 2.0)


def test_none_at_all_is_not_waited_for():
    began = time.monotonic()
    error = fault(None, wait=5.0)
    assert error.kind is DepthFault.SILENT and time.monotonic() - began < 1


def test_depth_that_comes_later_than_colour_is_waited_for():
    import threading

    cam = camera()
    cam.take(millimetres(stamp_ns=S - 100 * MS))
    timer = threading.Timer(0.05, cam.take, [millimetres(2000)])
    timer.start()
    np.testing.assert_allclose(depth_for(cam, wait=5.0), 2.0)
    timer.join()


@pytest.mark.parametrize('changes', [{'encoding': 'rgb8'}, {'step': 3}, {'height': 1000}, {'width': 0}])
def test_broken_messages_are_said(changes):
    msg = millimetres()
    for name, value in changes.items():
        setattr(msg, name, value)
    assert fault(msg).kind in (DepthFault.DATA, DepthFault.ENCODING)
