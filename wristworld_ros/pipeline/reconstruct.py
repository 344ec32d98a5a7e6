"""First half of the stream: an anchor set becomes cameras, a coloured cloud and what the wrist camera would see of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.geometry import decode_pose, resize_intrinsics, shift_principal_point, to_homogeneous
from wristworld_ros.geometry.agreement import cloud_agreement
from wristworld_ros.geometry.cloud import CloudSettings, dense_cloud, render_cloud
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.vggt.config import input_size
from wristworld_ros.models.vggt.model import own_points
from wristworld_ros.models.vggt.scene_coordinates import fit_frame, nearness, patch_centers, refine_wrist
from wristworld_ros.pipeline.close_up import CloseUp, PredictedScene
from wristworld_ros.pipeline.known_geometry import KnownGeometryStep, Prediction
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.modelled_depth import DepthSource, ModelledDepth
from wristworld_ros.pipeline.swept import PlaneSweep, mean_confidence, trusted_coverage
from wristworld_ros.robot.known_cameras import KnownCameras
from wristworld_ros.robot.motion_placement import AnchorPlacement, PlacedAnchors
from wristworld_ros.runtime.cuda_graphs import CudaGraphRunner
from wristworld_ros.runtime.transfer import StageTimer, download, upload
from wristworld_ros.types import (
    AnchorSet,
    Camera,
    ConditionMap,
    FrameStatus,
    Geometry,
    MotionPlacement,
    Reconstruction,
    Verdict,
)

NOT_FINITE = Verdict(
    FrameStatus.NOT_FINITE,
    'Stage 1 produced numbers that are not finite (NaN or infinity), so there is neither a wrist camera nor a cloud.',
)


@dataclass(frozen=True)
class Observation:
    """Everything the second half of the stream needs of one anchor set.

    condition: the cloud seen by the wrist camera. coverage: share of the wrist's pixels that a point hits or, where more is
    known than images, a point that is measured or predicted with confidence, 0 to 1. confidence: see `visible_confidence`. agreements: float64 [V], of each anchor with the others, 0 to 1, NaN where
    there is nothing to compare; see `cloud_agreement`. verdict: valid, or why stage 1 gave nothing; reconstruction and
    condition are then blank. geometry, residuals, missing, placement: see `WristFrame`. anchor_verdict: valid, or what is wrong with the anchor images themselves. seconds: time of
    each part. arrived: `time.perf_counter()` when the set came. starts_stream: whether a new video begins with it.
    """

    anchors: AnchorSet
    reconstruction: Reconstruction
    condition: ConditionMap
    coverage: float
    confidence: float
    agreements: np.ndarray
    verdict: Verdict = Verdict()
    geometry: Geometry = Geometry.RGB
    residuals: np.ndarray = field(default_factory=lambda: np.empty(0))
    missing: tuple[str, ...] = ()
    placement: MotionPlacement | None = None
    anchor_verdict: Verdict = Verdict()
    seconds: dict[str, float] = field(default_factory=dict)
    arrived: float = 0.0
    starts_stream: bool = False

    @property
    def agreement(self) -> float:
        """Of the anchor that agrees least with the others, 0 to 1; NaN where there is nothing to compare."""
        known = self.agreements[np.isfinite(self.agreements)]
        return float(known.min()) if len(known) else float('nan')


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


class ReconstructionStep:
    """Anchor sets one by one to observations: host to device, stage 1, condition map, and one wait for the few numbers
    that the host needs.

    Its two parts on the device, tensors in and out: `stage1` of images uint8 [V, h, w, 3] as `Reconstructor.resized` gives
    them, and `condition` of what stage 1 gives, images uint8 [V, H, W, 3] and the same images as stage 1 took them.

    Args:
        model: Whose stage 1 runs.
        near: Near plane of the wrist camera, metres; None for the model's own.
        wrist_fov: Vertical field of view of the wrist camera, degrees, in place of the predicted one; None leaves it.
        graphs: Whether to replay both parts as CUDA graphs where device and model allow.
        remember: Whether what the robot covers is remembered, where depth is measured.
        place_anchors: Whether anchors of unknown place are placed by the wrist's known path.
        depth_source: Whose depth takes the place of stage 1's where cameras and robot are known; None for none.
        refine: Whether given places of anchors are corrected by how they see the robot.
        table_height: Of the plane that objects stand on in the robot's base frame, metres; None to find it.
    """

    def __init__(
        self,
        model: WristModel,
        near: float | None = None,
        wrist_fov: float | None = None,
        graphs: bool = False,
        remember: bool = True,
        place_anchors: bool = True,
        depth_source: DepthSource | None = None,
        refine: bool = True,
        table_height: float | None = None,
    ):
        self._reconstructor = Reconstructor(model.stage1, model.config.anchor_width, model.config.wrist_hw)
        self._cloud: CloudSettings = model.config.cloud if near is None else replace(model.config.cloud, near=near)
        self._fov, self._device = wrist_fov, model.device
        self._close_up = _close_up(model, table_height)
        self._known = KnownGeometryStep(
            model.config.wrist_hw, model.config.cloud, near, model.device, remember, refine, model.sweep, table_height
        )
        self._placement = AnchorPlacement() if place_anchors else None
        self._modelled = None if depth_source is None else ModelledDepth(depth_source, self._known)
        graphs = graphs and model.device.type == 'cuda'
        self.stage1 = CudaGraphRunner(self._scene, graphs and not self._reconstructor.waits)
        self.condition = CudaGraphRunner(self._condition, graphs)
        self._shape: tuple[int, ...] = ()

    @torch.inference_mode()
    def __call__(self, anchors: AnchorSet) -> Observation:
        """Reconstruction and condition map of one anchor set, by what it knows."""
        if anchors.is_known:
            return self._known_set(anchors)
        observation = self._images_alone(anchors)
        if self._modelled is None:
            return observation
        _, missing = self._modelled.prediction(anchors)
        return replace(observation, missing=missing)

    def reset(self) -> None:
        """A new stream begins: what was remembered of the scene is forgotten."""
        self._known.reset()
        if self._close_up is not None:
            self._close_up.reset()
        if self._placement is not None:
            self._placement.reset()

    def _images_alone(self, anchors: AnchorSet) -> Observation:
        if anchors.images.shape != self._shape:  # graphs of the old size will not be used again
            self._shape = anchors.images.shape
            self.stage1.clear()
            self.condition.clear()
        timer = StageTimer(self._device)
        images = upload(anchors.images, self._device)
        colors = upload(self._reconstructor.resized(anchors.images), self._device)
        scene = Scene(*self.stage1(colors))
        timer.split()
        if self._close_up is not None and (closer := self._closer(anchors, scene, colors, timer)) is not None:
            return closer
        image, depth, facts = self.condition(scene.K, scene.T, scene.points, scene.confidence, images, colors)
        timer.split()
        K, T, (coverage, confidence, finite, *agreements) = download(scene.K, scene.T, facts)
        seconds = dict(zip(('stage1', 'condition'), timer.seconds(), strict=True))
        reconstruction = self._reconstructor.reconstruction(scene, K, T, colors)
        if not finite:
            reconstruction = empty_reconstruction(reconstruction)
            return _blank_observation(anchors, reconstruction, NOT_FINITE, seconds)
        return Observation(
            anchors, reconstruction, ConditionMap(image, depth), float(coverage), float(confidence),
            np.array(agreements), seconds=seconds,
        )  # fmt: skip

    def _closer(self, anchors: AnchorSet, scene: Scene, colors: Tensor, timer: StageTimer) -> Observation | None:
        """The observation with cameras corrected by how the hand looks, and a view by plane sweep; None where that is not to be
        had."""
        assert self._close_up is not None
        K, T, finite = download(scene.K, scene.T, is_finite(scene.K, scene.T, scene.points, scene.confidence))
        T_base_anchor = _finite_pose(scene.T_base_anchor)
        if not finite or T_base_anchor is None:
            return None
        predicted = PredictedScene(K, T, T_base_anchor, scene.points)
        view = self._close_up(anchors.images, predicted, (scene.points.shape[1], scene.points.shape[2]))
        if view is None:
            return None
        reconstruction = self._reconstructor.reconstruction(replace(scene, points=view.points), K, view.T, colors)
        condition = view.swept.condition
        timer.split()
        seconds = dict(zip(('stage1', 'condition'), timer.seconds(), strict=True))
        return Observation(
            anchors, reconstruction, condition, trusted_coverage(condition), mean_confidence(condition),
            view.swept.agreements, seconds=seconds,
        )  # fmt: skip

    def _known_set(self, anchors: AnchorSet) -> Observation:
        timer = StageTimer(self._device)
        found, missing, placement, seconds = self._known.measured(anchors), (), None, {}
        if found is None:
            anchors, stage1, placed = self._placed_by_motion(anchors)
            prediction, missing = self._best_prediction(anchors, stage1)
            if placed is not None:
                placement, missing = placed.summary, (*missing, _placement_sentence(placed.summary))
            timer.split()
            found = self._known.completed(anchors, prediction, placed.scale if placed is not None else None)
            timer.split()
            seconds = dict(zip(('stage1', 'condition'), timer.seconds(), strict=True))
        else:
            timer.split()
            seconds = {'condition': timer.seconds()[0]}
        if not found.finite:
            return _blank_observation(anchors, empty_reconstruction(found.reconstruction), NOT_FINITE, seconds)
        return Observation(
            anchors, found.reconstruction, found.condition, found.coverage, found.confidence, found.agreements,
            geometry=found.geometry, residuals=found.residuals, missing=missing,
            placement=placement, seconds=seconds,
        )  # fmt: skip

    def _placed_by_motion(self, anchors: AnchorSet) -> tuple[AnchorSet, Prediction | None, PlacedAnchors | None]:
        """A set whose anchors' places nobody knows, with those that the wrist's path gives; stage 1, which ran for that; and how
        they were found."""
        known = KnownCameras.of(anchors, self._reconstructor.wrist_hw)
        if self._placement is None or known.wrist is None or known.placed.any():
            return anchors, None, None
        prediction = self._prediction(anchors)
        placed = self._placement.update(
            anchors.stamp_ns, prediction.K[1:], prediction.T, known.K, np.linalg.inv(known.wrist.T_camera_world)
        )
        if placed.summary.used:
            anchors = replace(anchors, T_base_anchor=placed.T_base_anchor)
        return anchors, prediction, placed

    def _best_prediction(
        self, anchors: AnchorSet, stage1: Prediction | None = None
    ) -> tuple[Prediction, tuple[str, ...]]:
        """Depth of the depth-estimation model where there is one that can be used, else stage 1 (where it ran, as given); and
        what is missing."""
        missing: tuple[str, ...] = ()
        if self._modelled is not None:
            modelled, missing = self._modelled.prediction(anchors)
            if modelled is not None:
                return modelled, missing
        return stage1 or self._prediction(anchors), missing

    def _prediction(self, anchors: AnchorSet) -> Prediction:
        colors = upload(self._reconstructor.resized(anchors.images), self._device)
        scene = Scene(*self._scene(colors))
        rows = scene.T[1:, 2].to(scene.points)
        depth = torch.einsum('vhwx,vx->vhw', scene.points, rows[:, :3]) + rows[:, None, None, 3]
        hw = (colors.shape[1], colors.shape[2])
        K = torch.cat([scene.K[:1], resize_intrinsics(scene.K[1:], hw, anchors.images.shape[1:3])])
        return Prediction(*download(K, scene.T), depth, scene.confidence)

    def _scene(self, colors: Tensor) -> tuple[Tensor | None, ...]:
        scene, hw = self._reconstructor.scene(colors), self._reconstructor.wrist_hw
        if self._fov is not None:
            focal = hw[0] / 2 / np.tan(np.deg2rad(self._fov) / 2)
            scene.K[0, 0, 0] = focal
            scene.K[0, 1, 1] = focal
        return scene.K, scene.T, scene.points, scene.confidence, scene.T_base_anchor

    def _condition(
        self, K: Tensor, T: Tensor, points: Tensor, confidence: Tensor, images: Tensor, colors: Tensor
    ) -> tuple[Tensor, ...]:
        hw = self._reconstructor.wrist_hw
        condition = render_cloud(*dense_cloud(points, images, self._cloud), K[0], T[0], hw, self._cloud)
        coverage = (condition.depth > 0).double().mean()
        confident = visible_confidence(points, confidence, K[0], T[0], hw).double()
        finite = is_finite(K, T, points, confidence).double()
        agreements = cloud_agreement(points, colors, K[0], T[0], hw, self._cloud)
        return condition.image, condition.depth, torch.cat([torch.stack([coverage, confident, finite]), agreements])


def _close_up(model: WristModel, table_height: float | None) -> CloseUp | None:
    if model.hand is None or model.sweep is None:
        return None
    sweep = PlaneSweep(model.sweep, model.device, table_height)
    return CloseUp(model.hand, sweep, model.config.wrist_hw, model.device)


def _finite_pose(T: Tensor | None) -> np.ndarray | None:
    return T.cpu().numpy() if T is not None and bool(T.isfinite().all()) else None


def _placement_sentence(placement: MotionPlacement) -> str:
    if not placement.used:
        return f"The anchors are not placed by the wrist's motion: {placement.reason}"
    return (
        f"The anchors' places are estimated from the wrist's motion ({placement.count} samples, scatter "
        f'{placement.residual * 100:.0f} cm); calibrate them (wristworld calibrate) for exact ones.'
    )


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


def empty_reconstruction(reconstruction: Reconstruction) -> Reconstruction:
    """A reconstruction of the same sizes without content: cameras and points at the origin, no confidence."""
    cameras = [_empty_camera(c.height, c.width) for c in (reconstruction.wrist, *reconstruction.anchors)]
    points, confidence = torch.zeros_like(reconstruction.points), torch.ones_like(reconstruction.confidence)
    return Reconstruction(cameras[0], tuple(cameras[1:]), points, confidence, reconstruction.colors)


def empty_condition(reconstruction: Reconstruction) -> ConditionMap:
    """A condition map without a hit, at the size of the wrist camera."""
    hw = (reconstruction.wrist.height, reconstruction.wrist.width)
    device = reconstruction.points.device
    return ConditionMap(torch.zeros(*hw, 3, dtype=torch.uint8, device=device), torch.zeros(*hw, device=device))


def empty_observation(anchors: AnchorSet, wrist_hw: tuple[int, int], verdict: Verdict) -> Observation:
    """The observation of a set that could not be reconstructed: cameras at the origin, one point per view, on the CPU."""
    views, height, width = anchors.images.shape[:3]
    reconstruction = Reconstruction(
        wrist=_empty_camera(*wrist_hw),
        anchors=(_empty_camera(height, width),) * views,
        points=torch.zeros(views, 1, 1, 3),
        confidence=torch.ones(views, 1, 1),
        colors=torch.zeros(views, 1, 1, 3, dtype=torch.uint8),
    )
    return _blank_observation(anchors, reconstruction, verdict, {})


def _blank_observation(
    anchors: AnchorSet, reconstruction: Reconstruction, verdict: Verdict, seconds: dict[str, float]
) -> Observation:
    agreements = np.full(len(anchors.names), np.nan)
    condition = empty_condition(reconstruction)
    return Observation(anchors, reconstruction, condition, 0.0, 0.0, agreements, verdict, seconds=seconds)


def _empty_camera(height: int, width: int) -> Camera:
    K = np.array([[height, 0, (width - 1) / 2], [0, height, (height - 1) / 2], [0, 0, 1]], np.float64)
    return Camera(K, np.eye(4), width, height)
