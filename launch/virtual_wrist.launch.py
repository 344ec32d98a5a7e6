"""The virtual wrist camera beside cameras that already run.

Two RealSense cameras (`align_depth.enable:=true`, `enable_sync:=true`) and a Franka with its own nodes; wrist_mount is where the
wrist camera is to be on the hand, and TF must have the cameras (static transforms from fr3_link0 to their optical frames):

ros2 launch wristworld_ros virtual_wrist.launch.py anchors:=left,right \
    topics:=/left/camera/color/image_raw,/right/camera/color/image_raw wrist_mount:='0.05 0 0.04 0 0 0.7071068 0.7071068'

Their depth is then taken from /left/camera/aligned_depth_to_color/image_raw and its like on the right (`depth_topics` names others,
`depth:=false` leaves depth out), the arm from /joint_states and /robot_description. From images alone:

ros2 launch wristworld_ros virtual_wrist.launch.py anchors:=left,right topics:=/cam_1/image_raw,/cam_2/image_raw

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
from wristworld_ros.ros.names import COMPRESSED_DEPTH, aligned_depth_topic
from wristworld_ros.ros.parameter_files import node_parameters
from wristworld_ros.settings import NodeSettings

SHARE = Path(get_package_share_directory('wristworld_ros'))
SWITCH = ['true', 'false']

ARGUMENTS = [
    DeclareLaunchArgument('anchors', default_value='', description='Names of the anchor cameras, separated by commas: left,right.'),
    DeclareLaunchArgument('topics', default_value='', description='Image topic of each anchor, separated by commas, in their order; empty: anchor_<name>/image_raw. The calibration is its sibling camera_info.'),
    DeclareLaunchArgument('depth', default_value='', description='Whether depth of the anchors is used where it is there.', choices=['', *SWITCH]),
    DeclareLaunchArgument('depth_topics', default_value='', description='Topic of each anchor with depth registered to its images, separated by commas; empty: beside topics, as RealSense has it (.../aligned_depth_to_color/image_raw).'),
    DeclareLaunchArgument('base_frame', default_value='', description="TF frame of the robot's base."),
    DeclareLaunchArgument('hand_frame', default_value='', description='TF frame of the hand.'),
    DeclareLaunchArgument('wrist_mount', default_value='', description='Pose of the wrist camera in wrist_mount_frame: x y z qx qy qz qw.'),
    DeclareLaunchArgument('wrist_mount_frame', default_value='', description='TF frame in which wrist_mount is given; empty: hand_frame.'),
    DeclareLaunchArgument('wrist_camera_frame', default_value='', description='Optical frame of a wrist camera that TF already has, in place of wrist_mount.'),
    DeclareLaunchArgument('wrist_camera_info', default_value='', description='Calibration of the wrist camera to be imitated: a YAML file, or a camera_info topic.'),
    DeclareLaunchArgument('calibration_file', default_value='', description='What `wristworld calibrate` wrote: places of the anchors, and of the wrist camera.'),
    DeclareLaunchArgument('joint_states', default_value='/joint_states', description='Topic of the joint states.'),
    DeclareLaunchArgument('robot_description', default_value='/robot_description', description='Topic of the robot description.'),
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
    DeclareLaunchArgument('rviz', default_value='false', description='Show anchors, wrist, cloud, robot and frames in rviz.', choices=SWITCH),
    DeclareLaunchArgument('params_file', default_value=str(SHARE / 'config/virtual_wrist.yaml'), description='Parameters of the node.'),
]  # fmt: skip
AS_GIVEN = (
    'transport', 'model', 'device', 'wrist_frame', 'anchor_frame', 'base_frame', 'hand_frame', 'wrist_mount', 'wrist_mount_frame', 'wrist_camera_frame',
    'wrist_camera_info', 'calibration_file',
)  # fmt: skip
ROBOT_TOPICS = ('joint_states', 'robot_description')


def names(text: str) -> list[str]:
    """Parts of a list separated by commas, with or without brackets."""
    return [part.strip().strip('\'"') for part in text.strip().strip('[]').split(',') if part.strip()]


def remappings(anchors: list[str], topics: list[str], depth_topics: list[str]) -> list[tuple[str, str]]:
    """Anchor topics of the node to the cameras' own."""
    for what, given in (('topics', topics), ('depth_topics', depth_topics)):
        if given and len(given) != len(anchors):
            raise UserError(
                f'{len(given)} {what} for {len(anchors)} anchors ({", ".join(anchors)})', 'give one per anchor'
            )
    out = []
    for name, topic in zip(anchors, topics):
        topic = topic.removesuffix('/compressed')
        out += [
            (f'anchor_{name}/image_raw', topic),
            (f'anchor_{name}/image_raw/compressed', f'{topic}/compressed'),
            (f'anchor_{name}/camera_info', f'{topic.rpartition("/")[0]}/camera_info'),
        ]
    for name, topic in zip(anchors, depth_topics or map(aligned_depth_topic, topics)):
        topic, own = topic.removesuffix(COMPRESSED_DEPTH), f'anchor_{name}/depth/image_raw'
        out += [(own, topic), (own + COMPRESSED_DEPTH, topic + COMPRESSED_DEPTH)]
    return out


def rviz_starter(given: dict[str, str], transport: str, anchors: list[str], renamed: list, fixed_frame: str) -> Node:
    """Becomes rviz2; where the fixed frame is '', that of the first anchor, for whose first image it waits."""
    return Node(
        package='wristworld_ros',
        executable='rviz_starter',
        name='rviz_starter',
        namespace=given['namespace'],
        arguments=['--anchors', *anchors, *(['--fixed-frame', fixed_frame] if fixed_frame else [])],
        parameters=[{'use_sim_time': given['use_sim_time'] == 'true', 'transport': transport}],
        remappings=renamed,
        output='screen',
        emulate_tty=True,
    )


def fixed_frame(settings: dict) -> str:
    """The robot's base where the place of the wrist camera is known in it; '' where only the images' frame is."""
    known = {'wrist_mount', 'wrist_camera_frame', 'calibration_file'} & {
        key for key, value in settings.items() if value not in (None, 'unknown')
    }
    return settings.get('base_frame') or NodeSettings().base_frame if known else ''


def start(context):
    """The actions, once the arguments are known."""
    given = {a.name: LaunchConfiguration(a.name).perform(context) for a in ARGUMENTS}
    in_file = node_parameters(
        given['params_file'], f'/{given["namespace"].strip("/")}/virtual_wrist'.replace('//', '/')
    )
    anchors = names(given['anchors']) or in_file.get('anchors') or NodeSettings().anchors
    renamed = remappings(anchors, names(given['topics']), names(given['depth_topics']))
    renamed += [(f'/{name}', given[name]) for name in ROBOT_TOPICS if given[name] != f'/{name}']
    changes = {key: given[key] for key in AS_GIVEN if given[key]}
    if given['anchors']:
        changes['anchors'] = anchors
    if given['rate']:
        changes['max_rate'] = given['rate'] if given['rate'] == 'unlimited' else float(given['rate'])
    if given['depth']:
        changes['use_depth'] = 'auto' if given['depth'] == 'true' else 'never'
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
            remappings=renamed,
            respawn=respawn,
            respawn_delay=5.0,
            output='screen',
            emulate_tty=True,
        )
    )
    if given['rviz'] == 'true':
        transport = given['transport'] or in_file.get('transport') or NodeSettings().transport
        actions.append(rviz_starter(given, transport, anchors, renamed, fixed_frame(in_file | changes)))
    return actions


def generate_launch_description():
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
