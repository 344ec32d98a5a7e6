"""The virtual wrist camera beside cameras that already run.

ros2 launch wristworld_ros virtual_wrist.launch.py anchors:=left,right topics:=/camera_1/color/image_raw,/camera_2/color/image_raw

An argument left empty keeps what the parameter file says.
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from wristworld_ros.errors import UserError
from wristworld_ros.ros import environment
from wristworld_ros.ros.parameter_files import node_parameters
from wristworld_ros.settings import NodeSettings

SHARE = Path(get_package_share_directory('wristworld_ros'))
SWITCH = ['true', 'false']

ARGUMENTS = [
    DeclareLaunchArgument('anchors', default_value='', description='Names of the anchor cameras, separated by commas: left,right.'),
    DeclareLaunchArgument('topics', default_value='', description='Image topic of each anchor, separated by commas, in their order; empty: anchor_<name>/image_raw. The calibration is its sibling camera_info.'),
    DeclareLaunchArgument('transport', default_value='', description='raw, or compressed for <topic>/compressed.', choices=['', 'raw', 'compressed']),
    DeclareLaunchArgument('model', default_value='', description='A model that ships with the package, or the path of a model directory.'),
    DeclareLaunchArgument('device', default_value='', description='Where the model runs: auto, cpu, cuda or cuda:N.'),
    DeclareLaunchArgument('rate', default_value='', description='Most anchor sets per second that are used, or unlimited.'),
    DeclareLaunchArgument('wrist_frame', default_value='', description='TF frame of the virtual wrist camera; auto: virtual_wrist_optical_frame below the namespace.'),
    DeclareLaunchArgument('anchor_frame', default_value='', description='TF frame of the first anchor; auto: the frame_id of its images.'),
    DeclareLaunchArgument('namespace', default_value='', description='Namespace of the node and of its relative topics.'),
    DeclareLaunchArgument('use_sim_time', default_value='false', description='Take the time from /clock.', choices=SWITCH),
    DeclareLaunchArgument('autostart', default_value='true', description='Configure and activate at the start; false leaves that to a lifecycle manager.', choices=SWITCH),
    DeclareLaunchArgument('respawn', default_value='false', description='End the process when its GPU is lost, and start it again whenever it ends.', choices=SWITCH),
    DeclareLaunchArgument('rviz', default_value='false', description='Show anchors, wrist, cloud and frames in rviz, once the first image tells the fixed frame.', choices=SWITCH),
    DeclareLaunchArgument('params_file', default_value=str(SHARE / 'config/virtual_wrist.yaml'), description='Parameters of the node.'),
]  # fmt: skip
AS_GIVEN = ('transport', 'model', 'device', 'wrist_frame', 'anchor_frame')


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


def rviz_starter(given: dict[str, str], transport: str, anchors: list[str], topics: list[str]) -> Node:
    """Waits for the first image of the first anchor, whose frame is fixed, and becomes rviz2."""
    return Node(
        package='wristworld_ros',
        executable='rviz_starter',
        name='rviz_starter',
        namespace=given['namespace'],
        arguments=['--anchors', *anchors],
        parameters=[{'use_sim_time': given['use_sim_time'] == 'true', 'transport': transport}],
        remappings=remappings(anchors, topics),
        output='screen',
        emulate_tty=True,
    )


def start(context):
    """The actions, once the arguments are known."""
    given = {a.name: LaunchConfiguration(a.name).perform(context) for a in ARGUMENTS}
    in_file = node_parameters(given['params_file'], f'/{given["namespace"].strip("/")}/virtual_wrist'.replace('//', '/'))
    anchors = names(given['anchors']) or in_file.get('anchors') or NodeSettings().anchors
    topics = names(given['topics'])
    changes = {key: given[key] for key in AS_GIVEN if given[key]}
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
            remappings=remappings(anchors, topics),
            respawn=respawn,
            respawn_delay=5.0,
            output='screen',
            emulate_tty=True,
        )
    )
    if given['rviz'] == 'true':
        transport = given['transport'] or in_file.get('transport') or NodeSettings().transport
        actions.append(rviz_starter(given, transport, anchors, topics))
    return actions


def generate_launch_description():
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
