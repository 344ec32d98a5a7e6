"""The data that flows through the package, step by step: anchor sets in, wrist frames out.

Conventions, here and everywhere: OpenCV camera axes (x right, y down, z forward), metres, radians, stamps in
nanoseconds. ``T_a_b`` takes coordinates in frame ``b`` to frame ``a``; ``T_camera_world`` is therefore what VGGT calls
"camera from world". The world of a reconstruction is the first anchor's camera or, where the anchors' places are known,
the robot's base.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np
import torch

from wristworld_ros.errors import UserError


class FrameStatus(IntEnum):
    """Whether a policy may use a wrist frame, and if not, why. The values are those of ``WristView.msg``."""

    VALID = 0
    LOW_COVERAGE = 1
    LOW_CONFIDENCE = 2
    STALE = 3
    STAMP_IN_FUTURE = 4
    NOT_FINITE = 5
    OUT_OF_MEMORY = 6
    ANCHORS_DISAGREE = 7
    UNIFORM_ANCHOR = 8
    FROZEN_ANCHOR = 9
    IDENTICAL_ANCHORS = 10
    REQUIRED_MISSING = 11
    ANCHOR_MOVED = 12

    @property
    def is_blank(self) -> bool:
        """Whether a frame of this status holds no image, cloud or camera at all."""
        return self in (FrameStatus.NOT_FINITE, FrameStatus.OUT_OF_MEMORY)


class Geometry(IntEnum):
    """What the geometry of a wrist frame was made from. The values are those of ``WristView.msg``.

    RGB: images; the wrist camera is predicted, and whatever else is known only helps. CALIBRATED: the wrist camera and the
    place of at least one anchor are known in one frame, depth is predicted. RGBD: the same with measured depth.
    """

    RGB = 0
    CALIBRATED = 1
    RGBD = 2


class PixelOrigin(IntEnum):
    """Where a pixel of a condition map comes from."""

    EMPTY = 0
    PREDICTED = 1
    MEASURED = 2
    MEMORY = 3
    ROBOT = 4


@dataclass(frozen=True)
class Verdict:
    """A status and, unless it is valid, one sentence that says why."""

    status: FrameStatus = FrameStatus.VALID
    reason: str = ''


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    K: float64 [3, 3], pixels; pixel i's centre is coordinate i.
    T_camera_world: float64 [4, 4], rigid, metres.
    width, height: pixels.
    """

    K: np.ndarray
    T_camera_world: np.ndarray
    width: int
    height: int


@dataclass(frozen=True)
class RobotPoints:
    """Points on the robot's surface at one time.

    points: float32 [N, 3], robot base, metres.
    colors: uint8 [N, 3], RGB.
    links: str [N], the link that each point lies on.
    normals: float32 [N, 3], outward, of unit length; None where unknown: then the far side of the robot shows too.
    """

    points: np.ndarray
    colors: np.ndarray
    links: np.ndarray
    normals: np.ndarray | None = None

    def __post_init__(self):
        count = len(self.points)
        _check_array('RobotPoints.normals', self.normals, (count, 3))
        _check_array('RobotPoints.points', self.points, (count, 3))
        _check_array('RobotPoints.colors', self.colors, (count, 3))
        object.__setattr__(self, 'links', np.asarray(self.links))
        _check_array('RobotPoints.links', self.links, (count,))


