"""Stage 1 as a step of the stream: an anchor set in, cameras and a coloured cloud out."""

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
from wristworld_ros.models.vggt.scene_coordinates import patch_centers, refine_wrist
from wristworld_ros.runtime.transfer import download, upload
from wristworld_ros.types import AnchorSet, Camera, Reconstruction


@dataclass(frozen=True)
class Scene:
    """What stage 1 says of one anchor set, on the model's device; nothing here has waited for it.

    K: float64 [1 + V, 3, 3], pixels, pixel i's centre is i; the wrist camera first. T: float64 [1 + V, 4, 4],
    camera-from-world. points: float32 [V, H, W, 3]. confidence: float32 [V, H, W]. World and units as `Reconstruction`.
    """

    K: Tensor
    T: Tensor
    points: Tensor
    confidence: Tensor


class Reconstructor:
    """Runs stage 1 on one anchor set at a time (paper section 2: each step by itself).

    Points come from the point head, as published, or, in a model that has none, from its depth through its own cameras,
    which VGGT's authors find the more accurate way (paper section 2.1). The wrist pose is the wrist head's; a model that
    also says where each patch lies refines it against its own points.
    """

    def __init__(self, model: ReconstructionModel, width: int, wrist_hw: tuple[int, int]):
        self.model, self.width, self.wrist_hw = model, width, wrist_hw
        self.patch = model.config.patch_size
        self.dense = 'points' if 'points' in model.config.heads else 'depth'
        self.heads = {'camera', 'wrist', self.dense, 'scene_coordinates'} & set(model.config.heads)

    @property
    def waits(self) -> bool:
        """Whether `scene` waits for the device: the wrist pose is refined on the host, where its small matrices are
        quicker."""
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
        wrist, anchors = (
            decode_cameras(out.wrist_pose_enc[-1, 0], self.wrist_hw),
            decode_cameras(out.camera_pose_enc[-1, 0], hw),
        )
        K, T = (torch.cat(pair) for pair in zip(wrist, anchors, strict=True))
        if out.scene_coordinates is not None:
            T[0] = self._refined(T[0], points, out.scene_coordinates)
        confidence = out.world_points_conf if self.dense == 'points' else out.depth_conf
        return Scene(K, T, points[0], confidence[0].float())

    def _refined(self, T: Tensor, points: Tensor, scene_coordinates: Tensor) -> Tensor:
        middles, scene_coordinates = patch_centers(points, self.patch)[0].flatten(0, 1), scene_coordinates[0].flatten(0, 1)[:, :3]
        return refine_wrist(T.cpu(), middles.cpu(), scene_coordinates.cpu()).to(T)

    def __call__(self, anchors: AnchorSet) -> Reconstruction:
        """The reconstruction in the first anchor's frame; its wrist camera has the size `wrist_hw`."""
        colors = upload(self.resized(anchors.images), next(self.model.parameters()).device)
        scene = self.scene(colors)
        return self.reconstruction(scene, *download(scene.K, scene.T), colors)

    def reconstruction(self, scene: Scene, K: np.ndarray, T: np.ndarray, colors: Tensor) -> Reconstruction:
        """A scene whose cameras have come to the host as K and T."""
        anchor_hw = (colors.shape[1], colors.shape[2])
        cameras = [
            Camera(K=k, T_camera_world=t, width=hw[1], height=hw[0])
            for k, t, hw in zip(K, T, [self.wrist_hw] + [anchor_hw] * (len(K) - 1), strict=True)
        ]
        return Reconstruction(cameras[0], tuple(cameras[1:]), scene.points, scene.confidence, colors)


def decode_cameras(pose_enc: Tensor, image_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pose encodings [N, 9] of cameras of one size as K [N, 3, 3], pixels counted from the first one's centre, and
    T_camera_world [N, 4, 4]; float64."""
    T, K = decode_pose(pose_enc.double(), image_hw)
    return shift_principal_point(K, -0.5), to_homogeneous(T)  # VGGT counts from the image's edge
