"""4x4 matrices as ROS poses and transforms."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Pose, PoseStamped, TransformStamped


def quaternion(T: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, z, w of a 4x4 matrix's rotation: by tf_transformations where it is installed, else by what that wraps."""
    try:
        from tf_transformations import quaternion_from_matrix

        x, y, z, w = quaternion_from_matrix(T)
        return float(x), float(y), float(z), float(w)
    except ImportError:
        return quaternion_by_transforms3d(T)


def quaternion_by_transforms3d(T: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, z, w of a 4x4 matrix's rotation."""
    from transforms3d.quaternions import mat2quat

    w, x, y, z = mat2quat(np.asarray(T, np.float64)[:3, :3])
    return float(x), float(y), float(z), float(w)


def to_pose(T: np.ndarray) -> Pose:
    """The pose of frame b in frame a from T_a_b."""
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = (float(v) for v in T[:3, 3])
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = quaternion(T)
    return pose


def to_pose_stamped(T: np.ndarray, header) -> PoseStamped:
    """T_a_b, where header names frame a."""
    return PoseStamped(header=header, pose=to_pose(T))


def to_transform(T: np.ndarray, header, child: str) -> TransformStamped:
    """T_parent_child as a TF edge from header.frame_id to child."""
    edge, pose = TransformStamped(header=header, child_frame_id=child), to_pose(T)
    edge.transform.translation.x = pose.position.x
    edge.transform.translation.y = pose.position.y
    edge.transform.translation.z = pose.position.z
    edge.transform.rotation = pose.orientation
    return edge
