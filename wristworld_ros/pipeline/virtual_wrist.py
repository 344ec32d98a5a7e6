"""The whole machine without ROS: anchor sets in, wrist frames out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from wristworld_ros.pipeline.generate import ChunkStream
from wristworld_ros.pipeline.generator_inputs import NotFiniteError
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.oom_fallback import OomFallback, sentence, what_ran_out
from wristworld_ros.pipeline.reconstruct import Observation, ReconstructionStep, empty_observation
from wristworld_ros.runtime.allocator import keep_freed_memory
from wristworld_ros.runtime.gpu_errors import is_out_of_memory
from wristworld_ros.runtime.offload import StageScheduler
from wristworld_ros.settings import StreamSettings, check
from wristworld_ros.types import AnchorSet, WristFrame


@dataclass(frozen=True)
class View:
    """An anchor set that was looked at, ready to be drawn.

    arrived: `time.perf_counter()` when the set came. fresh: a stream starts with it. short: where memory ran out, the
    beginning of a sentence that says so; sight is then blank.
    """

    anchors: AnchorSet
    sight: Observation
    arrived: float
    fresh: bool
    short: str = ''


class VirtualWrist:
    """A wrist camera that is not there.

    push() takes one anchor set at a time, in order of their stamps, and gives back the frames that became ready: none
    while a chunk fills, then all of the chunk. Memory and time a frame do not depend on how long the stream has run.
    A change of cameras or image size, or a stamp that goes back, starts the stream afresh; so does a chunk in which a
    network gave NaN or infinity, whose frames are not fit. Where memory runs out the frames are not fit either, and the
    stream takes a step down its ladder (`on_out_of_memory`) and starts afresh; `taken` names the rungs.

    look() and draw() are the two halves of push(). They share nothing but the `View` that goes from one to the other, so
    one thread may look at the next set while another still draws the last one. On a GPU each has a stream of its own and
    waits once, at its end, for what the host needs.

    model: see `load_model`. settings: see `StreamSettings`; ValueError when one is out of its bounds.
    """

    def __init__(self, model: WristModel, settings: StreamSettings):
        check(settings)
        self.model, self.settings = model, settings
        if settings.threads or model.small:
            torch.set_num_threads(settings.threads or 1)
        if model.device.type == 'cpu':
            keep_freed_memory()
        elif model.half:
            # What is float32 beside bfloat16 (stage 1's heads) need not be exact beyond it; tensor cores then do it.
            torch.set_float32_matmul_precision('high')
        self.history, self.graphs = settings.history, settings.graphs  # what the ladder may make less
        self.oom_fallback, self.turns = OomFallback(settings.on_out_of_memory), StageScheduler()
        self._reconstruction: ReconstructionStep | None = self._new_reconstruction()
        self._stream: ChunkStream | None = self._new_stream()
        self._reconstruct_queue, self._generate_queue = _queue(model.device), _queue(model.device)
        self._waiting: list[View] = []
        self.seconds: dict[str, float] = {}
        self.reset()

    @property
    def chunk_frames(self) -> int:
        """Anchor sets that the next chunk takes altogether; see `ChunkStream.frames`."""
        if self._stream is None:
            with torch.cuda.stream(self._generate_queue), self.turns.generating():
                self._stream = self._new_stream()
        return self._stream.frames

    def warm_up(self, names: tuple[str, ...], image_hw: tuple[int, int]) -> list[WristFrame]:
        """Push blank anchor sets of that size until nothing is left to be made at a first time, then forget them.

        On a GPU that is one turn of the ring of keys and values after it has filled: each of its states has its graphs.
        Returns the last frames, whose reason says so where memory ran out.
        """
        graphs = self.graphs and self.model.device.type == 'cuda'
        images = np.zeros((len(names), *image_hw, 3), np.uint8)
        stamp, frames = 0, []
        for _ in range(2 * (self.history + 1) if graphs else 1):
            for _ in range(self.chunk_frames):
                frames = self.push(AnchorSet(stamp, names, images))
                stamp += 1
        self.reset()
        return frames

    @property
    def taken(self) -> tuple[str, ...]:
        """Rungs of `on_out_of_memory` that were taken, in their order."""
        return self.oom_fallback.taken

    def _new_reconstruction(self) -> ReconstructionStep:
        settings = self.settings
        return self.model.reconstruction_step(settings.near or None, settings.wrist_fov, self.graphs)

    def _new_stream(self) -> ChunkStream:
        return self.model.stream(replace(self.settings, history=self.history, graphs=self.graphs))

    def release_steps(self) -> None:
        """Free all that looking and drawing hold beside the weights; they make it anew. For the ladder."""
        self._reconstruction = self._stream = None

    def share_queue(self) -> None:
        """Look and draw in one order on the GPU, so that either's memory serves the other. For the ladder."""
        self._reconstruct_queue = self._generate_queue

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
        try:
            with torch.cuda.stream(self._reconstruct_queue), self.turns.reconstructing():
                if self._reconstruction is None:
                    self._reconstruction = self._new_reconstruction()
                return View(anchors, self._reconstruction(anchors), arrived, fresh)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            short = what_ran_out(error, self.model.device, 'stage 1')
        return View(anchors, empty_observation(anchors, self.model.config.wrist_hw), arrived, fresh, short)

    def draw(self, view: View) -> list[WristFrame]:
        """The frames that became ready with a view, oldest first: none while its chunk fills."""
        started = time.perf_counter()
        if view.fresh:
            self._waiting = []
        self._waiting.append(view)
        short, frames = view.short, []
        if not short:
            try:
                with torch.cuda.stream(self._generate_queue), self.turns.generating():
                    frames = self._drawn(view.fresh)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                short = what_ran_out(error, self.model.device, 'stage 2')
        if short:  # the exception, and what it held, is gone
            frames = self._invalid_frames(sentence(short, self.oom_fallback.step(self)))
        self.seconds = view.sight.seconds | {'generation': time.perf_counter() - started}
        return frames

    def _drawn(self, fresh: bool) -> list[WristFrame]:
        if self._stream is None:
            self._stream = self._new_stream()
        if fresh:
            self._stream.reset()
        return self._generate(self._stream) if len(self._waiting) == self._stream.frames else []

    def _generate(self, stream: ChunkStream) -> list[WristFrame]:
        """A chunk is made at once, so all of it is as good as its worst view."""
        views = self._waiting
        broken = next((v.sight.broken for v in views if v.sight.broken), '')
        if not broken:
            try:
                images = stream([v.sight.condition for v in views], [v.anchors.images for v in views])
                frames = [self._frame(view, image) for view, image in zip(views, images, strict=True)]
                self._waiting = []
                return frames
            except NotFiniteError as error:
                broken = str(error)
        # Keys and values of what came before may hold the same NaN, which would stay in the ring.
        stream.reset()
        return self._invalid_frames(broken)

    def _invalid_frames(self, why: str) -> list[WristFrame]:
        """Blank frames of all views that wait."""
        views, self._waiting = self._waiting, []
        nothing = np.zeros((*self.model.config.wrist_hw, 3), np.uint8)
        return [self._frame(view, nothing, why) for view in views]

    def _frame(self, view: View, image: np.ndarray, broken: str = '') -> WristFrame:
        sight = view.sight
        reason = broken or self._why_invalid(sight.coverage, sight.confidence)
        return WristFrame(
            stamp_ns=view.anchors.stamp_ns,
            image=image,
            camera=sight.reconstruction.wrist,
            condition=sight.condition.image.cpu().numpy(),
            coverage=sight.coverage,
            confidence=sight.confidence,
            latency_s=time.perf_counter() - view.arrived,
            fit=not reason,
            reason=reason,
            reconstruction=sight.reconstruction,
            finite=not broken,
        )

    def _why_invalid(self, coverage: float, confidence: float) -> str:
        if coverage < self.settings.min_coverage:
            return (
                f'Only {coverage:.0%} of the wrist view is covered by what the anchors see; '
                f'{self.settings.min_coverage:.0%} are wanted (min_coverage).'
            )
        if confidence < self.settings.min_confidence:
            return f'The reconstruction is {confidence:.2f} confident; {self.settings.min_confidence:.2f} is wanted (min_confidence).'
        return ''


def _queue(device: torch.device) -> torch.cuda.Stream | None:
    """A CUDA stream that starts after what is under way; None, which stands for the usual order, on a CPU."""
    if device.type != 'cuda':
        return None
    queue = torch.cuda.Stream(device)
    queue.wait_stream(torch.cuda.current_stream(device))
    return queue
