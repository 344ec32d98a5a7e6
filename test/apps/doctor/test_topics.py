"""What the doctor finds in a survey of the topics."""

from dataclasses import replace

import numpy as np
import pytest

from wristworld_ros.apps.doctor.topics import calibration_findings, topic_findings
from wristworld_ros.ros.topic_survey import Anchor, Calibration, Publisher, TopicSurvey
from wristworld_ros.settings import NodeSettings

RAW = 'sensor_msgs/msg/Image'
FINE = Anchor(
    name='left', topic='/anchor_left/image_raw', wanted=RAW, publishers=(Publisher('/camera', RAW, 'reliable'),),
    calibration=Calibration('/anchor_left/camera_info', True, True, 0.0, 640, 480), images=30, rate=15.0, width=640, height=480,
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
        ({'bad': 'step is 7 bytes', 'fix': 'set it'}, 'error', 'step is 7'),
        ({'sizes': ('640x360', '640x480')}, 'error', '640x360, 640x480'),
        ({'stamps': 1}, 'error', 'one stamp'),
        ({'sent': 60}, 'warning', '30 did not arrive'),
        ({'sent': 31}, 'ok', '15.0'),
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


def test_clocks_that_are_apart_are_reported_with_the_camera_that_is_behind():
    for lag, behind in (
        (3.0, 'right are 3.00 s behind those of left'),
        (-3.0, 'left are 3.00 s behind those of right'),
    ):
        right = replace(FINE, name='right', apart=1.0, lag=lag)
        found = topic_findings(TopicSurvey((FINE, right), 2.0, 0), NodeSettings(), 5.0)[-1]
        assert found.state == 'error' and behind in found.what and 'sync_window' in found.fix


def test_images_without_partner_among_matching_stamps_are_not_blamed_on_the_stamps():
    right = replace(FINE, name='right', images=12, apart=0.0)
    found = topic_findings(TopicSurvey((FINE, right), 2.0, 7), NodeSettings(), 5.0)[-1]
    assert found.state == 'warning' and 'without a partner' in found.what and 'apart' not in found.what


def test_the_fix_for_lost_images_says_how_to_start_the_driver():
    survey = TopicSurvey((replace(FINE, sent=60),), 2.0, 30, (), '/share/profile.xml')
    (found,) = topic_findings(survey, NodeSettings(), 5.0)
    assert 'FASTDDS_DEFAULT_PROFILES_FILE=/share/profile.xml' in found.fix
    assert 'publish reliably' in finding(sent=60, publishers=(Publisher('/c', RAW, 'best effort'),)).fix


@pytest.mark.parametrize('keep', [1.0, 0.8, 0.5, 0.4])
@pytest.mark.parametrize('jitter_ms', [0, 4])
def test_images_sent_are_told_from_the_stamps_of_those_that_came(keep, jitter_ms):
    topic_survey_node = pytest.importorskip('wristworld_ros.ros.topic_survey_node')
    rng = np.random.default_rng(0)
    for period in (33, 125):
        stamps = (1000 + period * np.arange(120) + rng.normal(0, 1, 120) * jitter_ms) * 1e6
        came = [int(stamp) for stamp in stamps[rng.random(120) < keep]]
        span = round((came[-1] - came[0]) / period / 1e6) + 1
        assert topic_survey_node.images_sent(came) == pytest.approx(span, rel=0.04)


def test_every_other_image_lost_is_told_from_the_calibrations():
    topic_survey_node = pytest.importorskip('wristworld_ros.ros.topic_survey_node')
    stamps = [10**9 + i * 10**8 for i in range(41)]
    assert topic_survey_node.images_sent(stamps[::2], stamps) == 41


def test_the_rate_of_a_camera_that_stopped_is_over_the_whole_time():
    topic_survey_node = pytest.importorskip('wristworld_ros.ros.topic_survey_node')
    steady = [0.05 + i * 0.1 for i in range(20)]
    assert topic_survey_node.rate(steady, 2.0) == pytest.approx(10)
    assert topic_survey_node.rate(steady[:5], 2.0) < 3


def test_one_camera_needs_no_partner():
    assert len(topic_findings(TopicSurvey((FINE,), 2.0, 0), NodeSettings(), 5.0)) == 1


@pytest.mark.parametrize(
    ('left', 'right', 'states'),
    [
        ({}, {}, ['ok', 'ok']),
        ({'calibrated': False}, {'received': False, 'calibrated': False}, ['ok']),
        ({'calibrated': False}, {}, ['warning', 'ok']),
        ({'displaced': 9.0}, {}, ['warning', 'ok']),
        ({'displaced': 1.0}, {}, ['ok', 'ok']),
        ({'lens': 'distortion_model x is not known'}, {}, ['warning', 'ok']),
        ({'width': 1000}, {}, ['warning', 'ok']),
        ({'bad': 'k has numbers that are not finite'}, {}, ['warning', 'ok']),
        ({'width': 1280, 'height': 960}, {}, ['ok', 'ok']),
    ],
)
def test_calibrations(left, right, states):
    anchors = tuple(replace(FINE, calibration=replace(FINE.calibration, **c)) for c in (left, right))
    assert [found.state for found in calibration_findings(TopicSurvey(anchors, 2.0, 30))] == states


def test_distortion_is_ok_where_images_are_undistorted():
    anchor = replace(FINE, calibration=replace(FINE.calibration, displaced=9.0))
    (found,) = calibration_findings(TopicSurvey((anchor,), 2.0, 30))
    assert 'up to 9 pixels' in found.what and 'rectify' in found.fix
    (found,) = calibration_findings(TopicSurvey((anchor,), 2.0, 30), rectify=True)
    assert found.state == 'ok'


def test_it_is_said_what_a_calibration_is_used_for():
    assert 'replaces the predicted intrinsics' in calibration_findings(TopicSurvey((FINE,), 2.0, 30))[0].what


def test_a_survey_survives_its_way_as_json():
    survey = TopicSurvey(
        (FINE, replace(FINE, name='right', sizes=('1x1', '2x2'))), 2.0, 30, ('/a', '/b'), '/profile.xml'
    )
    assert TopicSurvey.from_json(survey.to_json()) == survey
