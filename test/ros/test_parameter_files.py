"""Parameter files: what belongs to a node, and that ROS's own readers take the files that ship."""

from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.node import Node
from rclpy.parameter import parameter_dict_from_yaml_file

from wristworld_ros.errors import UserError
from wristworld_ros.ros.parameter_files import node_parameters
from wristworld_ros.ros.parameters import Parameters
from wristworld_ros.ros.virtual_wrist_node import VirtualWristNode
from wristworld_ros.settings import NodeSettings

CONFIG = Path(__file__).resolve().parents[2] / 'config'

NAMESPACED = """
/**: {ros__parameters: {slop: 0.1, anchors: [front]}}
left_arm:
  virtual_wrist: {ros__parameters: {anchors: [a, b]}}
/right_arm/virtual_wrist: {ros__parameters: {anchors: [c]}}
/*/other: {ros__parameters: {anchors: [d]}}
/deep/**/virtual_wrist: {ros__parameters: {anchors: [e]}}
virtual_wrist: {ros__parameters: {anchors: [f]}}
"""


@pytest.mark.parametrize(
    ('node', 'anchors'),
    [
        ('/left_arm/virtual_wrist', ['a', 'b']),
        ('/right_arm/virtual_wrist', ['c']),
        ('/right_arm/other', ['d']),
        ('/deep/in/there/virtual_wrist', ['e']),
        ('/virtual_wrist', ['f']),
        ('/elsewhere/virtual_wrist', ['front']),
    ],
)
def test_a_node_gets_its_own_part_as_rclpy_reads_it(tmp_path, node, anchors):
    path = tmp_path / 'p.yaml'
    path.write_text(NAMESPACED)
    assert node_parameters(path, node) == {'slop': 0.1, 'anchors': anchors}
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '--params-file', str(path)], context=context)
    namespace, _, name = node.rpartition('/')
    real = Node(name, namespace=namespace or '/', context=context, automatically_declare_parameters_from_overrides=True)
    assert real.get_parameter('anchors').value == anchors
    real.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (None, 'cannot be read'),
        ('', 'is empty'),
        ('[1, 2]', 'list and no nodes'),
        ('a: [', 'not YAML'),
        ('/**: {ros__parameters: {anchors: left}}', "anchors 'left'"),
        ('/**: {ros__parameters: }', 'no parameters'),
    ],
)
def test_what_is_no_parameter_file_is_named_in_one_sentence(tmp_path, text, words):
    path = tmp_path / 'p.yaml'
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words) as raised:
        node_parameters(path, '/virtual_wrist')
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('namespace', ['', '/robot_1'])
def test_ros2_param_load_takes_the_file_that_ships_even_while_configured(namespace):
    file = str(CONFIG / 'virtual_wrist.yaml')
    loaded = parameter_dict_from_yaml_file(file, use_wildcard=True, target_nodes=[f'{namespace}/virtual_wrist'])
    assert set(loaded) >= {'anchors', 'chunk', 'min_coverage'}
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = Node('virtual_wrist', context=context)
    node.is_configured, node.apply_settings = True, lambda settings: None
    Parameters(node, node, NodeSettings())
    results = node.set_parameters([rclpy.parameter.Parameter.from_parameter_msg(m) for m in loaded.values()])
    assert [r.reason for r in results if not r.successful] == []
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_node_takes_its_arm_from_the_two_arm_file():
    context = rclpy.Context()
    arguments = ['--ros-args', '--params-file', str(CONFIG / 'two_arms.yaml'), '-r', '__ns:=/right_arm']
    rclpy.init(args=arguments, context=context)
    node = VirtualWristNode(context=context)
    assert node.settings.anchors == ['top', 'opposite'] and node.settings.max_rate == 10.0
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_the_aggregator_s_analyzer_finds_the_node_s_diagnostics():
    tree = yaml.safe_load((CONFIG / 'diagnostics_aggregator.yaml').read_text())
    (analyzer,) = (v for v in tree['analyzers']['ros__parameters'].values() if isinstance(v, dict))
    assert all(word in '/robot/virtual_wrist: virtual wrist' for word in analyzer['contains'])
    assert analyzer['timeout'] > NodeSettings().diagnostics_period
