"""Becomes rviz2, for the anchors and topics of one node.

A fixed frame that does not exist leaves rviz empty. Where the robot's base is not part of TF only the images tell which frame does:
then this waits for the first one of the first anchor.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import rclpy
import yaml
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CompressedImage, Image

from wristworld_ros.errors import UserError
from wristworld_ros.ros import environment
from wristworld_ros.ros.lifecycle import STEADY
from wristworld_ros.ros.names import frame_in_namespace, image_topic, normalized_frame

REMIND_S = 10.0  # between lines that say what is still awaited


class FrameListener(Node):
    """Takes the frame of the first image of the first anchor.

    topics: resolved, of the images of every anchor. frame: '' before the first image.
    """

    def __init__(self, anchors: list[str]):
        super().__init__('rviz_starter')
        transport: str = self.declare_parameter('transport', 'raw').value
        self.topics = {name: self.resolve_topic_name(image_topic(self, name, transport)) for name in anchors}
        kind = CompressedImage if transport == 'compressed' else Image
        self.frame, self._default = '', frame_in_namespace(self, f'anchor_{anchors[0]}_optical_frame')
        topic = image_topic(self, anchors[0], transport)
        self._images = self.create_subscription(kind, topic, self._on_image, qos_profile_sensor_data)
        self.create_timer(REMIND_S, self._remind, clock=STEADY)

    def _on_image(self, msg: Image | CompressedImage) -> None:
        self.frame = normalized_frame(msg.header.frame_id) or self._default

    def _remind(self) -> None:
        self.get_logger().info(f'rviz starts with the first image on {self._images.topic_name}.')


def configured(
    tree: dict[str, Any], frame: str, topics: dict[str, str], resolve: Callable[[str], str]
) -> dict[str, Any]:
    """A copy of config/virtual_wrist.rviz for one node.

    Args:
        tree: What the file says.
        frame: The fixed frame.
        topics: Image topic of each anchor; each gets a copy of the display of anchor_left.
        resolve: A topic of the virtual wrist node to its full name.
    """
    tree = copy.deepcopy(tree)
    manager = tree['Visualization Manager']
    manager['Global Options']['Fixed Frame'] = frame
    displays: list[dict[str, Any]] = []
    for display in manager['Displays']:
        topic = display.get('Topic', {}).get('Value', '')
        if topic.startswith('/anchor_left/'):
            for name, own in topics.items():
                displays.append(copy.deepcopy(display) | {'Name': f'Anchor {name}'})
                displays[-1]['Topic']['Value'] = own
        elif not topic.startswith('/anchor_'):
            if described := display.get('Description Topic'):
                described['Value'] = resolve(described['Value'])
            if topic.startswith('/wrist/'):
                display['Topic']['Value'] = resolve(topic.removeprefix('/'))
            displays.append(display)
    manager['Displays'] = displays
    return tree


def main(args: list[str] | None = None) -> int:
    """Become rviz2; 0 without it, for the virtual wrist works without a screen too."""
    environment.prepare()
    arguments = sys.argv if args is None else args
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--anchors', nargs='+', required=True, help='Names of the anchors.')
    parser.add_argument(
        '--fixed-frame', default='', help="rviz's fixed frame; default: that of the first anchor's images."
    )
    given = parser.parse_args(remove_ros_args(arguments)[1:])
    rviz = shutil.which('rviz2')
    if rviz is None:
        print('rviz2 is not installed, so nothing is shown; all else runs (apt install ros-$ROS_DISTRO-rviz2).')
        return 0
    try:
        environment.init(arguments)
    except UserError as error:
        print(f'rviz_starter: {error}', file=sys.stderr)
        return 2
    node = environment.make(lambda: FrameListener(given.anchors))
    if node is None:
        return 0
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    environment.spin(executor, until=lambda: bool(given.fixed_frame or node.frame))
    frame, sim_time = given.fixed_frame or node.frame, node.get_parameter('use_sim_time').value
    if frame:  # otherwise it was stopped
        tree = yaml.safe_load((environment.share() / 'config/virtual_wrist.rviz').read_text())
        with tempfile.NamedTemporaryFile('w', prefix='virtual_wrist_', suffix='.rviz', delete=False) as file:
            yaml.safe_dump(configured(tree, frame, node.topics, node.resolve_topic_name), file, sort_keys=False)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    if not frame:
        return 0
    sys.stdout.flush()
    # The same process: a signal to it reaches rviz, which thus cannot outlive the launch.
    os.execv(rviz, [rviz, '-d', file.name, '--ros-args', '-p', f'use_sim_time:={str(sim_time).lower()}'])


if __name__ == '__main__':
    environment.leave(main())
