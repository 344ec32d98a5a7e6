"""Cameras, poses, alignment and condition maps: tensors or arrays in, the same out; no networks and no files.

OpenCV camera axes (x right, y down, z forward), metres, radians, quaternions x y z w; ``T_a_b`` takes coordinates in
frame b to frame a, so ``T_camera_world`` is VGGT's "camera from world". Pixel i's centre is coordinate i (`types`),
except where a docstring says that coordinates start at the image's edge, as VGGT's do and `condition_map`'s.
Everything is batched over any leading shape and differentiable unless it says otherwise; wrong shapes raise ValueError.
"""

from wristworld_ros.geometry.alignment import (
    DegenerateFitError,
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
    'DegenerateFitError',
    'Similarity',
    'align_camera_centres',
    'align_cameras',
    'camera_centre',
    'compose',
    'condition_map',
    'crop_intrinsics',
    'decode_pose',
    'encode_pose',
    'fit_rigid',
    'fit_similarity',
    'fov_to_intrinsics',
    'intrinsics_to_fov',
    'invert_rigid',
    'matrix_to_quaternion',
    'pixel_grid',
    'pose_error',
    'project',
    'quaternion_to_matrix',
    'resize_intrinsics',
    'rotation_angle',
    'shift_principal_point',
    'to_homogeneous',
    'transform_points',
    'unproject_depth',
]
