"""Names on the ROS graph: TF frames in namespaces, where the calibration of a remapped camera is, and lifecycle states."""

from __future__ import annotations

from rclpy.node import Node

from wristworld_ros.msg import VirtualWristStatus

WRIST_FRAME = 'virtual_wrist_optical_frame'  # in the node's namespace
COMPRESSED = '/compressed'
COMPRESSED_DEPTH = '/compressedDepth'
STATE_NAMES = {
    VirtualWristStatus.UNCONFIGURED: 'unconfigured',
    VirtualWristStatus.INACTIVE: 'inactive',
    VirtualWristStatus.ACTIVE: 'active',
    VirtualWristStatus.FINALIZED: 'finalized',
}


def normalized_frame(frame_id: str) -> str:
    """Without the leading slash of old drivers, which tf2 refuses."""
    return frame_id.lstrip('/')


def frame_in_namespace(node: Node, frame_id: str) -> str:
    """A frame of this node alone: two nodes in two namespaces must not publish one frame."""
    return f'{node.get_namespace()}/{frame_id}'.replace('//', '/').lstrip('/')


def image_topic(node: Node, anchor: str, transport: str) -> str:
    """Name to subscribe to for an anchor's images. Compressed ones follow a remapping of image_raw, as in image_transport."""
    raw = f'anchor_{anchor}/image_raw'
    if transport != 'compressed':
        return raw
    if _is_remapped(node, raw + COMPRESSED) or not _is_remapped(node, raw):
        return raw + COMPRESSED
    return node.resolve_topic_name(raw) + COMPRESSED


def camera_info_topic(node: Node, anchor: str, transport: str) -> str:
    """Name to subscribe to for an anchor's calibration: the sibling of its images, wherever those were remapped to."""
    own, images = f'anchor_{anchor}/camera_info', image_topic(node, anchor, transport)
    if _is_remapped(node, own) or not (images.startswith('/') or _is_remapped(node, images)):
        return own
    return node.resolve_topic_name(images).removesuffix(COMPRESSED).rpartition('/')[0] + '/camera_info'


def depth_topic(node: Node, anchor: str, transport: str) -> str:
    """Name to subscribe to for an anchor's depth. Compressed depth follows a remapping of depth/image_raw."""
    raw = f'anchor_{anchor}/depth/image_raw'
    if transport != 'compressed':
        return raw
    if _is_remapped(node, raw + COMPRESSED_DEPTH) or not _is_remapped(node, raw):
        return raw + COMPRESSED_DEPTH
    return node.resolve_topic_name(raw) + COMPRESSED_DEPTH


def aligned_depth_topic(images: str) -> str:
    """Where a driver publishes depth registered to its colour images: for .../color/image_raw as RealSense's has it,
    .../aligned_depth_to_color/image_raw; for other names .../depth/image_raw beside them, as the node `camera` has it."""
    parent = images.removesuffix(COMPRESSED).rpartition('/')[0]
    above, _, last = parent.rpartition('/')
    if last == 'color':
        return f'{above}/aligned_depth_to_color/image_raw' if above else '/aligned_depth_to_color/image_raw'
    return f'{parent}/depth/image_raw'


def is_rectified(topic: str) -> bool:
    """Whether the images of a topic are rectified, by its name (REP 104's image_rect, image_rect_color)."""
    return '_rect' in topic


def _is_remapped(node: Node, topic: str) -> bool:
    return node.resolve_topic_name(topic) != node.resolve_topic_name(topic, only_expand=True)
