"""Pinhole cameras and VGGT's nine-number pose encoding.

The pose encoding (VGGT, arXiv 2503.11651; "absT_quaR_FoV" in its code): translation (3, metres), quaternion x y z w (4,
any length), vertical then horizontal field of view (2, radians). It encodes camera-from-world in OpenCV axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wristworld_ros.geometry.poses import invert_rigid, matrix_to_quaternion, quaternion_to_matrix, transform_points


def fov_to_intrinsics(fov: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """K of fields of view, with the principal point at (W/2, H/2): coordinates start at the image's edge.

    Args:
        fov: Float [..., 2], vertical then horizontal, radians.
        image_hw: Height and width, pixels.

    Returns:
        Float [..., 3, 3], pixels.
    """
    height, width = image_hw
    tangent_y, tangent_x = torch.tan(fov / 2).unbind(-1)
    focal_y, focal_x = (height / 2) / tangent_y, (width / 2) / tangent_x
    zero, one = torch.zeros_like(focal_x), torch.ones_like(focal_x)
    rows = [focal_x, zero, one * (width / 2), zero, focal_y, one * (height / 2), zero, zero, one]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def intrinsics_to_fov(intrinsics: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Fields of view [..., 2] of K, vertical then horizontal, radians; the principal point is ignored."""
    height, width = image_hw
    vertical = 2 * torch.atan(height / 2 / intrinsics[..., 1, 1])
    horizontal = 2 * torch.atan(width / 2 / intrinsics[..., 0, 0])
    return torch.stack([vertical, horizontal], -1)


def encode_pose(extrinsics: Tensor, intrinsics: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Pose encoding of a camera; the principal point is lost, and the quaternion's w is not negative.

    Args:
        extrinsics: Camera-from-world [..., 3, 4] or [..., 4, 4], metres.
        intrinsics: K [..., 3, 3], pixels.
        image_hw: Height and width, pixels.

    Returns:
        Float [..., 9].
    """
    quaternion = matrix_to_quaternion(extrinsics[..., :3, :3])
    return torch.cat([extrinsics[..., :3, 3], quaternion, intrinsics_to_fov(intrinsics, image_hw)], -1)


def decode_pose(pose_enc: Tensor, image_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The camera of a pose encoding.

    Args:
        pose_enc: Float [..., 9].
        image_hw: Height and width, pixels.

    Returns:
        Camera-from-world [..., 3, 4], metres, and K [..., 3, 3] with the principal point at (W/2, H/2), pixels.
    """
    if pose_enc.shape[-1:] != (9,):
        raise ValueError(f'pose_enc has shape {list(pose_enc.shape)}; its last dimension must be 9.')
    extrinsics = torch.cat([quaternion_to_matrix(pose_enc[..., 3:7]), pose_enc[..., :3, None]], -1)
    return extrinsics, fov_to_intrinsics(pose_enc[..., 7:9], image_hw)


def shift_principal_point(intrinsics: Tensor, pixels: float) -> Tensor:
    """K [..., 3, 3] with its principal point moved by so many pixels on both axes.

    -0.5 takes coordinates that start at the image's edge, as VGGT's do, to those in which pixel i's centre is i; 0.5
    takes them back.
    """
    shifted = intrinsics.clone()
    shifted[..., :2, 2] += pixels
    return shifted


def project(points: Tensor, intrinsics: Tensor, T_camera_world: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels and depths of world points.

    Args:
        points: Float [..., N, 3], metres.
        intrinsics: K [..., 3, 3], pixels.
        T_camera_world: [..., 3, 4] or [..., 4, 4], metres.

    Returns:
        uv [..., N, 2] as (x, y), pixels, and camera z [..., N], metres. uv means nothing where z <= 0 (where z is 0 it
        is computed with 1, so that it is not NaN); callers check z.
    """
    camera = transform_points(T_camera_world, points)
    z = camera[..., 2]
    safe = torch.where(z == 0, torch.ones_like(z), z)
    image = (camera / safe[..., None]) @ intrinsics.transpose(-1, -2)
    return image[..., :2], z


def pixel_grid(image_hw: tuple[int, int], device=None, dtype=torch.float32) -> Tensor:
    """(x, y) of every pixel's centre: [H, W, 2]; pixel i's centre is coordinate i."""
    height, width = image_hw
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype), torch.arange(width, device=device, dtype=dtype), indexing='ij'
    )
    return torch.stack([x, y], -1)


def unproject_depth(depth: Tensor, intrinsics: Tensor, T_camera_world: Tensor | None = None) -> Tensor:
    """World points of a depth image.

    Args:
        depth: Float [..., H, W], camera z, metres.
        intrinsics: K [..., 3, 3], pixels; pixel i's centre is i.
        T_camera_world: [..., 3, 4] or [..., 4, 4], metres; None gives points in the camera's frame.

    Returns:
        Float [..., H, W, 3], metres.
    """
    grid = pixel_grid((depth.shape[-2], depth.shape[-1]), depth.device, depth.dtype)
    rays = torch.cat([grid, torch.ones_like(grid[..., :1])], -1).flatten(0, 1)
    # inv_ex, because inv waits for the GPU to check that K is regular.
    camera = (rays @ torch.linalg.inv_ex(intrinsics).inverse.transpose(-1, -2)) * depth.flatten(-2)[..., None]
    if T_camera_world is not None:
        camera = transform_points(invert_rigid(T_camera_world), camera)
    return camera.unflatten(-2, tuple(depth.shape[-2:]))


def resize_intrinsics(
    intrinsics: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int], centre: float = 0.0
) -> Tensor:
    """K after the image was resized.

    Args:
        intrinsics: [..., 3, 3], pixels of the original image.
        from_hw: Height and width of the original image, pixels.
        to_hw: Height and width of the resized image, pixels.
        centre: Coordinate of the first pixel's centre: 0 as in `types`, 0.5 where coordinates start at the image's
            edge, as in VGGT's K.

    Returns:
        [..., 3, 3], pixels of the resized image.
    """
    scale_y, scale_x = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]
    edge = 0.5 - centre
    matrix = intrinsics.new_tensor([[scale_x, 0, edge * (scale_x - 1)], [0, scale_y, edge * (scale_y - 1)], [0, 0, 1]])
    return matrix @ intrinsics


def crop_intrinsics(intrinsics: Tensor, left: float, top: float) -> Tensor:
    """K [..., 3, 3] of a crop whose first pixel is (left, top) of the original image; negative numbers pad."""
    return intrinsics.new_tensor([[1, 0, -left], [0, 1, -top], [0, 0, 1]]) @ intrinsics
