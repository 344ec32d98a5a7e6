"""One level and one sentence for each state of the node."""

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.ros.status_publisher import assess, diagnostic_array

FINE = {'state': VirtualWristStatus.ACTIVE, 'enabled': True, 'frames_published': 5}


class GivenUp:
    """An `OomFallback` that has applied two steps."""

    applied = ('history', 'offload')

    def __str__(self):
        return 'Memory ran out while running, so the history was shortened.'


@pytest.mark.parametrize(
    ('fields', 'level', 'words'),
    [
        ({}, DiagnosticStatus.OK, 'frames/s'),
        ({'state': VirtualWristStatus.INACTIVE}, DiagnosticStatus.OK, 'inactive'),
        ({'enabled': False}, DiagnosticStatus.OK, 'enable'),
        ({'model_errors': 2}, DiagnosticStatus.ERROR, '2 anchor sets'),
        ({'model_errors': 2, 'reason': 'out of memory'}, DiagnosticStatus.ERROR, 'out of memory'),
        ({'silent_anchors': ['left']}, DiagnosticStatus.ERROR, 'left'),
        ({'images_bad_step': 1, 'images_bad_data': 2}, DiagnosticStatus.WARN, '3 unusable'),
        ({'publish_errors': 4}, DiagnosticStatus.WARN, '4 times'),
        ({'frames_published': 0, 'reason': 'too little covered'}, DiagnosticStatus.WARN, 'too little covered'),
        ({'frames_published': 0}, DiagnosticStatus.WARN, 'No wrist frame'),
        ({'state': VirtualWristStatus.FINALIZED, 'reason': 'The GPU is lost'}, DiagnosticStatus.ERROR, 'GPU is lost'),
    ],
)
def test_each_state_has_its_level_and_sentence(fields, level, words):
    found, message = assess(VirtualWristStatus(**(FINE | fields)), None)
    assert found == level and words in message


def test_what_happened_before_the_last_report_is_no_news():
    before = VirtualWristStatus(**FINE, model_errors=3, images_bad_data=7)
    now = VirtualWristStatus(**FINE | {'frames_published': 9}, model_errors=3, images_bad_data=7)
    assert assess(now, before)[0] == DiagnosticStatus.OK


def test_every_field_of_the_status_is_shown():
    (entry,) = diagnostic_array(VirtualWristStatus(**FINE, device='cpu'), None, '/robot/virtual_wrist').status
    assert {v.key for v in entry.values} == set(VirtualWristStatus.get_fields_and_field_types()) - {'stamp'} | {
        'oom_steps_applied'
    }
    assert entry.hardware_id == 'cpu' and entry.name.startswith('/robot/virtual_wrist')


def test_the_state_is_shown_by_its_name():
    (entry,) = diagnostic_array(VirtualWristStatus(**FINE), None, '/w').status
    assert {v.key: v.value for v in entry.values}['state'] == 'active'


def test_what_was_given_up_is_a_warning_as_long_as_nothing_worse_happens():
    given_up = GivenUp()
    assert assess(VirtualWristStatus(**FINE), None, str(given_up)) == (DiagnosticStatus.WARN, str(given_up))
    assert assess(VirtualWristStatus(**FINE | {'model_errors': 1}), None, str(given_up))[0] == DiagnosticStatus.ERROR
    (entry,) = diagnostic_array(VirtualWristStatus(**FINE), None, '/w', given_up).status
    assert entry.level == DiagnosticStatus.WARN and entry.message == str(given_up)
    assert {v.key: v.value for v in entry.values}['oom_steps_applied'] == 'history, offload'
