"""The virtual wrist camera with anchor cameras: a simulated desk, or your own videos.

The desk says what a real one does: depth of its anchors, TF, joint states and robot description.

ros2 launch wristworld_ros demo.launch.py rviz:=true
ros2 launch wristworld_ros demo.launch.py depth:=false
ros2 launch wristworld_ros demo.launch.py source:=videos anchors:=left,right videos:=left.mp4,right.mp4
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, SetLaunchConfiguration
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from wristworld_ros.ros.transforms import pose_text

SHARE = Path(get_package_share_directory('wristworld_ros'))
SWITCH = ['true', 'false']

ARGUMENTS = [
    DeclareLaunchArgument('source', default_value='simulator', description='What the cameras show.', choices=['simulator', 'videos']),
    DeclareLaunchArgument('videos', default_value='', description='With source:=videos: one file per anchor, separated by commas.'),
    DeclareLaunchArgument('anchors', default_value='left,right', description='Names of the anchor cameras, separated by commas.'),
    DeclareLaunchArgument('camera_rate', default_value='10', description='Images per second of each camera, or auto: the rate of the first video.'),
    DeclareLaunchArgument('loop', default_value='true', description='Start over at the end of the videos.', choices=SWITCH),
    DeclareLaunchArgument('seed', default_value='0', description='Which simulated episode comes first.'),
]  # fmt: skip
PASSED_ON = [
    DeclareLaunchArgument('depth', default_value='true', description='Whether the simulated anchors measure depth, and the virtual wrist uses it.', choices=SWITCH),
    DeclareLaunchArgument('base_frame', default_value='', description="TF frame of the robot's base."),
    DeclareLaunchArgument('hand_frame', default_value='', description='TF frame of the hand.'),
    DeclareLaunchArgument('wrist_mount', default_value='', description="Pose of the wrist camera in hand_frame: x y z qx qy qz qw; empty: with the simulator, that of its true wrist camera."),
    DeclareLaunchArgument('wrist_camera_info', default_value='', description='Calibration of the wrist camera to be imitated; empty: with the simulator, that of its true one.'),
    DeclareLaunchArgument('model', default_value='', description='A model that ships with the package, or the path of a model directory.'),
    DeclareLaunchArgument('device', default_value='', description='Where the model runs: auto, cpu, cuda or cuda:N.'),
    DeclareLaunchArgument('transport', default_value='raw', description='How images travel from the cameras: raw, or compressed (JPEG).', choices=['raw', 'compressed']),
    DeclareLaunchArgument('wrist_frame', default_value='', description='TF frame of the virtual wrist camera; auto: virtual_wrist_optical_frame below the namespace.'),
    DeclareLaunchArgument('anchor_frame', default_value='', description='TF frame of the first anchor; auto: the frame_id of its images.'),
    DeclareLaunchArgument('use_sim_time', default_value='false', description='Both nodes take the time from /clock.', choices=SWITCH),
    DeclareLaunchArgument('rate', default_value='', description='Most anchor sets per second that are used, or unlimited.'),
    DeclareLaunchArgument('namespace', default_value='', description='Namespace of both nodes.'),
    DeclareLaunchArgument('autostart', default_value='true', description='Configure and activate the virtual wrist at the start.', choices=SWITCH),
    DeclareLaunchArgument('rviz', default_value='false', description='Show anchors, wrist, cloud, robot and frames in rviz.', choices=SWITCH),
    DeclareLaunchArgument('params_file', default_value=str(SHARE / 'config/virtual_wrist.yaml'), description='Parameters of the virtual wrist.'),
]  # fmt: skip


def start(context):
    """The camera node, once the arguments are known."""
    given = {a.name: LaunchConfiguration(a.name).perform(context) for a in [*ARGUMENTS, *PASSED_ON]}
    rate = given['camera_rate']
    parameters = {
        'source': given['source'],
        'anchors': [name.strip() for name in given['anchors'].split(',')],
        'rate': rate if rate == 'auto' else float(rate),
        'depth': given['depth'] == 'true',
        'loop': given['loop'] == 'true',
        'seed': int(given['seed']),
        'transport': given['transport'],
        'use_sim_time': given['use_sim_time'] == 'true',
    }
    if given['source'] == 'videos':
        videos = [str(Path(name.strip()).expanduser().resolve()) for name in given['videos'].split(',') if name.strip()]
        parameters |= {'videos': videos, 'width': 'auto', 'height': 'auto'}
    return [
        *(of_the_desk(given) if given['source'] == 'simulator' else []),
        Node(
            package='wristworld_ros', executable='camera', name='camera', namespace=given['namespace'],
            parameters=[parameters], output='screen', emulate_tty=True,
        ),
    ]  # fmt: skip


def of_the_desk(given):
    """What the virtual wrist is told of the simulator's own wrist camera, unless it was told otherwise."""
    from wristworld_ros.sim.stream import wrist_mount

    actions = []
    if not given['wrist_mount']:
        actions.append(SetLaunchConfiguration('wrist_mount', pose_text(wrist_mount(int(given['seed'])))))
    if not given['wrist_camera_info']:
        actions.append(SetLaunchConfiguration('wrist_camera_info', 'true_wrist/camera_info'))
    return actions


def generate_launch_description():
    wrist = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / 'launch/virtual_wrist.launch.py')),
        launch_arguments={a.name: LaunchConfiguration(a.name) for a in [ARGUMENTS[2], *PASSED_ON]}.items(),
    )
    return LaunchDescription([*ARGUMENTS, *PASSED_ON, OpaqueFunction(function=start), wrist])
