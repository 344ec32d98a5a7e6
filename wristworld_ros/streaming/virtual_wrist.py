"""The whole machine without ROS: anchor sets in, wrist frames out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from wristworld_ros.settings import StreamSettings, check
from wristworld_ros.streaming.allocator import keep_freed_memory
from wristworld_ros.streaming.chunks import ChunkStream
from wristworld_ros.streaming.inputs import NotFiniteError
from wristworld_ros.streaming.model import WristModel
from wristworld_ros.types import AnchorSet, Camera, ConditionMap, Reconstruction, WristFrame

BROKEN = 'Stage 1 gave numbers that are not finite (NaN or infinity), so there is neither a wrist camera nor a cloud.'


@dataclass(frozen=True)
class View:
    """What stage 1 made of an anchor set, ready to be drawn.

    arrived: `time.perf_counter()` when the set came. fresh: a stream starts with it. seconds: what each part took.
    broken: one sentence where stage 1 gave NaN or infinity; then reconstruction and condition are blank.
    """

    anchors: AnchorSet
    reconstruction: Reconstruction
    condition: ConditionMap
    arrived: float
    fresh: bool
    seconds: dict[str, float]
    broken: str = ''


class VirtualWrist:
    """A wrist camera that is not there.

    push() takes one anchor set at a time, in order of their stamps, and gives back the frames that became ready: none
    while a chunk fills, then all of the chunk. Memory and time a frame do not depend on how long the stream has run.
    A change of cameras or image size, or a stamp that goes back, starts the stream afresh; so does a chunk in which a
    network gave NaN or infinity, whose frames are not fit.

    look() and draw() are the two halves of push(). They share nothing but the `View` that goes from one to the other, so
    one thread may look at the next set while another still draws the last one.

    model: see `load_model`. settings: see `StreamSettings`; ValueError when one is out of its bounds.
    """

    def __init__(self, model: WristModel, settings: StreamSettings):
        check(settings)
        self.model, self.settings = model, settings
        if settings.threads or model.small:
            torch.set_num_threads(settings.threads or 1)
        if model.device.type == 'cpu':
            keep_freed_memory()
        self._stream: ChunkStream = model.stream(
            chunk=settings.chunk, steps=settings.steps, history=settings.history, seed=settings.seed,
            reanchor=settings.reanchor,
        )  # fmt: skip
        self._waiting: list[View] = []
        self.seconds: dict[str, float] = {}
        self.reset()

    @property
    def chunk_frames(self) -> int:
        """Anchor sets that the next chunk takes altogether; see `ChunkStream.frames`."""
        return self._stream.frames

    def reset(self) -> None:
        """Forget everything seen so far; settings and weights stay. Call it from the thread that looks."""
        self._shape: tuple | None = None
        self._last_stamp = -1

    def push(self, anchors: AnchorSet) -> list[WristFrame]:
        """Take an anchor set; returns the wrist frames that became ready, oldest first.

        Each frame carries the stamp of the set it shows. `seconds` then holds what each part of this call took.
        """
        return self.draw(self.look(anchors))

    def look(self, anchors: AnchorSet) -> View:
        """Stage 1 and the condition map of an anchor set."""
        arrived = time.perf_counter()
        shape = (anchors.names, anchors.images.shape)
        fresh = shape != self._shape or anchors.stamp_ns <= self._last_stamp
        self._shape, self._last_stamp = shape, anchors.stamp_ns
        reconstruction = with_known_view(self.model.reconstruct(anchors), self.settings.wrist_fov)
        broken = '' if is_finite(reconstruction) else BROKEN
        if broken:
            reconstruction = blank(reconstruction)
        reconstructed = time.perf_counter()
        if broken:
            condition = empty_condition(reconstruction)
        else:
            condition = self.model.condition(reconstruction, anchors.images, self.settings.near or None)
        seconds = {'stage1': reconstructed - arrived, 'condition': time.perf_counter() - reconstructed}
        return View(anchors, reconstruction, condition, arrived, fresh, seconds, broken)

    def draw(self, view: View) -> list[WristFrame]:
        """The frames that became ready with a view, oldest first: none while its chunk fills."""
        started = time.perf_counter()
        if view.fresh:
            self._stream.reset()
            self._waiting = []
        self._waiting.append(view)
        frames = self._generate() if len(self._waiting) == self._stream.frames else []
        self.seconds = view.seconds | {'generation': time.perf_counter() - started}
        return frames

    def _generate(self) -> list[WristFrame]:
        """A chunk is made at once, so all of it is as good as its worst view."""
        views, self._waiting = self._waiting, []
        broken = next((v.broken for v in views if v.broken), '')
        if not broken:
            try:
                images = self._stream([v.condition for v in views], [v.anchors.images for v in views])
                return [self._frame(view, image) for view, image in zip(views, images, strict=True)]
            except NotFiniteError as error:
                broken = str(error)
        # Keys and values of what came before may hold the same NaN, which would stay in the ring.
        self._stream.reset()
        nothing = np.zeros((*self.model.config.wrist_hw, 3), np.uint8)
        return [self._frame(view, nothing, broken) for view in views]

    def _frame(self, view: View, image: np.ndarray, broken: str = '') -> WristFrame:
        coverage = view.condition.coverage
        confidence = seen_confidence(view.reconstruction)
        reason = broken or self._why_unfit(coverage, confidence)
        return WristFrame(
            stamp_ns=view.anchors.stamp_ns,
            image=image,
            camera=view.reconstruction.wrist,
            condition=view.condition.image.cpu().numpy(),
            coverage=coverage,
            confidence=confidence,
            latency_s=time.perf_counter() - view.arrived,
            fit=not reason,
            reason=reason,
            reconstruction=view.reconstruction,
            finite=not broken,
        )

    def _why_unfit(self, coverage: float, confidence: float) -> str:
        if coverage < self.settings.min_coverage:
            return (
                f'Only {coverage:.0%} of the wrist view is covered by what the anchors see; '
                f'{self.settings.min_coverage:.0%} are wanted (min_coverage).'
            )
        if confidence < self.settings.min_confidence:
            return f'The reconstruction is {confidence:.2f} confident; {self.settings.min_confidence:.2f} is wanted (min_confidence).'
        return ''


def with_known_view(reconstruction: Reconstruction, wrist_fov: float) -> Reconstruction:
    """The reconstruction with the field of view that the operator has set (vertical, degrees) in place of the predicted
    one; 0 leaves it."""
    if not wrist_fov:
        return reconstruction
    wrist = reconstruction.wrist
    focal = wrist.height / 2 / np.tan(np.deg2rad(wrist_fov) / 2)
    K = wrist.K.copy()
    K[0, 0] = K[1, 1] = focal
    return replace(reconstruction, wrist=replace(wrist, K=K))


def seen_confidence(reconstruction: Reconstruction) -> float:
    """Mean confidence of the points that lie in the wrist's view, 0 to 1: VGGT's c >= 1 becomes 1 - 1 / c.

    0 when no point lies in view.
    """
    wrist = reconstruction.wrist
    T = torch.from_numpy(wrist.T_camera_world[:3]).to(reconstruction.points)
    K = torch.from_numpy(wrist.K).to(reconstruction.points)
    uvw = (reconstruction.points.reshape(-1, 3) @ T[:, :3].T + T[:, 3]) @ K.T
    z = uvw[:, 2]
    uv = uvw[:, :2] / z.clamp(min=1e-6)[:, None]
    seen = (z > 0.01) & (uv >= 0).all(1) & (uv[:, 0] < wrist.width) & (uv[:, 1] < wrist.height)
    if not seen.any():
        return 0.0
    return float((1 - 1 / reconstruction.confidence.flatten()[seen]).mean())


def is_finite(reconstruction: Reconstruction) -> bool:
    """Whether cameras are finite, and points and confidence at least numbers, most of them finite.

    A point of the sky may be infinitely far away; the splat passes over it.
    """
    cameras = (reconstruction.wrist, *reconstruction.anchors)
    if not all(np.isfinite(c.K).all() and np.isfinite(c.T_camera_world).all() for c in cameras):
        return False
    points, confidence = reconstruction.points, reconstruction.confidence
    if bool(points.isnan().any()) or bool(confidence.isnan().any()):
        return False
    return bool((points.isfinite().all(-1) & confidence.isfinite()).float().mean() >= 0.5)


def blank(reconstruction: Reconstruction) -> Reconstruction:
    """A reconstruction of the same sizes that knows nothing: cameras at the origin, no confidence, points at the origin."""
    cameras = [
        Camera(
            K=np.array([[c.height, 0, (c.width - 1) / 2], [0, c.height, (c.height - 1) / 2], [0, 0, 1]], np.float64),
            T_camera_world=np.eye(4),
            width=c.width,
            height=c.height,
        )
        for c in (reconstruction.wrist, *reconstruction.anchors)
    ]
    points, confidence = torch.zeros_like(reconstruction.points), torch.ones_like(reconstruction.confidence)
    return Reconstruction(cameras[0], tuple(cameras[1:]), points, confidence, reconstruction.colors)


def empty_condition(reconstruction: Reconstruction) -> ConditionMap:
    """Nothing seen, at the size of the wrist camera."""
    hw = (reconstruction.wrist.height, reconstruction.wrist.width)
    device = reconstruction.points.device
    return ConditionMap(torch.zeros(*hw, 3, dtype=torch.uint8, device=device), torch.zeros(*hw, device=device))
