"""Whether several cameras agree: each one's own cloud seen by the same camera, and how far their colours differ.

A reconstruction that places the cameras rightly shows the same surfaces in the same pixels whichever camera they come
from. Where it does not (cameras of different scenes, upside down, of a kind the model has never seen), the clouds lie
beside one another, and their colours differ. Depths are not compared: on simulated validation episodes they told valid
from invalid sets no better than chance where both cameras see a table, and added nothing to the colours.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from wristworld_ros.geometry.cameras import shift_principal_point
from wristworld_ros.geometry.cloud import CloudSettings, dense_cloud
from wristworld_ros.geometry.splat import condition_map

LONGER_SIDE = 64  # pixels of the maps that are compared: about the spacing of a small model's points in the wrist view
LEAST_SHARED = 0.01  # share of those pixels that two clouds must both hit to be compared


def cloud_agreement(
    points: Tensor, colors: Tensor, K: Tensor, T: Tensor, hw: tuple[int, int], cloud: CloudSettings
) -> Tensor:
    """How far each anchor's cloud agrees in colour with the others' in a camera's view; nothing waits for the device.

    Each cloud alone is rendered coarsely. Two clouds agree by 1 less the mean absolute difference of their colours
    (0..1) over the pixels that both hit.

    Args:
        points: Float32 [V, H, W, 3], world, metres.
        colors: Uint8 [V, H, W, 3], of the points.
        K: Of the camera, [3, 3], pixels; pixel i's centre is i.
        T: Of the camera, camera-from-world [4, 4], metres.
        hw: Its size, pixels.
        cloud: Its edges and near plane.

    Returns:
        Float64 [V], 0 to 1: the mean over the others that an anchor shares pixels with; NaN where there is none.
    """
    scale = min(1.0, LONGER_SIDE / max(hw))
    coarse = (max(1, round(hw[0] * scale)), max(1, round(hw[1] * scale)))
    K = shift_principal_point(K, 0.5)  # the splat's coordinates start at the image's edge
    K[0] *= coarse[1] / hw[1]
    K[1] *= coarse[0] / hw[0]
    views = len(points)
    flat_points, flat_colors = dense_cloud(points, colors, replace(cloud, upsample=1))
    maps = [
        condition_map(own_points, own_colors, K, T, image_hw=coarse, radius=1, near=cloud.near)
        for own_points, own_colors in zip(flat_points.chunk(views), flat_colors.chunk(views), strict=True)
    ]
    images, depths = (torch.stack(parts) for parts in zip(*maps, strict=True))
    return view_agreement(images.double() / 255, depths > 0)


def view_agreement(images: Tensor, seen: Tensor) -> Tensor:
    """How far each of several images of one view agrees in colour with the others.

    Args:
        images: Float [V, h, w, 3], 0 to 1.
        seen: Bool [V, h, w], where each of them shows something.

    Returns:
        Float64 [V], 0 to 1: the mean over the others that an image shares pixels with; NaN where there is none.
    """
    total = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    others = torch.zeros_like(total)
    for one, two in combinations(range(len(images)), 2):
        agreement, comparable = _agreement(images[one], images[two], seen[one] & seen[two])
        for view in (one, two):
            total[view] += agreement
            others[view] += comparable
    return total / others  # 0 / 0 is NaN


def _agreement(image: Tensor, other: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    """The agreement of two images where both show something and 1, or 0 and 0 where they share too few pixels; float64 []."""
    shared = both.double()
    difference = (image.double() - other.double()).abs().mean(-1)
    agreement = 1 - (difference * shared).sum() / shared.sum().clamp(min=1)
    comparable = (shared.mean() >= LEAST_SHARED).double()
    return agreement * comparable, comparable
