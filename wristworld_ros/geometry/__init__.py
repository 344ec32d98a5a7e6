"""Cameras, poses, condition maps and alignment. Torch and numpy, nothing else.

OpenCV camera axes, metres, radians, quaternions x y z w; ``T_a_b`` takes coordinates in frame b to frame a.
"""

from wristworld_ros.geometry.alignment import (
    Similarity,
    align_camera_centres,
    align_cameras,
    fit_rigid,
    fit_similarity,
    pose_error,
)
from wristworld_ros.geometry.cameras import (
    crop_intrinsics,
    decode_pose,
    encode_pose,
    fov_to_intrinsics,
    intrinsics_to_fov,
    pixel_grid,
    project,
    resize_intrinsics,
    shift_principal_point,
    unproject_depth,
)
from wristworld_ros.geometry.poses import (
    camera_centre,
    compose,
    invert_rigid,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rotation_angle,
    to_homogeneous,
    transform_points,
)
from wristworld_ros.geometry.splat import condition_map

__all__ = [
    'Similarity', 'align_camera_centres', 'align_cameras', 'camera_centre', 'compose', 'condition_map',
    'crop_intrinsics', 'decode_pose', 'encode_pose', 'fit_rigid', 'fit_similarity', 'fov_to_intrinsics',
    'intrinsics_to_fov', 'invert_rigid', 'matrix_to_quaternion', 'pixel_grid', 'pose_error',
    'project', 'quaternion_to_matrix', 'resize_intrinsics', 'rotation_angle', 'shift_principal_point', 'to_homogeneous', 'transform_points',
    'unproject_depth',
]  # fmt: skip
