"""The virtual wrist camera beside cameras that already run.

ros2 launch wristworld_ros virtual_wrist.launch.py anchors:=left,right topics:=/camera_1/color/image_raw,/camera_2/color/image_raw

An argument left empty keeps what the parameter file says.
"""

import os
from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from wristworld_ros.errors import UserError
from wristworld_ros.ros import environment

SHARE = Path(get_package_share_directory('wristworld_ros'))
SWITCH = ['true', 'false']

ARGUMENTS = [
    DeclareLaunchArgument('anchors', default_value='', description='Names of the anchor cameras, separated by commas: left,right.'),
    DeclareLaunchArgument('topics', default_value='', description='Image topic of each anchor, separated by commas, in their order; empty: anchor_<name>/image_raw. The calibration is its sibling camera_info.'),
    DeclareLaunchArgument('transport', default_value='', description='raw, or compressed for <topic>/compressed.', choices=['', 'raw', 'compressed']),
    DeclareLaunchArgument('model', default_value='', description='A model that ships with the package, or the path of a model directory.'),
    DeclareLaunchArgument('device', default_value='', description='Where the model runs.', choices=['', 'auto', 'cpu', 'cuda']),
    DeclareLaunchArgument('rate', default_value='', description='Most anchor sets per second that are used, or unlimited.'),
    DeclareLaunchArgument('namespace', default_value='', description='Namespace of the node and of its relative topics.'),
    DeclareLaunchArgument('use_sim_time', default_value='false', description='Take the time from /clock.', choices=SWITCH),
    DeclareLaunchArgument('autostart', default_value='true', description='Configure and activate at the start; false leaves that to a lifecycle manager.', choices=SWITCH),
    DeclareLaunchArgument('respawn', default_value='false', description='End the process when its GPU is lost, and start it again whenever it ends.', choices=SWITCH),
    DeclareLaunchArgument('rviz', default_value='false', description='Show anchors, wrist, cloud and frames in rviz.', choices=SWITCH),
    DeclareLaunchArgument('params_file', default_value=str(SHARE / 'config/virtual_wrist.yaml'), description='Parameters of the node.'),
]  # fmt: skip


def names(text: str) -> list[str]:
    """Parts of a list separated by commas, with or without brackets."""
    return [part.strip().strip('\'"') for part in text.strip().strip('[]').split(',') if part.strip()]


def remappings(anchors: list[str], topics: list[str]) -> list[tuple[str, str]]:
    """Anchor topics of the node to the cameras' own."""
    if topics and len(topics) != len(anchors):
        raise UserError(f'{len(topics)} topics for {len(anchors)} anchors ({", ".join(anchors)})', 'give one per anchor')
    out = []
    for name, topic in zip(anchors, topics):
        topic = topic.removesuffix('/compressed')
        out += [
            (f'anchor_{name}/image_raw', topic),
            (f'anchor_{name}/image_raw/compressed', f'{topic}/compressed'),
            (f'anchor_{name}/camera_info', f'{topic.rpartition("/")[0]}/camera_info'),
        ]
    return out


def anchors_in(params_file: str) -> list[str]:
    """The anchors that a parameter file names."""
    return anchors_below(yaml.safe_load(Path(params_file).read_text()))


def anchors_below(tree: object) -> list[str]:
    """The anchors that a part of a parameter file names."""
    if not isinstance(tree, dict):
        return []
    found = list(tree.get('ros__parameters', {}).get('anchors', []))
    for value in tree.values():
        found += anchors_below(value)
    return found


def start(context):
    """The actions, once the arguments are known."""
    given = {a.name: LaunchConfiguration(a.name).perform(context) for a in ARGUMENTS}
    anchors = names(given['anchors']) or anchors_in(given['params_file'])
    changes = {key: given[key] for key in ('transport', 'model', 'device') if given[key]}
    if given['anchors']:
        changes['anchors'] = anchors
    if given['rate']:
        changes['max_rate'] = given['rate'] if given['rate'] == 'unlimited' else float(given['rate'])
    changes |= {key: given[key] == 'true' for key in ('use_sim_time', 'autostart')}
    respawn = given['respawn'] == 'true'
    if respawn:  # a process that stays, finalized, would never be started again
        changes['exit_on_gpu_loss'] = True
    actions = []
    if not any(name in os.environ for name in environment.PROFILE_VARIABLES.values()):
        profile = str(SHARE / 'config/fastdds_shared_memory.xml')
        actions.append(SetEnvironmentVariable(environment.profile_variable(), profile))
    actions.append(
        Node(
            package='wristworld_ros',
            executable='virtual_wrist',
            name='virtual_wrist',
            namespace=given['namespace'],
            parameters=[given['params_file'], changes],
            remappings=remappings(anchors, names(given['topics'])),
            respawn=respawn,
            respawn_delay=5.0,
            output='screen',
            emulate_tty=True,
        )
    )
    if given['rviz'] == 'true':
        shown = ['anchor_left/image_raw', 'wrist/image_raw', 'wrist/condition/image_raw', 'points', 'wrist/pose']
        sources = {f'anchor_{name}/image_raw': topic for name, topic in zip(anchors, names(given['topics']))}
        first = f'anchor_{anchors[0]}/image_raw'
        actions.append(
            Node(
                package='rviz2',
                executable='rviz2',
                name='rviz2',
                namespace=given['namespace'],
                arguments=['-d', str(SHARE / 'config/virtual_wrist.rviz'), '-f', f'anchor_{anchors[0]}_optical_frame'],
                parameters=[{'use_sim_time': changes['use_sim_time']}],
                # The configuration has absolute topics and the anchor `left`: map them to this node's.
                remappings=[(f'/{t}', sources.get(first, first) if t.startswith('anchor_') else t) for t in shown],
                output='log',
            )
        )
    return actions


def generate_launch_description():
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
