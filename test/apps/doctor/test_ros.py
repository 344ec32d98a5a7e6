"""The doctor's findings about ROS and big images, from plain inputs."""

from dataclasses import replace
from pathlib import Path

import pytest

from wristworld_ros.apps.doctor import ros
from wristworld_ros.apps.doctor.finding import exit_status

ROOT = Path(__file__).resolve().parents[3]
WHEEL = ros.Ros('/env/rclpy', '9.1.2', True, ('rmw_fastrtps_cpp',), {})


def only(findings):
    (finding,) = findings
    return finding


# ROS


def test_without_ros_one_error_says_how_to_get_it():
    line = only(ros.ros_findings(replace(WHEEL, rclpy='')))
    assert line.state == 'error' and 'not installed' in line.what and 'ros-rclpy' in line.fix
    assert 'jazzy is sourced' in only(ros.ros_findings(replace(WHEEL, rclpy='', env={'ROS_DISTRO': 'jazzy'}))).what


@pytest.mark.parametrize(
    ('env', 'changes', 'state', 'words'),
    [
        ({}, {}, 'ok', 'ROS kilted'),
        ({'ROS_DISTRO': 'jazzy'}, {'wheel': ''}, 'ok', 'an installed ROS'),
        ({'ROS_DISTRO': 'humble'}, {'wheel': ''}, 'warning', 'older'),
        ({'ROS_DISTRO': 'jazzy'}, {}, 'warning', 'do not mix'),
        ({'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'}, {}, 'error', 'rmw_cyclonedds_cpp'),
        ({}, {'messages': False}, 'error', 'messages'),
        ({'ROS_DOMAIN_ID': '7'}, {}, 'ok', 'ROS_DOMAIN_ID 7'),
        ({'ROS_DOMAIN_ID': 'x'}, {}, 'error', "'x'"),
        ({'ROS_DOMAIN_ID': '233'}, {}, 'error', "'233'"),
        ({'ROS_DOMAIN_ID': '150'}, {}, 'warning', 'ports'),
        ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF'}, {}, 'warning', 'no node finds'),
    ],
)
def test_distribution_middleware_messages_and_network(env, changes, state, words):
    lines = ros.ros_findings(replace(WHEEL, env=env, **changes))
    assert any(line.state == state and words in line.what for line in lines)
    assert state != 'ok' or exit_status(lines) == 0


def test_the_ros_of_this_environment_is_found_without_importing_it():
    found = ros.read_ros()
    assert found.rclpy and found.messages and found.distribution
    assert exit_status(ros.ros_findings(replace(found, env={}))) == 0


# Big images


def test_the_profile_of_the_package_has_room_and_fast_ddss_own_has_not(tmp_path):
    image = 640 * 480 * 3
    ours = ROOT / ros.PROFILE
    assert ros.read_profile(ours) == ([32 * 2**20], False)
    assert ros.profile_finding(str(ours), image).state == 'ok'
    assert ros.profile_finding(str(ours), 4 * 2**22).state == 'warning'
    assert ros.profile_finding('', image).state == 'warning'
    plain = tmp_path / 'plain.xml'
    plain.write_text('<dds><profiles/></dds>')
    assert '512 MiB' not in ros.profile_finding(str(plain), image).what
    assert ros.profile_finding(str(plain), image).state == 'warning'
    plain.write_text(ours.read_text().replace('SHM', 'UDPv4'))
    assert 'no shared memory' in ros.profile_finding(str(plain), image).what
    plain.write_text('<dds>')
    assert ros.profile_finding(str(plain), image).state == 'error'
    assert ros.profile_finding(str(tmp_path / 'none.xml'), image).state == 'error'


@pytest.mark.parametrize(
    ('rmw', 'rmem', 'local', 'states'),
    [
        ('rmw_fastrtps_cpp', 212_992, True, ['ok']),
        ('rmw_fastrtps_cpp', 212_992, False, ['ok', 'warning']),
        ('rmw_fastrtps_cpp', 2**23, False, ['ok', 'ok']),
        ('rmw_cyclonedds_cpp', 212_992, True, ['warning']),
        ('rmw_zenoh_cpp', 212_992, False, []),
        ('rmw_fastrtps_cpp', 0, False, ['ok', 'ok']),
    ],
)
def test_socket_buffers_matter_where_images_come_through_sockets(rmw, rmem, local, states):
    lines = ros.transport_findings(rmw, str(ROOT / ros.PROFILE), rmem, 640 * 480 * 3, 2, local)
    assert [line.state for line in lines] == states
    if 'warning' in states:
        assert 'sysctl -w net.core.rmem_max=8388608' in lines[-1].fix
