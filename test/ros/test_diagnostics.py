"""One level and one sentence for each state of the node."""

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.ros.diagnostics import to_array, verdict

FINE = {'state': 'active', 'enabled': True, 'frames_published': 5}


@pytest.mark.parametrize(
    ('fields', 'level', 'words'),
    [
        ({}, DiagnosticStatus.OK, 'frames/s'),
        ({'state': 'inactive'}, DiagnosticStatus.OK, 'inactive'),
        ({'enabled': False}, DiagnosticStatus.OK, 'enable'),
        ({'model_errors': 2}, DiagnosticStatus.ERROR, '2 anchor sets'),
        ({'model_errors': 2, 'reason': 'out of memory'}, DiagnosticStatus.ERROR, 'out of memory'),
        ({'silent_anchors': ['left']}, DiagnosticStatus.ERROR, 'left'),
        ({'images_bad_step': 1, 'images_bad_data': 2}, DiagnosticStatus.WARN, '3 malformed'),
        ({'publish_errors': 4}, DiagnosticStatus.WARN, '4 times'),
        ({'frames_published': 0, 'reason': 'too little covered'}, DiagnosticStatus.WARN, 'too little covered'),
        ({'frames_published': 0}, DiagnosticStatus.WARN, 'No wrist frame'),
        ({'state': 'finalized', 'reason': 'The GPU is lost'}, DiagnosticStatus.ERROR, 'GPU is lost'),
    ],
)
def test_the_verdict(fields, level, words):
    found, message = verdict(VirtualWristStatus(**(FINE | fields)), None)
    assert found == level and words in message


def test_what_happened_before_the_last_report_is_no_news():
    before = VirtualWristStatus(**FINE, model_errors=3, images_bad_data=7)
    now = VirtualWristStatus(**FINE | {'frames_published': 9}, model_errors=3, images_bad_data=7)
    assert verdict(now, before)[0] == DiagnosticStatus.OK


def test_every_field_of_the_status_is_shown():
    (entry,) = to_array(VirtualWristStatus(**FINE, device='cpu'), None, '/robot/virtual_wrist').status
    assert {v.key for v in entry.values} == set(VirtualWristStatus.get_fields_and_field_types()) - {'stamp'} | {
        'given_up'
    }
    assert entry.hardware_id == 'cpu' and entry.name.startswith('/robot/virtual_wrist')


def test_what_was_given_up_is_a_warning_as_long_as_nothing_worse_happens():
    said = 'Memory ran out while running, so the window was made smaller.'
    assert verdict(VirtualWristStatus(**FINE), None, said) == (DiagnosticStatus.WARN, said)
    assert verdict(VirtualWristStatus(**FINE | {'model_errors': 1}), None, said)[0] == DiagnosticStatus.ERROR
    (entry,) = to_array(VirtualWristStatus(**FINE), None, '/w', said, ('history', 'offload')).status
    assert {v.key: v.value for v in entry.values}['given_up'] == 'history, offload'
