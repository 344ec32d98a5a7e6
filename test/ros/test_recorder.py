"""What the recorder writes of messages is what the readers of a recording expect."""

import json

import pytest
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from wristworld_ros.msg import VirtualWristStatus, WristView
from wristworld_ros.ros.recorder_node import status_record, view_record
from wristworld_ros.types import FrameStatus

STAMP = Time(sec=12, nanosec=34)


@pytest.mark.parametrize('status', FrameStatus)
def test_a_view_is_recorded_with_the_name_of_its_status_and_whether_it_is_valid(status):
    view = WristView(header=Header(stamp=STAMP), coverage=0.5, confidence=0.25, latency=0.125, age=2.0)
    view.status, view.reason = int(status), '' if status is FrameStatus.VALID else 'a sentence'
    record = json.loads(json.dumps(view_record(view, 99)))
    assert record == {
        'stamp_ns': 12_000_000_034, 'received_ns': 99, 'coverage': 0.5, 'confidence': 0.25, 'latency': 0.125, 'age': 2.0,
        'status': status.name, 'valid': status is FrameStatus.VALID, 'reason': view.reason,
    }  # fmt: skip


def test_a_status_is_recorded_whole():
    message = VirtualWristStatus(
        stamp=STAMP, state=VirtualWristStatus.ACTIVE, silent_anchors=['left'], frames_invalid=3
    )
    record = json.loads(json.dumps(status_record(message)))
    assert set(record) == set(VirtualWristStatus.get_fields_and_field_types())
    assert record['stamp'] == 12_000_000_034 and record['state'] == 3
    assert record['silent_anchors'] == ['left'] and record['frames_invalid'] == 3