@dataclass(frozen=True)
class AnchorSet:
    """Images of all anchor cameras at one time, and what is known of them. What is not known is None, or NaN for one view.

    stamp_ns: acquisition time of the first anchor's image.
    names: V camera names, in the order of the images.
    images: uint8 [V, H, W, 3], RGB.
    intrinsics: float64 [V, 3, 3] in pixels of ``images``; pixel i's centre is coordinate i.
    depth: float32 [V, H, W], metres along the optical axis, registered to the images, 0 where unknown.
    T_base_anchor: float64 [V, 4, 4], pose of each anchor camera in the robot's base frame, metres.
    wrist: the wrist camera; its world is the robot's base.
    robot_points: the robot's surface in its base frame.
    mounted: the wrist camera as it is mounted, or shall be: its world is the gripper (panda_hand, fr3_hand), whose z axis points to the
    fingertips and along whose y axis the fingers open.
    """

    stamp_ns: int
    names: tuple[str, ...]
    images: np.ndarray
    intrinsics: np.ndarray | None = None
    depth: np.ndarray | None = None
    T_base_anchor: np.ndarray | None = None
    wrist: Camera | None = None
    robot_points: RobotPoints | None = None
    mounted: Camera | None = None

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise UserError(
                f'AnchorSet.images is {self.images.dtype} {list(self.images.shape)}', 'give uint8 [V, H, W, 3], RGB'
            )
        if len(self.names) != len(self.images):
            raise UserError(
                f'AnchorSet has {len(self.names)} names for {len(self.images)} images', 'give one name per image'
            )
        views = len(self.images)
        _check_array('AnchorSet.intrinsics', self.intrinsics, (views, 3, 3))
        _check_array('AnchorSet.T_base_anchor', self.T_base_anchor, (views, 4, 4))
        _check_array('AnchorSet.depth', self.depth, self.images.shape[:3])

    @property
    def T_hand_wrist(self) -> np.ndarray | None:
        """Where the wrist camera is mounted to the hand, float64 [4, 4], metres; None where that is not known."""
        return None if self.mounted is None else np.linalg.inv(self.mounted.T_camera_world)

    @property
    def is_known(self) -> bool:
        """Whether anything of the scene beside its images is known. How a camera is mounted is none of it."""
        known = (self.intrinsics, self.depth, self.T_base_anchor, self.wrist, self.robot_points)
        return any(value is not None for value in known)


@dataclass(frozen=True)
class Reconstruction:
    """Geometry of one anchor set. Tensors stay on the model's device.

    wrist, anchors: cameras in `world`.
    points: float32 [V, H, W, 3], in `world`, NaN where nothing is known.
    confidence: float32 [V, H, W], at least 1 (VGGT's 1 + exp); infinite where depth was measured.
    colors: uint8 [V, H, W, 3], the anchor images at the resolution of the points.
    world: 'anchor', the first anchor's camera, or 'base', the robot's base.
    metric: whether lengths are metres; otherwise they are the model's estimate of metres.
    """

    wrist: Camera
    anchors: tuple[Camera, ...]
    points: torch.Tensor
    confidence: torch.Tensor
    colors: torch.Tensor
    world: Literal['base', 'anchor'] = 'anchor'
    metric: bool = False


CLOUD_TRUST = 0.3  # of a pixel that a predicted cloud hits


@dataclass(frozen=True)
class ConditionMap:
    """The anchors' coloured cloud seen by the wrist camera.

    image: uint8 [h, w, 3], black where nothing is seen. depth: float32 [h, w], metres, 0 where empty.
    origin: uint8 [h, w], `PixelOrigin`; None where all that is seen is predicted.
    confidence: float32 [h, w], 0 to 1, 0 where empty; None likewise.
    """

    image: torch.Tensor
    depth: torch.Tensor
    origin: torch.Tensor | None = None
    confidence: torch.Tensor | None = None

    @property
    def coverage(self) -> float:
        """Share of the wrist's pixels that at least one point hits, 0 to 1."""
        return float((self.depth > 0).float().mean())

    @property
    def trust(self) -> torch.Tensor:
        """How far each pixel can be trusted, float32 [h, w], 0 to 1: the confidence; where there is none, `CLOUD_TRUST` of what is hit."""
        return CLOUD_TRUST * (self.depth > 0).float() if self.confidence is None else self.confidence

    @property
    def marked(self) -> torch.Tensor:
        """The image for those who have no depth beside it, uint8 [h, w, 3]: 0 where nothing is seen and nowhere else, for a
        seen pixel has at least 1 in every channel."""
        return torch.where((self.depth > 0)[..., None], self.image.clamp(min=1), 0)


