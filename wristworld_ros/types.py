"""The data that flows through the package, step by step: anchor sets in, wrist frames out.

Conventions, here and everywhere: OpenCV camera axes (x right, y down, z forward), metres, radians, stamps in
nanoseconds. ``T_a_b`` takes coordinates in frame ``b`` to frame ``a``; ``T_camera_world`` is therefore what VGGT calls
"camera from world". The world of a reconstruction is the first anchor's camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

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

    @property
    def is_blank(self) -> bool:
        """Whether a frame of this status holds no image, cloud or camera at all."""
        return self in (FrameStatus.NOT_FINITE, FrameStatus.OUT_OF_MEMORY)


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
class AnchorSet:
    """Images of all anchor cameras at one time.

    stamp_ns: acquisition time of the first anchor's image.
    names: V camera names, in the order of the images.
    images: uint8 [V, H, W, 3], RGB.
    intrinsics: float64 [V, 3, 3] in pixels of ``images``, or None when unknown.
    depth: float32 [V, H, W], metres, 0 where unknown, or None.
    """

    stamp_ns: int
    names: tuple[str, ...]
    images: np.ndarray
    intrinsics: np.ndarray | None = None
    depth: np.ndarray | None = None

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise UserError(
                f'AnchorSet.images is {self.images.dtype} {list(self.images.shape)}', 'give uint8 [V, H, W, 3], RGB'
            )
        if len(self.names) != len(self.images):
            raise UserError(f'AnchorSet has {len(self.names)} names for {len(self.images)} images', 'give one name per image')


@dataclass(frozen=True)
class Reconstruction:
    """Geometry of one anchor set, from stage 1. Tensors stay on the model's device.

    wrist, anchors: cameras in the first anchor's frame.
    points: float32 [V, H, W, 3], metres (model scale), in the first anchor's frame.
    confidence: float32 [V, H, W], at least 1 (VGGT's 1 + exp).
    colors: uint8 [V, H, W, 3], the anchor images at the model's resolution.
    """

    wrist: Camera
    anchors: tuple[Camera, ...]
    points: torch.Tensor
    confidence: torch.Tensor
    colors: torch.Tensor


@dataclass(frozen=True)
class ConditionMap:
    """The anchors' coloured cloud seen by the wrist camera.

    image: uint8 [h, w, 3], black where nothing is seen. depth: float32 [h, w], metres, 0 where empty.
    """

    image: torch.Tensor
    depth: torch.Tensor

    @property
    def coverage(self) -> float:
        """Share of the wrist's pixels that at least one point hits, 0 to 1."""
        return float((self.depth > 0).float().mean())

    @property
    def marked(self) -> torch.Tensor:
        """The image for those who have no depth beside it, uint8 [h, w, 3]: 0 where nothing is seen and nowhere else, for a
        seen pixel has at least 1 in every channel."""
        return torch.where((self.depth > 0)[..., None], self.image.clamp(min=1), 0)


@dataclass(frozen=True)
class WristFrame:
    """One generated wrist image and how far to trust it.

    stamp_ns: stamp of the anchor set it shows. image: uint8 [h, w, 3] RGB. camera: in the first anchor's frame.
    condition: uint8 [h, w, 3], the condition map it was generated from, `ConditionMap.marked`. coverage, confidence: 0 to 1.
    agreement: of the anchor whose cloud agrees least with the others', 0 to 1, NaN for a single anchor.
    latency_s: from the moment its anchor set was pushed to the moment it was ready, seconds.
    verdict: whether a policy may use it, and why not. Where ``verdict.status.is_blank``, image, camera and cloud are
    blank. reconstruction: the cloud and cameras behind it.
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

    @property
    def valid(self) -> bool:
        """Whether a policy may use the image."""
        return self.verdict.status is FrameStatus.VALID

    @property
    def reason(self) -> str:
        """Why it is not valid, one sentence; empty when it is."""
        return self.verdict.reason
