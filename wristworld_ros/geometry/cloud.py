"""From point maps to condition maps: the cloud made dense, its flying points removed, rendered by the wrist camera.

The published system (WristWorld, arXiv 2510.07313) renders the points as they are; a low-resolution reconstruction seen
from close by needs more points and has interpolated ones between objects, which `CloudSettings` takes care of.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wristworld_ros.errors import UserError
from wristworld_ros.geometry.cameras import shift_principal_point
from wristworld_ros.geometry.splat import condition_map
from wristworld_ros.types import Camera, ConditionMap

_MAX_SIDE = 8192  # pixels


@dataclass(frozen=True)
class CloudSettings:
    """How point maps become a cloud and a condition map. As published: 1, 0, 2, 0.01, (294, 518).

    Attributes:
        upsample: Points along each axis for every point of the map; one anchor pixel covers several wrist pixels.
        edge: A point is dropped where distances in its 3 x 3 neighbourhood differ by this share of its own or more.
            Between an object and what lies behind it the map is interpolated, and such points fly freely. 0 keeps all.
        radius: Footprint of a point, pixels.
        near: Only points farther away than this are drawn, metres.
        render_size: Height and width that are rendered before the map is resized to the wrist image's size; None
            renders at that size.
    """

    upsample: int = 1
    edge: float = 0.0
    radius: int = 2
    near: float = 0.01
    render_size: tuple[int, int] | None = None

    def __post_init__(self):
        if self.render_size is not None:
            object.__setattr__(self, 'render_size', tuple(self.render_size))
            if len(self.render_size) != 2 or not all(1 <= side <= _MAX_SIDE for side in self.render_size):
                raise UserError(
                    f'The cloud setting render_size is {self.render_size}', f'give height and width, 1 to {_MAX_SIDE}'
                )
        for name, low, high in (('upsample', 1, 16), ('edge', 0, 1000), ('radius', 0, 64), ('near', 0, 1000)):
            if not low <= getattr(self, name) <= high:  # NaN is refused too
                raise UserError(f'The cloud setting {name} is {getattr(self, name)}', f'give {low} to {high}')


def dense_cloud(points: Tensor, images: Tensor, cloud: CloudSettings) -> tuple[Tensor, Tensor]:
    """The coloured cloud of point maps.

    Args:
        points: Float32 [V, H, W, 3], metres.
        images: Uint8 [V, h, w, 3]; they may be finer than the maps, and colours are taken at the upsampled resolution.
        cloud: Upsampling and edges.

    Returns:
        Points float32 [N, 3] and colours uint8 [N, 3]. Points that are dropped at edges are NaN, which `condition_map`
        ignores: removing them would make the host wait for a GPU to count them.
    """
    hw = (points.shape[1] * cloud.upsample, points.shape[2] * cloud.upsample)
    maps = points.permute(0, 3, 1, 2)
    keep = torch.ones(len(points), 1, *points.shape[1:3], device=points.device)
    if cloud.edge > 0:
        distance = maps.norm(dim=1, keepdim=True)
        spread = F.max_pool2d(distance, 3, 1, 1) + F.max_pool2d(-distance, 3, 1, 1)
        keep = (spread < cloud.edge * distance).float()
    if cloud.upsample > 1:
        maps = F.interpolate(maps, size=hw, mode='bilinear', align_corners=False)
        keep = F.interpolate(keep, size=hw, mode='nearest')
    if tuple(images.shape[1:3]) != hw:
        images = F.interpolate(images.permute(0, 3, 1, 2).float(), size=hw, mode='bilinear', align_corners=False)
        images = images.round().to(torch.uint8).permute(0, 2, 3, 1)
    if cloud.edge > 0:
        maps = maps.masked_fill(keep == 0, float('nan'))
    return maps.permute(0, 2, 3, 1).reshape(-1, 3), images.reshape(-1, 3)


def render_cloud(
    points: Tensor, colors: Tensor, K: Tensor, T: Tensor, hw: tuple[int, int], cloud: CloudSettings
) -> ConditionMap:
    """The cloud as a camera sees it; nothing waits for the device.

    Args:
        points: Float32 [N, 3], world, metres.
        colors: Uint8 [N, 3].
        K: Float64 [3, 3], pixels; pixel i's centre is i.
        T: Camera-from-world [4, 4], metres.
        hw: Height and width of the map, pixels.
        cloud: Footprint, near plane and render size.
    """
    K = shift_principal_point(K, 0.5)  # the splat's coordinates start at the image's edge
    render_size = cloud.render_size or hw
    resized = render_size[0] != hw[0] or render_size[1] != hw[1]
    if resized:
        K[0] *= render_size[1] / hw[1]
        K[1] *= render_size[0] / hw[0]
    image, depth = condition_map(points, colors, K, T[:3], image_hw=render_size, radius=cloud.radius, near=cloud.near)
    if resized:
        planes = F.interpolate(image.permute(2, 0, 1)[None].float(), hw, mode='bilinear', align_corners=False)
        image = planes[0].round().to(torch.uint8).permute(1, 2, 0)
        depth = F.interpolate(depth[None, None], hw, mode='nearest-exact')[0, 0]
    return ConditionMap(image=image, depth=depth)


def render_camera(points: Tensor, colors: Tensor, camera: Camera, cloud: CloudSettings) -> ConditionMap:
    """`render_cloud` for a `Camera`; points and colours as `dense_cloud` gives them."""
    K, T = (torch.from_numpy(matrix).to(points.device) for matrix in (camera.K, camera.T_camera_world))
    return render_cloud(points, colors, K, T, (camera.height, camera.width), cloud)
