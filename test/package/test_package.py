"""What the package says of itself is the same everywhere, and what it installs is all there."""

import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import rclpy
from tf2_msgs.msg import TFMessage

import wristworld_ros
from wristworld_ros.msg import VirtualWristStatus, WristView
from wristworld_ros.ros import settings_files

ROOT = Path(__file__).resolve().parents[2]
TF_HASH = 'RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087'


def carried_hashes() -> dict[str, str]:
    """Type hashes as this build's nodes tell them to the network."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('hashes', context=context)
    kinds = {
        'wristworld_ros/msg/WristView': WristView,
        'wristworld_ros/msg/VirtualWristStatus': VirtualWristStatus,
        'tf2_msgs/msg/TFMessage': TFMessage,
    }
    try:
        out = {}
        for i, (name, kind) in enumerate(kinds.items()):
            node.create_publisher(kind, f'/hash_{i}', 1)
            out[name] = str(node.get_publishers_info_by_topic(f'/hash_{i}')[0].topic_type_hash)
        return out
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_type_hashes_are_those_rosbags_computes_from_the_message_files(typestore):
    for name, carried in carried_hashes().items():
        assert carried == typestore.hash_rihs01(name), f'{name}: the installed messages are not those of this tree'


def test_the_tf_message_is_the_one_every_ros_node_knows():
    assert carried_hashes()['tf2_msgs/msg/TFMessage'] == TF_HASH


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    manifest = ET.parse(ROOT / 'package.xml').getroot()
    assert project['version'] == manifest.findtext('version') == wristworld_ros.__version__
    assert project['license'] == manifest.findtext('license') == 'Apache-2.0'


def test_every_message_is_built_and_every_script_installed():
    cmake = (ROOT / 'CMakeLists.txt').read_text()
    for path in (ROOT / 'msg').glob('*.msg'):
        assert f'msg/{path.name}' in cmake
    for name in ('virtual_wrist', 'camera', 'rviz_starter', 'wristworld'):
        script = ROOT / 'scripts' / name
        assert script.stat().st_mode & 0o111 and f'scripts/{name}' in cmake


def test_every_ros_package_that_is_imported_is_in_the_manifest():
    manifest = ET.parse(ROOT / 'package.xml').getroot()
    declared = {e.text for e in manifest if e.tag.endswith('depend')}
    imports = re.compile(r'^\s*(?:from|import) (\w+)', re.M)
    sources = [*(ROOT / 'wristworld_ros/ros').glob('*.py'), *(ROOT / 'launch').glob('*.py')]
    used = {name for path in sources for name in imports.findall(path.read_text())}
    ros = {
        n
        for n in used
        if n.endswith(('_msgs', '_srvs', '_interfaces'))
        or n in ('rclpy', 'launch', 'launch_ros', 'cv_bridge', 'tf_transformations')
    }
    assert 'rclpy' in ros and ros <= declared


def test_the_yaml_and_the_docs_table_say_what_the_settings_say():
    for path, text in settings_files.files(ROOT).items():
        assert path.read_text() == text, f'{path.name} is out of step: python -m wristworld_ros.ros.settings_files'