@dataclass(frozen=True)
class MotionPlacement:
    """How the wrist's known path placed anchors that nobody calibrated.

    used: whether any is placed. residual: standard deviation of a predicted wrist position along one axis about the known one,
    metres, NaN where unknown: scatter, not error, for what a model does wrong in every frame is not seen. observability:
    standard deviation of the wrist's motion along its second axis, metres. count: samples. reason: why an anchor is
    not placed, one sentence; '' where all are.
    """

    used: bool
    residual: float
    observability: float
    count: int
    reason: str = ''


@dataclass(frozen=True)
class WristFrame:
    """One generated wrist image and how far to trust it.

    stamp_ns: stamp of the anchor set it shows. image: uint8 [h, w, 3] RGB. camera: in `reconstruction.world`.
    condition: uint8 [h, w, 3], the condition map it was generated from, `ConditionMap.marked`. coverage, confidence: 0 to 1.
    agreement: of the anchor whose cloud agrees least with the others', 0 to 1, NaN for a single anchor.
    latency_s: from the moment its anchor set was pushed to the moment it was ready, seconds.
    verdict: whether a policy may use it, and why not. Where ``verdict.status.is_blank``, image, camera and cloud are
    blank. reconstruction: the cloud and cameras behind it. geometry: what they were made from.
    residuals: float64 [V], metres: how far each anchor sees the robot's surface from where it must be (median); NaN where
    that cannot be told. missing: what the set lacked for what the settings ask of it, one sentence each. placement: how
    its anchors were placed by the wrist's motion; None where that was not tried. depth: float32 [h, w], that of the condition
    map, on the model's device: metres (as far as `reconstruction.metric`), 0 where nothing is seen.
    """

    stamp_ns: int
    image: np.ndarray
    camera: Camera
    condition: np.ndarray
    coverage: float
    confidence: float
    agreement: float
    latency_s: float
    verdict: Verdict
    reconstruction: Reconstruction
    geometry: Geometry = Geometry.RGB
    residuals: np.ndarray = field(default_factory=lambda: np.empty(0))
    missing: tuple[str, ...] = ()
    placement: MotionPlacement | None = None
    depth: torch.Tensor | None = None

    @property
    def valid(self) -> bool:
        """Whether a policy may use the image."""
        return self.verdict.status is FrameStatus.VALID

    @property
    def reason(self) -> str:
        """Why it is not valid, one sentence; empty when it is."""
        return self.verdict.reason


@dataclass(frozen=True)
class WristImage:
    """A wrist image as a policy gets it: valid, and fresh when it was handed over.

    image: uint8 [h, w, 3], RGB; read-only, for all who read one frame share its memory. stamp_ns: acquisition time of the anchor
    images that it shows. age_s: seconds from the stamp to the moment it was handed over, by the reader's clock. camera: its
    world is the TF frame `world`. frame_id: TF frame of the camera itself. geometry, coverage, confidence, agreement,
    residuals: as of a `WristFrame`.
    """

    image: np.ndarray
    stamp_ns: int
    camera: Camera
    world: str
    frame_id: str
    geometry: Geometry = Geometry.RGB
    coverage: float = 1.0
    confidence: float = 1.0
    agreement: float = float('nan')
    residuals: np.ndarray = field(default_factory=lambda: np.empty(0))
    age_s: float = 0.0


@dataclass(frozen=True)
class ReceivedFrame:
    """What arrived about one frame. image: None unless the verdict is VALID, so that nobody can use an invalid one."""

    stamp_ns: int
    verdict: Verdict
    image: WristImage | None = None


def _check_array(name: str, value: np.ndarray | None, shape: tuple[int, ...]) -> None:
    if value is not None and value.shape != shape:
        raise UserError(f'{name} has shape {list(value.shape)}', f'give {list(shape)}')
