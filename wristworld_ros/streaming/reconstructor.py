"""Stage 1 as a step of the stream: an anchor set in, cameras and a coloured cloud out."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch

from wristworld_ros.geometry import decode_pose, to_homogeneous
from wristworld_ros.reconstruction import ReconstructionModel
from wristworld_ros.reconstruction.model import ReconstructionOutput, own_points
from wristworld_ros.reconstruction.places import patch_middles, refine_wrist
from wristworld_ros.types import AnchorSet, Camera, Reconstruction


def model_size(image_hw: tuple[int, int], width: int, patch: int = 14) -> tuple[int, int]:
    """(height, width) stage 1 runs at: `width`, and the height that keeps the aspect, in whole patches (paper 2.1)."""
    height = round(width * image_hw[0] / image_hw[1] / patch) * patch
    return max(height, patch), width


def resize_images(images: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """uint8 [V, H, W, 3] to [V, h, w, 3]; averages where it shrinks, so that no detail aliases."""
    if images.shape[1:3] == tuple(hw):
        return images
    shrinks = hw[0] * hw[1] < images.shape[1] * images.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(image, hw[::-1], interpolation=how) for image in images])


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
        self.heads = {'camera', 'wrist', self.dense, 'places'} & set(model.config.heads)

    @torch.inference_mode()
    def __call__(self, anchors: AnchorSet) -> Reconstruction:
        """The reconstruction in the first anchor's frame; its wrist camera has the size `wrist_hw`."""
        hw = model_size(anchors.images.shape[1:3], self.width, self.patch)
        images = resize_images(anchors.images, hw)
        colors = torch.from_numpy(images).to(next(self.model.parameters()).device)
        out = self.model((colors.permute(0, 3, 1, 2).float() / 255)[None], heads=self.heads)
        points = (out.world_points if self.dense == 'points' else own_points(out, hw)).float()
        return Reconstruction(
            wrist=self._wrist(out, points),
            anchors=tuple(decode_camera(enc, hw) for enc in out.camera_pose_enc[-1, 0]),
            points=points[0],
            confidence=(out.world_points_conf if self.dense == 'points' else out.depth_conf)[0].float(),
            colors=colors,
        )

    def _wrist(self, out: ReconstructionOutput, points: torch.Tensor) -> Camera:
        camera = decode_camera(out.wrist_pose_enc[-1, 0, 0], self.wrist_hw)
        if out.places is None:
            return camera
        middles, places = patch_middles(points, self.patch)[0].flatten(0, 1), out.places[0].flatten(0, 1)[:, :3]
        refined = refine_wrist(torch.from_numpy(camera.T_camera_world), middles.cpu(), places.cpu())
        return replace(camera, T_camera_world=refined.numpy())


def decode_camera(pose_enc: torch.Tensor, image_hw: tuple[int, int]) -> Camera:
    """A pose encoding [9] as a camera of that size, pixels counted from the first one's centre."""
    T, K = decode_pose(pose_enc.double(), image_hw)
    K = K.cpu().numpy()
    K[:2, 2] -= 0.5  # VGGT counts from the image's edge
    return Camera(K=K, T_camera_world=to_homogeneous(T).cpu().numpy(), width=image_hw[1], height=image_hw[0])
