"""What a robot's own nodes publish on a desk, here of the simulated arm: description, joint states and the TF of its links."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String

from wristworld_ros.ros.camera_sources import ArmState, Source
from wristworld_ros.ros.conversions import to_transform
from wristworld_ros.ros.qos import latched


class RobotOutput:
    """Publishes /robot_description at once, and /joint_states of every moment. Its frames have no namespace before them, as those
    of robot_state_publisher.

    Args:
        node: Whose publishers they are.
        source: Whose robot it is. The meshes that the description names are files of this machine until `close`.
    """

    def __init__(self, node: Node, source: Source):
        self._meshes = tempfile.TemporaryDirectory(prefix='wristworld_robot_')
        self._joints = node.create_publisher(JointState, '/joint_states', 50)
        self._description = node.create_publisher(String, '/robot_description', latched())
        self._description.publish(String(data=source.robot_description(Path(self._meshes.name))))

    def publish(self, arm: ArmState, stamp: Any) -> None:
        """Joint states of a moment."""
        header = Header(stamp=stamp)
        self._joints.publish(JointState(header=header, name=list(arm.joints), position=list(arm.joints.values())))

    def close(self) -> None:
        """Delete the meshes."""
        self._meshes.cleanup()


def link_edges(arm: ArmState, stamp: Any, fixed: bool) -> list[TransformStamped]:
    """TF of the links that are fixed to their parents, or of those that move: what robot_state_publisher says on /tf_static and
    on /tf."""
    return [
        to_transform(pose.T_parent_link, Header(stamp=stamp, frame_id=pose.parent), link)
        for link, pose in arm.links.items()
        if pose.fixed == fixed
    ]
