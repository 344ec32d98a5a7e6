"""Sets of messages become anchor sets, handed over directly: no camera, no stream, no waiting for DDS."""

from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from wristworld_ros.pipeline.frame_sync import Stamped
from wristworld_ros.ros import image_inputs
from wristworld_ros.ros.conversions import scale_intrinsics, to_compressed, to_image, to_stamp
from wristworld_ros.ros.image_inputs import ImageInputs
from wristworld_ros.ros.knowledge import Knowledge
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.settings import NodeSettings

STAMP = 1_000_000_000
K = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])


@pytest.fixture
def inputs(monkeypatch):
    """Inputs of two anchors, on a node that hears nothing, of a model that always fits."""
    monkeypatch.setattr(image_inputs, 'check_input', lambda *_: '')
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node('decoding', context=context)
    settings = NodeSettings(anchors=['left', 'right'], tf_timeout=0.0, use_depth='never', use_robot_model='never')
    metrics = Metrics()
    yield ImageInputs(node, settings, SimpleNamespace(), metrics, Knowledge(node, settings, metrics, (48, 64)))
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def header(name='left'):
    return Header(stamp=to_stamp(STAMP), frame_id=name)


def image(height, width, value):
    return Stamped(STAMP, to_image(np.full((height, width, 3), value, np.uint8), header()))


def test_images_of_another_size_come_to_that_of_the_first_and_their_intrinsics_with_them(inputs):
    for anchor, scale in zip(inputs._anchors, (1, 2)):
        k = scale_intrinsics(K, (64, 48), (64 * scale, 48 * scale))
        anchor.on_camera_info(CameraInfo(width=64 * scale, height=48 * scale, k=[float(v) for v in k.ravel()]))
    anchors = inputs.decode([image(48, 64, 10), image(96, 128, 200)])
    assert anchors.names == ('left', 'right') and anchors.stamp_ns == STAMP
    assert (
        anchors.images.shape == (2, 48, 64, 3) and (anchors.images[0] == 10).all() and (anchors.images[1] == 200).all()
    )
    np.testing.assert_allclose(anchors.intrinsics, [K, K], atol=1e-9)


def test_intrinsics_are_unknown_camera_by_camera(inputs):
    assert inputs.decode([image(48, 64, 10), image(48, 64, 200)]).intrinsics is None
    inputs._anchors[1].on_camera_info(CameraInfo(width=64, height=48, k=[float(v) for v in K.ravel()]))
    intrinsics = inputs.decode([image(48, 64, 10), image(48, 64, 200)]).intrinsics
    assert np.isnan(intrinsics[0]).all()
    np.testing.assert_allclose(intrinsics[1], K)


def test_a_set_with_a_damaged_image_is_none_and_all_of_it_is_counted(inputs):
    damaged = to_compressed(np.zeros((48, 64, 3), np.uint8), header())
    damaged.data = damaged.data[: len(damaged.data) // 2]
    assert inputs.decode([image(48, 64, 10), Stamped(STAMP, damaged)]) is None
    counts = {name: inputs._metrics[name] for name in ('images_bad_data', 'images_left_over', 'sets_undecodable')}
    assert counts == {'images_bad_data': 1, 'images_left_over': 1, 'sets_undecodable': 1}
