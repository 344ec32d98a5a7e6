"""The anchor cameras of the node: their images are judged by their headers, matched by stamp, and decoded when they are used."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from wristworld_ros.geometry.images import resize_images
from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.pipeline.frame_sync import FrameSync, Stamped
from wristworld_ros.pipeline.memory_check import SAVINGS, check_input
from wristworld_ros.pipeline.worker import ModelWorker
from wristworld_ros.ros.anchor_camera import AnchorCamera, Lens
from wristworld_ros.ros.conversions import DecoderError, scale_intrinsics, to_ns, to_rgb
from wristworld_ros.ros.image_header import ImageError, ImageFault, ImageLimits, quoted, read_header
from wristworld_ros.ros.input_problem import flickering, input_problem
from wristworld_ros.ros.knowledge import Knowledge, ViewSource
from wristworld_ros.ros.lifecycle import ResponsiveLifecycleNode
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.ros.names import normalized_frame
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import AnchorSet

NO_SETS_S = 1.0  # without a set for so long, the cause is reported
_MAX_FRAME_ID = 256  # characters; it is part of every message that is published


class ImageInputs:
    """Subscribes to the cameras that the settings name and submits matched images to the worker.

    The executor's thread reads headers and queues messages; the worker's thread decodes those of the sets that it takes.

    settings: assignable; live ones count at once. enabled: whether images are used. silent: names of the cameras that
    sent nothing for longer than `freshness`. problem: why no sets are made, one sentence, '' while they are.
    anchor_frame: TF frame of the first camera, '' before its first image. knowledge: of the robot and of depth.
    """

    def __init__(
        self,
        node: ResponsiveLifecycleNode,
        settings: NodeSettings,
        worker: ModelWorker,
        metrics: Metrics,
        knowledge: Knowledge,
    ):
        self._node, self._worker, self._metrics, self.knowledge = node, worker, metrics, knowledge
        self.settings = settings
        slop_ns, jump_ns, window_ns = (
            round(s * 1e9) for s in (settings.slop, settings.jump_back, settings.sync_window)
        )
        self._sync = FrameSync(tuple(settings.anchors), slop_ns, jump_ns, window_ns, settings.max_queue_bytes)
        self._limits = ImageLimits.of(settings)
        self._anchors = [AnchorCamera(self, node, name, settings) for name in settings.anchors]
        self._last_used_ns: int | None = None
        self._last_set = time.monotonic()
        self._checked_hw: tuple[int, int] | None = None  # size whose memory was found to suffice
        self.enabled = True
        self.silent: list[str] = []
        self.problem = ''
        self.anchor_frame = ''

    @property
    def queued(self) -> int:
        """Images that wait for their partners."""
        return self._sync.queued

    @property
    def calibrated(self) -> set[str]:
        """Names of the cameras whose camera_info describes a camera."""
        return {a.name for a in self._anchors if a.calibration and a.calibration.k[0] and not a.calibration_fault}

    def subscribe(self) -> None:
        """Start to receive images."""
        for anchor in self._anchors:
            anchor.subscribe()
        self.restart_clock()
        self.knowledge.subscribe()

    def unsubscribe(self) -> None:
        """Receive nothing more."""
        for anchor in self._anchors:
            anchor.unsubscribe()
        self.knowledge.unsubscribe()

    def restart(self, why: str = '', kind: str = '', keep_waiting: bool = False) -> None:
        """Clear every buffer and cache, here and in the model.

        Args:
            why: Counted as a reset, and logged; '' for neither.
            kind: What is logged only now and then; `why` itself where it has no figures.
            keep_waiting: Whether images that wait for their partners stay.
        """
        if not keep_waiting:
            self._sync.reset()
        for anchor in self._anchors:
            anchor.image_hw = None
        self.knowledge.restart()
        self._last_used_ns = None
        self._worker.reset()
        if why:
            self._metrics.count('resets')
            if self._metrics.should_log('restart', kind or why):
                self._node.get_logger().info(f'Starting over: {why}.')

    def restart_clock(self) -> None:
        """Silence counts from now: at the start, and after the clock was set back."""
        self._last_set = time.monotonic()
        self.knowledge.restart_clock()
        for anchor in self._anchors:
            anchor.heard_ns = self._now()

    def check(self, active: bool) -> None:
        """Called periodically: follow publishers, and notice what is wrong with cameras; each is logged once.

        Args:
            active: Whether images are expected at all.
        """
        for anchor in self._anchors:
            anchor.refresh()
            if (fault := anchor.calibration_fault) and self._metrics.should_log(
                'calibration', anchor.topic, every=60.0
            ):
                self._node.get_logger().warning(f'The calibration of {anchor.topic} is not used: {fault}')
        self.knowledge.refresh()
        self._update_silent(active)
        problem = flickering(self._anchors) if active else None
        if active and problem is None and (self.silent or time.monotonic() - self._last_set > NO_SETS_S):
            problem = input_problem(self._anchors, self.silent, self._sync, self.settings)
        self.problem = problem.sentence if problem else ''
        logged_elsewhere = problem is None or problem.kind in ('silent', 'dropped')
        if not logged_elsewhere and self._metrics.should_log('input', problem.kind, problem.topic, every=30.0):
            self._node.get_logger().warning(problem.sentence)

    def fill_status(self, status: VirtualWristStatus) -> None:
        """Fill in what is known of images and cameras. Beside them, `images_received` counts those that are `queued` now."""
        counts, metrics, lags = self._sync.counts, self._metrics, self._sync.lags()
        status.images_late, status.images_pushed_out = counts.late, counts.pushed_out
        status.images_unmatched = counts.unmatched + metrics['images_left_over']
        status.images_cleared = counts.cleared + metrics['images_ignored']
        status.sets_matched -= metrics['sets_undecodable']
        status.anchors = list(lags)
        status.anchor_lags = [float('nan') if lag is None else lag for lag in lags.values()]
        status.silent_anchors = sorted(self.silent)
        status.missing = list(self.knowledge.missing)

    def take_image(self, anchor: AnchorCamera, msg: Image | CompressedImage) -> None:
        """Take one image in; submit the set that it completes, if any."""
        self._metrics.count('images_received')
        anchor.heard_ns = self._now()
        if not self.enabled:
            self._metrics.count('images_ignored')
            return
        try:
            header = read_header(msg, self._limits)
            if anchor is self._anchors[0]:
                self.anchor_frame = self._frame(anchor, msg.header.frame_id)
        except ImageError as error:
            self._metrics.count(error.fault.counter)
            anchor.fault = self._report_drop(anchor, error)
            return
        anchor.fault = ''
        if anchor.note_size((header.height, header.width)):
            self.restart(
                f'anchor_{anchor.name} now sends {header.width}x{header.height} images', f'size {anchor.topic}'
            )
            anchor.image_hw = header.height, header.width
        stamp_ns = to_ns(msg.header.stamp)
        anchor.note_stamp(stamp_ns)
        matched, jumped = self._sync.add(anchor.name, stamp_ns, msg, len(msg.data))
        if jumped:
            self.restart(f'stamps on anchor_{anchor.name} jumped back', keep_waiting=True)
            self.knowledge.restart_clock()
        if matched:
            self._submit(matched)

    def decode(self, matched: Sequence[Stamped]) -> AnchorSet | None:
        """The images of a set, all at the size of the first, with all that is known beside them.

        Called in the worker's thread, which waits here for TF, depth and joint states of that time.

        Returns:
            None where one cannot be decoded: it is counted by its fault, the others as unmatched, and the set not at all.
        """
        decoded = self._decoded(matched)
        if decoded is None:
            return None
        hw = decoded[0].shape[:2]
        prepared = [
            self._prepared(anchor, image, rgb, hw)
            for anchor, image, rgb in zip(self._anchors, matched, decoded, strict=True)
        ]
        images, Ks, views = zip(*prepared, strict=True)
        intrinsics = np.stack([np.full((3, 3), np.nan) if K is None else K for K in Ks])
        known = self.knowledge.gather(views)
        return AnchorSet(
            matched[0].stamp_ns, tuple(self.settings.anchors), np.stack(images),
            intrinsics if np.isfinite(intrinsics).any() else None,
            known.depth, known.T_base_anchor, known.wrist, known.robot_points, known.mounted,
        )  # fmt: skip

    def _decoded(self, matched: Sequence[Stamped]) -> list[np.ndarray] | None:
        """Images of a set, uint8 [H, W, 3] each; None, and all of them counted, where one cannot be decoded."""
        decoded: list[np.ndarray] = []
        for anchor, image in zip(self._anchors, matched, strict=True):
            try:
                decoded.append(to_rgb(image.item, self._limits))
                self._check_memory(decoded[0].shape[:2])
            except ImageError as error:
                self._metrics.count(error.fault.counter)
                self._metrics.count('images_left_over', len(matched) - 1)
                self._metrics.count('sets_undecodable')
                if isinstance(error, DecoderError):
                    self._metrics.count('decoder_messages')
                self._report_drop(anchor, error)
                return None
        return decoded

    def _prepared(
        self, anchor: AnchorCamera, image: Stamped, rgb: np.ndarray, hw: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray | None, ViewSource]:
        """An image as the model gets it: rectified where that is wanted, and at the size [H, W] of the first one.

        Returns:
            The image, its K [3, 3] in pixels or None, and where it comes from, at its own size.
        """
        size = rgb.shape[1], rgb.shape[0]
        lens = anchor.lens(*size)
        K = self.knowledge.calibration.intrinsics(anchor.name, *size) if lens.K is None else lens.K
        view = self._view(anchor, image, size, lens, K)
        if lens.rectification is not None:
            rgb = lens.rectification.image(rgb)
        if rgb.shape[:2] != hw:
            rgb = resize_images(rgb[None], hw)[0]
            K = None if K is None else scale_intrinsics(K, size, (hw[1], hw[0]))
        return rgb, K, view

    def _view(
        self, anchor: AnchorCamera, image: Stamped, size: tuple[int, int], lens: Lens, K: np.ndarray | None
    ) -> ViewSource:
        """Where an image of that size, width and height, comes from."""
        frame_id = image.item.header.frame_id
        frame = self.anchor_frame if anchor is self._anchors[0] else normalized_frame(frame_id)
        frame = frame or f'anchor_{anchor.name}_optical_frame'
        hw = size[1], size[0]
        return ViewSource(
            anchor.name, anchor.topic, image.stamp_ns, frame, frame_id, hw, K, lens.rectification, lens.note
        )

    def _update_silent(self, active: bool) -> None:
        """Notice cameras that fell silent or came back, and log either once."""
        limit = self._now() - self.settings.freshness * 1e9
        silent = [anchor for anchor in self._anchors if active and anchor.heard_ns < limit]
        for anchor in self._anchors:
            if anchor in silent and anchor.name not in self.silent:
                why = anchor.why_silent()
                self._node.get_logger().warning(f'No images on {anchor.topic}{": " if why else ""}{why}.')
            elif anchor not in silent and anchor.name in self.silent:
                self._node.get_logger().info(f'Images on {anchor.topic} again.')
        self.silent = [anchor.name for anchor in silent]

    def _frame(self, anchor: AnchorCamera, frame_id: str) -> str:
        """TF frame of the first anchor, without the leading slash that tf2 refuses.

        Raises:
            ImageError: It is no name.
        """
        frame = normalized_frame(self.settings.anchor_frame or frame_id) or f'anchor_{anchor.name}_optical_frame'
        if len(frame) > _MAX_FRAME_ID or not frame.isprintable():
            what = f'frame_id is {quoted(frame)} of {len(frame)} characters'
            raise ImageError(
                ImageFault.DATA, what, f'use up to {_MAX_FRAME_ID} printable characters, or set anchor_frame'
            )
        if frame_id.startswith('/') and self._metrics.should_log('slash', anchor.topic, every=3600.0):
            self._node.get_logger().warning(
                f"frame_id '{frame_id}' on {anchor.topic} begins with a slash; '{frame}' is used."
            )
        return frame

    def _report_drop(self, anchor: AnchorCamera, error: ImageError) -> str:
        """Say why an image was dropped; logged now and then per topic and kind of fault."""
        reason = self._metrics.reason = f'An image on {anchor.topic} was dropped: {error}'
        if self._metrics.should_log('bad image', anchor.topic, error.fault.counter):
            self._node.get_logger().warning(reason)
        return reason

    def _submit(self, matched: list[Stamped]) -> None:
        """Hand a matched set to the model, unless that would exceed `max_rate`."""
        self._metrics.count('sets_matched')
        self._last_set = time.monotonic()
        stamp_ns, rate = matched[0].stamp_ns, self.settings.max_rate
        if rate and self._last_used_ns is not None and stamp_ns - self._last_used_ns < 0.95e9 / rate:
            self._metrics.count('sets_over_rate')
            return
        self._last_used_ns = stamp_ns
        self._worker.submit(MatchedSet(self, matched))

    def _check_memory(self, image_hw: tuple[int, int]) -> None:
        """Raise ImageError where images of a new size need more memory than is free."""
        if image_hw == self._checked_hw:
            return
        if lack := check_input(self.settings, len(self._anchors), image_hw):
            raise ImageError(ImageFault.LIMIT, lack, f'lower the resolution of the cameras, or {SAVINGS}')
        self._checked_hw = image_hw

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds


@dataclass(frozen=True)
class MatchedSet:
    """Messages of one time, decoded when the worker takes them."""

    inputs: ImageInputs
    images: list[Stamped]

    def decode(self) -> AnchorSet | None:
        """See `ImageInputs.decode`."""
        return self.inputs.decode(self.images)
