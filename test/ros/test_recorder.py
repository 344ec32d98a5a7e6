"""What the recorder writes of messages is what the readers of a recording expect."""

import json

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from wristworld_ros.msg import VirtualWristStatus, WristView
from wristworld_ros.ros.conversions import to_image
from wristworld_ros.ros.recorder_node import RecorderNode, RecorderOptions, status_record, view_record
from wristworld_ros.types import FrameStatus

STAMP = Time(sec=12, nanosec=34)


@pytest.mark.parametrize('status', FrameStatus)
def test_a_view_is_recorded_with_the_name_of_its_status_and_whether_it_is_valid(status):
    view = WristView(header=Header(stamp=STAMP), coverage=0.5, confidence=0.25, agreement=0.75, latency=0.125, age=2.0)
    view.geometry = WristView.CALIBRATED
    view.status, view.reason = int(status), '' if status is FrameStatus.VALID else 'a sentence'
    record = json.loads(json.dumps(view_record(view, 99)))
    assert record == {
        'stamp_ns': 12_000_000_034, 'received_ns': 99, 'coverage': 0.5, 'confidence': 0.25, 'agreement': 0.75, 'latency': 0.125, 'age': 2.0,
        'status': status.name, 'geometry': 'CALIBRATED', 'valid': status is FrameStatus.VALID, 'reason': view.reason,
    }  # fmt: skip


def test_a_status_is_recorded_whole():
    message = VirtualWristStatus(
        stamp=STAMP, state=VirtualWristStatus.ACTIVE, silent_anchors=['left'], frames_invalid=3, anchor_lags=[0.0, 0.5]
    )
    record = json.loads(json.dumps(status_record(message)))
    assert set(record) == set(VirtualWristStatus.get_fields_and_field_types())
    assert record['stamp'] == 12_000_000_034 and record['state'] == 3
    assert (
        record['silent_anchors'] == ['left'] and record['anchor_lags'] == [0.0, 0.5] and record['frames_invalid'] == 3
    )


def test_images_that_cannot_be_used_are_counted_and_logged_by_stream_and_kind(tmp_path, capfd):
    rclpy.init(args=[])
    try:
        node = RecorderNode(RecorderOptions(tmp_path / 'out', ('left',), {}))
        for i in range(5):
            node.take_image('anchor_left', Image(encoding=f'unknown_{i}', width=1, height=1))
            node.take_image('anchor_left', to_image(np.zeros((1 + i, 400, 3), np.uint8), Header(stamp=STAMP)))
        node._print()
        node.close()
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    out, err = capfd.readouterr()
    assert json.loads(out.splitlines()[-1])['bad'] == 10
    assert err.count('was dropped') == 2
