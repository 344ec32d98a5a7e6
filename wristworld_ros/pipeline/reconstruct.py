"""First half of the stream: an anchor set becomes cameras, a coloured cloud and what the wrist camera would see of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.geometry import resize_intrinsics
from wristworld_ros.geometry.agreement import cloud_agreement
from wristworld_ros.geometry.cloud import CloudSettings, dense_cloud, render_cloud
from wristworld_ros.pipeline.close_up import CloseUp, PredictedScene
from wristworld_ros.pipeline.known_geometry import KnownGeometryStep, Prediction
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.modelled_depth import DepthSource, ModelledDepth
from wristworld_ros.pipeline.observation import NOT_FINITE, Observation, blank_observation, empty_reconstruction
from wristworld_ros.pipeline.reconstructor import Reconstructor, Scene, is_finite, visible_confidence
from wristworld_ros.pipeline.swept import PlaneSweep, trusted_coverage
from wristworld_ros.robot.depth_filter import DepthFilter
from wristworld_ros.robot.known_cameras import KnownCameras
from wristworld_ros.robot.motion_placement import AnchorPlacement, PlacedAnchors
from wristworld_ros.runtime.cuda_graphs import CudaGraphRunner
from wristworld_ros.runtime.transfer import StageTimer, download, upload
from wristworld_ros.types import (
    AnchorSet,
    ConditionMap,
    MotionPlacement,
)

_TRACKED_NS = 400_000_000  # ns after which the hand may be anywhere


@dataclass(frozen=True)
class _Keyframe:
    """A set that stage 1 ran on, and where the wrist was last. age: sets that it has served."""

    scene: Scene
    predicted: PredictedScene
    colors: Tensor
    last: AnchorSet
    age: int = 0

    def serves(self, anchors: AnchorSet, most: int) -> bool:
        """Whether another set can do without a stage 1 of its own."""
        same = anchors.names == self.last.names and anchors.images.shape == self.last.images.shape
        soon = 0 < anchors.stamp_ns - self.last.stamp_ns <= _TRACKED_NS
        return same and soon and self.age < most and (anchors.intrinsics is None) == (self.last.intrinsics is None)


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
        filter_depth: Whether the noise of measured depth is filtered.
        table_height: Of the plane that objects stand on in the robot's base frame, metres; None to find it.
        stage1_every: Sets of which stage 1 runs on one, where images alone are known and the hand is tracked between.
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
        stage1_every: int = 1,
        filter_depth: bool = True,
    ):
        self._reconstructor = Reconstructor(model.stage1, model.config.anchor_width, model.config.wrist_hw)
        self._cloud: CloudSettings = model.config.cloud if near is None else replace(model.config.cloud, near=near)
        self._fov, self._device = wrist_fov, model.device
        self._close_up = _close_up(model, table_height)
        self._stage1_every = stage1_every
        self._keyframe: _Keyframe | None = None
        self._known = KnownGeometryStep(
            model.config.wrist_hw,
            model.config.cloud,
            near,
            model.device,
            remember,
            refine,
            model.sweep,
            table_height,
            model.hand,
        )
        self._depth_filter = DepthFilter() if filter_depth else None
        self._placement = AnchorPlacement() if place_anchors else None
        self._modelled = None if depth_source is None else ModelledDepth(depth_source, self._known)
        graphs = graphs and model.device.type == 'cuda'
        self.stage1 = CudaGraphRunner(self._scene, graphs and not self._reconstructor.waits)
        self.condition = CudaGraphRunner(self._condition, graphs)
        self._shape: tuple[int, ...] = ()

    @torch.inference_mode()
    def __call__(self, anchors: AnchorSet) -> Observation:
        """Reconstruction and condition map of one anchor set, by what it knows."""
        if anchors.is_known and not (self._close_up is not None and _only_intrinsics(anchors)):
            return self._known_set(anchors)
        observation = self._images_alone(anchors)
        if self._modelled is None:
            return observation
        _, missing = self._modelled.prediction(anchors)
        return replace(observation, missing=missing)

    def reset(self) -> None:
        """A new stream begins: what was remembered of the scene is forgotten."""
        self._known.reset()
        self._keyframe = None
        if self._depth_filter is not None:
            self._depth_filter.reset()
        if self._close_up is not None:
            self._close_up.reset()
        if self._placement is not None:
            self._placement.reset()

    def _images_alone(self, anchors: AnchorSet) -> Observation:
        if anchors.images.shape != self._shape:  # graphs of the old size will not be used again
            self._shape = anchors.images.shape
            self.stage1.clear()
            self.condition.clear()
            self._keyframe = None
            if self._close_up is not None:
                self._close_up.reset()
        if (tracked := self._tracked(anchors)) is not None:
            return tracked
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
            return blank_observation(anchors, reconstruction, NOT_FINITE, seconds)
        certainty = 1.0 if self._close_up is None else self._close_up.certainty
        return Observation(
            anchors, reconstruction, ConditionMap(image, depth), float(coverage), float(confidence) * certainty,
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
        hw = (scene.points.shape[1], scene.points.shape[2])
        predicted = PredictedScene(_with_intrinsics(K, anchors, hw), T, T_base_anchor, scene.points)
        return self._view(anchors, _Keyframe(scene, self._close_up.steady(predicted), colors, anchors), timer)

    def _tracked(self, anchors: AnchorSet) -> Observation | None:
        """The observation from the stage 1 of an earlier set, for the anchors stand still, and the wrist is found again from where it
        was; None where stage 1 has to run."""
        if self._keyframe is None or not self._keyframe.serves(anchors, self._stage1_every):
            return None
        timer = StageTimer(self._device)
        timer.split()
        return self._view(anchors, self._keyframe, timer)

    def _view(self, anchors: AnchorSet, key: _Keyframe, timer: StageTimer) -> Observation | None:
        assert self._close_up is not None
        hw = (key.scene.points.shape[1], key.scene.points.shape[2])
        view = self._close_up(anchors, key.predicted, hw, tracked=key.age > 0)
        if view is None:
            return None
        predicted = replace(key.predicted, T=view.T, points=view.points)
        self._keyframe = replace(key, predicted=predicted, last=anchors, age=key.age + 1)
        scene = replace(key.scene, points=view.points)
        K, T = predicted.K.copy(), view.T.copy()
        K[0], T[0] = view.wrist.K, view.wrist.T_camera_world
        reconstruction = self._reconstructor.reconstruction(scene, K, T, key.colors)
        condition = view.swept.condition
        timer.split()
        seconds = dict(zip(('stage1', 'condition'), timer.seconds(), strict=True))
        return Observation(
            anchors, reconstruction, condition, trusted_coverage(condition),
            view.swept.quality * self._close_up.certainty, view.swept.agreements, seconds=seconds,
        )  # fmt: skip

    def _known_set(self, anchors: AnchorSet) -> Observation:
        timer = StageTimer(self._device)
        if self._depth_filter is not None and anchors.depth is not None:
            depth = self._depth_filter(anchors.stamp_ns, anchors.depth, anchors.images, anchors.T_base_anchor)
            anchors = replace(anchors, depth=depth)
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
            return blank_observation(anchors, empty_reconstruction(found.reconstruction), NOT_FINITE, seconds)
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

    def _scene(self, colors: Tensor) -> tuple[Tensor, ...]:
        scene, hw = self._reconstructor.scene(colors), self._reconstructor.wrist_hw
        if self._fov is not None:
            focal = hw[0] / 2 / np.tan(np.deg2rad(self._fov) / 2)
            scene.K[0, 0, 0] = focal
            scene.K[0, 1, 1] = focal
        always = scene.K, scene.T, scene.points, scene.confidence
        return always if scene.T_base_anchor is None else (*always, scene.T_base_anchor)

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


def _only_intrinsics(anchors: AnchorSet) -> bool:
    """Whether a set knows nothing of where its cameras are, nor how far what they see."""
    return anchors.depth is None and anchors.T_base_anchor is None and anchors.wrist is None


def _with_intrinsics(K: np.ndarray, anchors: AnchorSet, hw: tuple[int, int]) -> np.ndarray:
    """K [1 + V, 3, 3], pixels of images of `hw`, with the known ones in place of predicted ones."""
    if anchors.intrinsics is None:
        return K
    image_hw = (anchors.images.shape[1], anchors.images.shape[2])
    known = resize_intrinsics(torch.from_numpy(np.asarray(anchors.intrinsics, np.float64)), image_hw, hw).numpy()
    there = np.isfinite(known).all((1, 2))
    return np.concatenate([K[:1], np.where(there[:, None, None], known, K[1:])])


def _finite_pose(T: Tensor | None) -> np.ndarray | None:
    return T.cpu().numpy() if T is not None and bool(T.isfinite().all()) else None


def _placement_sentence(placement: MotionPlacement) -> str:
    if not placement.used:
        return f"The anchors are not placed by the wrist's motion: {placement.reason}"
    return (
        f"The anchors' places are estimated from the wrist's motion ({placement.count} samples, scatter "
        f'{placement.residual * 100:.0f} cm); calibrate them (wristworld calibrate) for exact ones.'
    )
