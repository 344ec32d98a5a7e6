"""What the doctor finds in a survey of the topics."""

from dataclasses import replace

import pytest

from wristworld_ros.apps.doctor.topics import calibration_findings, topic_findings
from wristworld_ros.ros.topic_survey import Anchor, Calibration, Publisher, TopicSurvey
from wristworld_ros.settings import NodeSettings

RAW = 'sensor_msgs/msg/Image'
FINE = Anchor(
    name='left', topic='/anchor_left/image_raw', wanted=RAW, publishers=(Publisher('/camera', RAW, 'reliable'),),
    calibration=Calibration('/anchor_left/camera_info', True, True, False, 640, 480), images=30, rate=15.0, width=640, height=480,
    encoding='rgb8', size=921_600, age=0.01,
)  # fmt: skip


def finding(**changes):
    (out,) = topic_findings(TopicSurvey((replace(FINE, **changes),), 2.0, 30, ('/cam/color',)), NodeSettings(), 5.0)
    return out


def test_a_good_camera_is_reported_with_rate_size_and_quality_of_service():
    assert finding().state == 'ok'
    assert '15.0 images/s, 640x480 rgb8, /camera, reliable' in finding().what


@pytest.mark.parametrize(
    ('changes', 'state', 'words'),
    [
        ({'publishers': ()}, 'error', 'image topics that exist: /cam/color'),
        ({'publishers': (), 'topic': '/cam/color/compressed'}, 'error', 'but /cam/color exists'),
        ({'publishers': (Publisher('/c', 'sensor_msgs/msg/CompressedImage', 'reliable'),)}, 'error', 'carries'),
        ({'images': 0}, 'error', 'carried no image in 2 s'),
        ({'bad': 'step is 7 bytes'}, 'error', 'step is 7'),
        ({'publishers': 2 * FINE.publishers}, 'error', '2 publishers'),
        ({'age': 0.9}, 'error', '0.90 s old'),
        ({'age': -3.0}, 'error', 'in the future'),
        ({'age': 1e9}, 'error', 'old'),
        ({'rate': 3.0}, 'warning', 'where 5 per second'),
    ],
)
def test_what_is_wrong_with_a_camera(changes, state, words):
    assert finding(**changes).state == state and words in finding(**changes).what


def test_the_fix_for_stamps_of_another_clock_names_sim_time_and_for_a_small_lag_chrony():
    assert 'use_sim_time' in finding(age=1e9).fix and 'chrony' in finding(age=0.9).fix


@pytest.mark.parametrize(('sets', 'state'), [(0, 'error'), (10, 'warning'), (28, 'ok')])
def test_stamps_that_do_not_match_are_reported_with_their_distance(sets, state):
    right = replace(FINE, name='right', apart=0.31)
    found = topic_findings(TopicSurvey((FINE, right), 2.0, sets), NodeSettings(), 5.0)[-1]
    assert found.state == state and 'anchor sets' in found.what
    assert state == 'ok' or '0.310 s apart' in found.what


def test_one_camera_needs_no_partner():
    assert len(topic_findings(TopicSurvey((FINE,), 2.0, 0), NodeSettings(), 5.0)) == 1


@pytest.mark.parametrize(
    ('left', 'right', 'states'),
    [
        ({}, {}, ['ok', 'ok']),
        ({'calibrated': False}, {'received': False, 'calibrated': False}, ['ok']),
        ({'calibrated': False}, {}, ['warning']),
        ({'distorted': True}, {}, ['warning', 'ok']),
        ({'width': 1000}, {}, ['warning', 'ok']),
        ({'width': 1280, 'height': 960}, {}, ['ok', 'ok']),
    ],
)
def test_calibrations(left, right, states):
    anchors = tuple(replace(FINE, calibration=replace(FINE.calibration, **c)) for c in (left, right))
    assert [found.state for found in calibration_findings(TopicSurvey(anchors, 2.0, 30))] == states


def test_a_survey_survives_its_way_as_json():
    survey = TopicSurvey((FINE, replace(FINE, name='right')), 2.0, 30, ('/a', '/b'), '/profile.xml')
    assert TopicSurvey.from_json(survey.to_json()) == survey
