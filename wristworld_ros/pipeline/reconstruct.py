"""The first half of the stream: an anchor set to what the wrist would see of it, and how far to trust that."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.geometry.cloud import CloudSettings, dense_cloud, render
from wristworld_ros.pipeline.reconstructor import Reconstructor, Scene
from wristworld_ros.runtime.cuda_graphs import CudaGraphRunner
from wristworld_ros.runtime.transfer import StageTimer, download, upload
from wristworld_ros.types import AnchorSet, Camera, ConditionMap, Reconstruction

BROKEN = 'Stage 1 gave numbers that are not finite (NaN or infinity), so there is neither a wrist camera nor a cloud.'


@dataclass(frozen=True)
class Observation:
    """What stage 1 and the condition map make of an anchor set.

    coverage: share of the wrist's pixels that a point hits, 0 to 1. confidence: see `seen_confidence`. broken: one
    sentence where stage 1 gave NaN or infinity; then reconstruction and condition are blank. seconds: of each part.
    """

    reconstruction: Reconstruction
    condition: ConditionMap
    coverage: float
    confidence: float
    broken: str
    seconds: dict[str, float]


class ReconstructionStep:
    """Looks at anchor sets one by one: host to device, stage 1, condition map, and one wait for the few numbers that the
    host needs.

    cloud: how points become a condition map. wrist_fov: vertical field of view of the wrist camera, degrees, in place of
    the predicted one; 0 leaves it. graphs: replay both steps as CUDA graphs where the device and the model allow.
    Its two steps, tensors in and out: `stage1` of images uint8 [V, h, w, 3] as `Reconstructor.resized` gives them, and
    `condition` of what stage 1 gives and images uint8 [V, H, W, 3].
    """

    def __init__(self, reconstructor: Reconstructor, cloud: CloudSettings, wrist_fov: float, graphs: bool):
        self._reconstructor, self._cloud, self._fov = reconstructor, cloud, wrist_fov
        self._device = next(reconstructor.model.parameters()).device
        graphs = graphs and self._device.type == 'cuda'
        self.stage1 = CudaGraphRunner(self._scene, graphs and not reconstructor.waits)
        self.condition = CudaGraphRunner(self._condition, graphs)
        self._shape: tuple[int, ...] = ()

    @torch.inference_mode()
    def __call__(self, anchors: AnchorSet) -> Observation:
        """Reconstruction and condition map of one anchor set."""
        if anchors.images.shape != self._shape:  # graphs of the old size are of no more use
            self._shape = anchors.images.shape
            self.stage1.forget()
            self.condition.forget()
        marks = StageTimer(self._device)
        images = upload(anchors.images, self._device)
        colors = upload(self._reconstructor.resized(anchors.images), self._device)
        scene = Scene(*self.stage1(colors))
        marks.mark()
        image, depth, facts = self.condition(scene.K, scene.T, scene.points, scene.confidence, images)
        marks.mark()
        K, T, (coverage, confidence, finite) = download(scene.K, scene.T, facts)
        reconstruction, condition = self._reconstructor.reconstruction(scene, K, T, colors), ConditionMap(image, depth)
        broken = '' if finite else BROKEN
        if broken:
            reconstruction = blank(reconstruction)
            condition, coverage, confidence = empty_condition(reconstruction), 0.0, 0.0
        seconds = dict(zip(('stage1', 'condition'), marks.seconds(), strict=True))
        return Observation(reconstruction, condition, float(coverage), float(confidence), broken, seconds)

    def _scene(self, colors: Tensor) -> tuple[Tensor, ...]:
        scene, hw = self._reconstructor.scene(colors), self._reconstructor.wrist_hw
        if self._fov:
            focal = hw[0] / 2 / np.tan(np.deg2rad(self._fov) / 2)
            scene.K[0, 0, 0] = focal
            scene.K[0, 1, 1] = focal
        return scene.K, scene.T, scene.points, scene.confidence

    def _condition(
        self, K: Tensor, T: Tensor, points: Tensor, confidence: Tensor, images: Tensor
    ) -> tuple[Tensor, ...]:
        hw = self._reconstructor.wrist_hw
        condition = render(*dense_cloud(points, images, self._cloud), K[0], T[0], hw, self._cloud)
        facts = torch.stack(
            [
                (condition.depth > 0).double().mean(),
                seen_confidence(points, confidence, K[0], T[0], hw).double(),
                is_finite(K, T, points, confidence).double(),
            ]
        )
        return condition.image, condition.depth, facts


def seen_confidence(points: Tensor, confidence: Tensor, K: Tensor, T: Tensor, hw: tuple[int, int]) -> Tensor:
    """Mean confidence of the points that lie in a camera's view, 0 to 1: VGGT's c >= 1 becomes 1 - 1 / c.

    points: [V, H, W, 3]. confidence: [V, H, W]. K, T: of the camera. hw: its size. 0 when no point lies in view.
    """
    K, T = K.to(points), T.to(points)
    uvw = (points.reshape(-1, 3) @ T[:3, :3].T + T[:3, 3]) @ K.T
    z = uvw[:, 2]
    uv = uvw[:, :2] / z.clamp(min=1e-6)[:, None]
    seen = (z > 0.01) & (uv >= 0).all(1) & (uv[:, 0] < hw[1]) & (uv[:, 1] < hw[0])
    trust = torch.where(seen, 1 - 1 / confidence.flatten(), 0.0)
    return trust.sum() / seen.sum().clamp(min=1)


def is_finite(K: Tensor, T: Tensor, points: Tensor, confidence: Tensor) -> Tensor:
    """Whether cameras are finite, and points and confidence at least numbers, most of them finite; bool [].

    A point of the sky may be infinitely far away; the splat passes over it.
    """
    numbers = ~(points.isnan().any() | confidence.isnan().any())
    most = (points.isfinite().all(-1) & confidence.isfinite()).float().mean() >= 0.5
    return K.isfinite().all() & T.isfinite().all() & numbers & most


def blank(reconstruction: Reconstruction) -> Reconstruction:
    """A reconstruction of the same sizes that knows nothing: cameras at the origin, no confidence, points at the origin."""
    cameras = [
        replace(c, K=np.array([[c.height, 0, (c.width - 1) / 2], [0, c.height, (c.height - 1) / 2], [0, 0, 1]], np.float64),
                T_camera_world=np.eye(4))
        for c in (reconstruction.wrist, *reconstruction.anchors)
    ]  # fmt: skip
    points, confidence = torch.zeros_like(reconstruction.points), torch.ones_like(reconstruction.confidence)
    return Reconstruction(cameras[0], tuple(cameras[1:]), points, confidence, reconstruction.colors)


def empty_observation(anchors: AnchorSet, wrist_hw: tuple[int, int]) -> Observation:
    """The sight of a set that could not be looked at: cameras at the origin, one point a view, on the CPU."""
    views = len(anchors.images)
    camera = Camera(np.eye(3), np.eye(4), wrist_hw[1], wrist_hw[0])
    points, colors = torch.zeros(views, 1, 1, 3), torch.zeros(views, 1, 1, 3, dtype=torch.uint8)
    cameras = tuple(
        replace(camera, width=anchors.images.shape[2], height=anchors.images.shape[1]) for _ in range(views)
    )
    unknown = blank(Reconstruction(camera, cameras, points, torch.ones(views, 1, 1), colors))
    return Observation(unknown, empty_condition(unknown), 0.0, 0.0, '', {})


def empty_condition(reconstruction: Reconstruction) -> ConditionMap:
    """Nothing seen, at the size of the wrist camera."""
    hw = (reconstruction.wrist.height, reconstruction.wrist.width)
    device = reconstruction.points.device
    return ConditionMap(torch.zeros(*hw, 3, dtype=torch.uint8, device=device), torch.zeros(*hw, device=device))
