"""Stage 1 on one anchor set: cameras, the wrist's among them, and a cloud."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.geometry import decode_pose, shift_principal_point, to_homogeneous
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.vggt.config import input_size
from wristworld_ros.models.vggt.model import own_points
from wristworld_ros.models.vggt.scene_coordinates import fit_frame, nearness, patch_centers, refine_wrist
from wristworld_ros.runtime.transfer import download, upload
from wristworld_ros.types import AnchorSet, Camera, Reconstruction


@dataclass(frozen=True)
class Scene:
    """What stage 1 predicts for one anchor set, on the model's device; nothing here has waited for it.

    K: float64 [1 + V, 3, 3], pixels, pixel i's centre is i; the wrist camera first. T_base_anchor: float64 [4, 4], the first
    anchor in the robot's base, of models with scene coordinates. T: float64 [1 + V, 4, 4],
    camera-from-world. points: float32 [V, H, W, 3]. confidence: float32 [V, H, W]. World and units as `Reconstruction`.
    """

    K: Tensor
    T: Tensor
    points: Tensor
    confidence: Tensor
    T_base_anchor: Tensor | None = None


class Reconstructor:
    """Runs stage 1 on one anchor set at a time (arXiv 2510.07313, section 3.1: each time step by itself).

    Points come from the point head, as published, or, in a model without one, from its depth unprojected through its own
    cameras, which VGGT's authors find the more accurate way (arXiv 2503.11651, section 3.3). The wrist pose is the wrist
    head's; a model with scene coordinates refines it against its own points.

    Args:
        model: Stage 1.
        width: Pixels that anchor images are resized to.
        wrist_hw: Size of the wrist image, pixels.
    """

    def __init__(self, model: ReconstructionModel, width: int, wrist_hw: tuple[int, int]):
        self.model, self.width, self.wrist_hw = model, width, wrist_hw
        self.patch = model.config.patch_size
        self.dense = 'points' if 'points' in model.config.heads else 'depth'
        self.heads = {'camera', 'wrist', self.dense, 'scene_coordinates'} & set(model.config.heads)

    @property
    def waits(self) -> bool:
        """Whether `scene` waits for the device: the wrist pose is refined on the host, where its small matrices are
        faster."""
        return 'scene_coordinates' in self.heads

    def resized(self, images: np.ndarray) -> np.ndarray:
        """Anchor images uint8 [V, H, W, 3] at the size that stage 1 runs at."""
        return resize_images(images, input_size(images.shape[1:3], self.width, self.patch))

    @torch.inference_mode()
    def scene(self, colors: Tensor) -> Scene:
        """Stage 1 on images uint8 [V, h, w, 3] as `resized` gives them."""
        hw = (colors.shape[1], colors.shape[2])
        out = self.model((colors.permute(0, 3, 1, 2).float() / 255)[None], heads=self.heads)
        points = (out.world_points if self.dense == 'points' else own_points(out, hw)).float()
        wrist = decode_cameras(out.wrist_pose_enc[-1, 0], self.wrist_hw)
        anchors = decode_cameras(out.camera_pose_enc[-1, 0], hw)
        K, T = (torch.cat(pair) for pair in zip(wrist, anchors, strict=True))
        T_base_anchor = None
        if out.scene_coordinates is not None:
            T[0] = self._refined(T[0], points, out.scene_coordinates)
            T_base_anchor = self._in_base(points, out.scene_coordinates)
        confidence = out.world_points_conf if self.dense == 'points' else out.depth_conf
        return Scene(K, T, points[0], confidence[0].float(), T_base_anchor)

    def _refined(self, T: Tensor, points: Tensor, scene_coordinates: Tensor) -> Tensor:
        centers = patch_centers(points, self.patch)[0].flatten(0, 1)
        predicted = scene_coordinates[0].flatten(0, 1)[:, :3]
        return refine_wrist(T.cpu(), centers.cpu(), predicted.cpu()).to(T)

    def _in_base(self, points: Tensor, scene_coordinates: Tensor) -> Tensor:
        centers = patch_centers(points, self.patch)[0].flatten(0, 1)
        wrist, base = scene_coordinates[0].flatten(0, 1).cpu().split(3, -1)
        near = nearness(wrist)
        T = fit_frame(centers.cpu(), base, near, near)
        return torch.full((4, 4), torch.nan, dtype=torch.float64) if T is None else T

    def __call__(self, anchors: AnchorSet) -> Reconstruction:
        """The reconstruction in the first anchor's frame; its wrist camera has the size `wrist_hw`."""
        colors = upload(self.resized(anchors.images), next(self.model.parameters()).device)
        scene = self.scene(colors)
        return self.reconstruction(scene, *download(scene.K, scene.T), colors)

    def reconstruction(self, scene: Scene, K: np.ndarray, T: np.ndarray, colors: Tensor) -> Reconstruction:
        """A scene whose cameras have been downloaded as K and T."""
        sizes = [self.wrist_hw] + [(colors.shape[1], colors.shape[2])] * (len(K) - 1)
        cameras = [Camera(k, t, width=hw[1], height=hw[0]) for k, t, hw in zip(K, T, sizes, strict=True)]
        return Reconstruction(cameras[0], tuple(cameras[1:]), scene.points, scene.confidence, colors)


def decode_cameras(pose_enc: Tensor, image_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pose encodings [N, 9] of cameras of one size as K [N, 3, 3], pixels counted from the first one's centre, and
    T_camera_world [N, 4, 4]; float64."""
    T, K = decode_pose(pose_enc.double(), image_hw)
    return shift_principal_point(K, -0.5), to_homogeneous(T)  # VGGT counts from the image's edge


def visible_confidence(points: Tensor, confidence: Tensor, K: Tensor, T: Tensor, hw: tuple[int, int]) -> Tensor:
    """Mean confidence of the points in a camera's view, 0 to 1: VGGT's c >= 1 becomes 1 - 1 / c.

    Args:
        points: [V, H, W, 3].
        confidence: [V, H, W].
        K: Of the camera, [3, 3].
        T: Of the camera, camera-from-world [4, 4].
        hw: Its size, pixels.

    Returns:
        A scalar; 0 when no point lies in view.
    """
    K, T = K.to(points), T.to(points)
    uvw = (points.reshape(-1, 3) @ T[:3, :3].T + T[:3, 3]) @ K.T
    z = uvw[:, 2]
    uv = uvw[:, :2] / z.clamp(min=1e-6)[:, None]
    visible = (z > 0.01) & (uv >= 0).all(1) & (uv[:, 0] < hw[1]) & (uv[:, 1] < hw[0])
    trust = torch.where(visible, 1 - 1 / confidence.flatten(), 0.0)
    return trust.sum() / visible.sum().clamp(min=1)


def is_finite(K: Tensor, T: Tensor, points: Tensor, confidence: Tensor) -> Tensor:
    """Whether cameras are finite, and points and confidence have no NaN and are mostly finite; bool [].

    A point of the sky may be infinitely far away; the splat ignores it.
    """
    numbers = ~(points.isnan().any() | confidence.isnan().any())
    most = (points.isfinite().all(-1) & confidence.isfinite()).float().mean() >= 0.5
    return K.isfinite().all() & T.isfinite().all() & numbers & most
