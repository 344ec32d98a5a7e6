"""What the wrist camera would see of the cloud: points made dense, edges cut, splatted (paper section 2.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wristworld_ros.geometry import condition_map, shift_principal_point
from wristworld_ros.types import Camera, ConditionMap, Reconstruction


@dataclass(frozen=True)
class CloudSettings:
    """How a point map becomes a cloud that may be looked at from close by.

    upsample: points a side for every point of the map; one anchor pixel covers several wrist pixels.
    edge: a point is dropped where its neighbours' distance differs by more than this share (0 keeps all): between an
        object and what lies behind it the map is interpolated, and such points fly.
    radius: footprint, pixels. near: metres.
    canvas: height and width that are painted on before the map is resized to the wrist image's size; None paints at that
        size itself.
    The published system is upsample 1, edge 0, radius 2, near 0.01, canvas 294 x 518.
    """

    upsample: int = 1
    edge: float = 0.0
    radius: int = 2
    near: float = 0.01
    render_size: tuple[int, int] | None = None

    def __post_init__(self):
        if self.render_size is not None:
            object.__setattr__(self, 'canvas', tuple(self.render_size))


def dense_cloud(points: Tensor, images: Tensor, cloud: CloudSettings) -> tuple[Tensor, Tensor]:
    """Points float32 [N, 3] and colours uint8 [N, 3] of point maps [V, H, W, 3] and images uint8 [V, h, w, 3].

    The images may be finer than the maps: colours are taken at the upsampled map's resolution. Points that are dropped at
    edges are NaN, which `condition_map` passes over: choosing the others would make a GPU wait to be counted.
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


def render(
    points: Tensor, colors: Tensor, K: Tensor, T: Tensor, hw: tuple[int, int], cloud: CloudSettings
) -> ConditionMap:
    """The cloud seen by a camera, without waiting for the device.

    points: float32 [N, 3]. colors: uint8 [N, 3]. K: float64 [3, 3], pixel i's centre is i. T: camera-from-world [4, 4].
    hw: of the map, pixels.
    """
    K = shift_principal_point(K, 0.5)  # the splat counts from the image's edge
    render_size = cloud.render_size or hw
    if render_size != hw:
        K[0] *= render_size[1] / hw[1]
        K[1] *= render_size[0] / hw[0]
    image, depth = condition_map(points, colors, K, T[:3], image_hw=render_size, radius=cloud.radius, near=cloud.near)
    if render_size != hw:
        planes = image.permute(2, 0, 1)[None].float()
        image = (
            F.interpolate(planes, hw, mode='bilinear', align_corners=False)[0].round().to(torch.uint8).permute(1, 2, 0)
        )
        depth = F.interpolate(depth[None, None], hw, mode='nearest-exact')[0, 0]
    return ConditionMap(image=image, depth=depth)


def render_camera(points: Tensor, colors: Tensor, camera: Camera, cloud: CloudSettings) -> ConditionMap:
    """The cloud seen by a camera; points and colours as `dense_cloud` gives them."""
    K, T = (torch.from_numpy(m).to(points.device) for m in (camera.K, camera.T_camera_world))
    return render(points, colors, K, T, (camera.height, camera.width), cloud)


def wrist_condition(reconstruction: Reconstruction, images: Tensor, cloud: CloudSettings) -> ConditionMap:
    """Condition map of a reconstruction for its own wrist camera; images uint8 [V, h, w, 3] give the colours."""
    points, colors = dense_cloud(reconstruction.points, images, cloud)
    return render_camera(points, colors, reconstruction.wrist, cloud)
