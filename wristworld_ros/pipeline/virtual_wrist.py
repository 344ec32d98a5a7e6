"""The whole system without ROS: anchor sets in, wrist frames out."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from wristworld_ros.geometry.poses import mounted_elsewhere
from wristworld_ros.pipeline.anchor_checks import AnchorChecks, RegistrationCheck, judge_agreement, judge_confidence
from wristworld_ros.pipeline.composite import composite, filled, trusted_share
from wristworld_ros.pipeline.generate import ChunkGenerator, NotFiniteError
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.modelled_depth import DepthSource
from wristworld_ros.pipeline.observation import Observation, empty_observation
from wristworld_ros.pipeline.oom_fallback import OomFallback, out_of_memory_reason, what_ran_out
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.robot.depth_model import DepthModel
from wristworld_ros.runtime.gpu_errors import is_out_of_memory
from wristworld_ros.runtime.offload import StageScheduler
from wristworld_ros.setting import check
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet, FrameStatus, Geometry, Verdict, WristFrame

_LEAST_CONFIDENCE = 0.1  # where depth is measured


class VirtualWrist:
    """A wrist camera that does not exist.

    `push` takes one anchor set at a time, in order of their stamps, and returns the frames that became ready: none while a
    chunk fills, then the whole chunk. Memory and time per frame do not depend on how long the stream has run. A change of
    cameras or image size, or a stamp that goes back, starts a new stream; so does a chunk in which a network produced NaN
    or infinity, whose frames are invalid. Where memory runs out the frames are invalid too, and the stream gives something
    up (`oom_fallback`) and starts again.

    `reconstruct` and `generate` are the two halves of `push`. They share nothing but the `Observation` that goes from one
    to the other, so one thread may reconstruct the next set while another still generates from the last one. On a GPU each
    has a CUDA stream of its own and waits once, at its end, for what the host needs.

    Args:
        model: See `load_model`. Several streams may share one.
        settings: See `StreamSettings`.
        depth_source: In place of the one that `settings.geometry_model` names.

    Raises:
        UserError: A setting is out of its bounds, or its geometry_model cannot be loaded.
    """

    def __init__(self, model: WristModel, settings: StreamSettings, depth_source: DepthSource | None = None):
        check(settings)
        self.model, self.settings = model, settings
        if depth_source is None and settings.geometry_model is not None:
            depth_source = DepthModel.load(settings.geometry_model, model.device)
        self._depth_source = depth_source
        self.history, self.graphs = settings.history, settings.graphs  # what a fallback may reduce
        self.oom_fallback, self.scheduler = OomFallback(settings.on_out_of_memory), StageScheduler()
        self._reconstruction: ReconstructionStep | None = self._new_reconstruction()
        self._generation: ChunkGenerator | None = self._new_generation()
        self._reconstruct_queue, self._generate_queue = _cuda_stream(model.device), _cuda_stream(model.device)
        self._anchor_checks, self._registration = AnchorChecks(), RegistrationCheck()
        self._waiting: list[Observation] = []
        self.seconds: dict[str, float] = {}
        self.reset()

    @property
    def chunk_frames(self) -> int:
        """Anchor sets that the next chunk takes altogether; see `ChunkGenerator.frames`."""
        if self._generation is None:
            with torch.cuda.stream(self._generate_queue), self.scheduler.generating():
                self._generation = self._new_generation()
        return self._generation.frames

    def push(self, anchors: AnchorSet) -> list[WristFrame]:
        """Take an anchor set; returns the wrist frames that became ready, oldest first.

        Each frame carries the stamp of the set it shows. `seconds` then holds what each part of this call took.
        """
        return self.generate(self.reconstruct(anchors))

    def reconstruct(self, anchors: AnchorSet) -> Observation:
        """Stage 1 and the condition map of an anchor set."""
        arrived = time.perf_counter()
        shape = (anchors.names, anchors.images.shape)
        starts_stream = shape != self._shape or anchors.stamp_ns <= self._last_stamp
        self._shape, self._last_stamp = shape, anchors.stamp_ns
        if starts_stream:
            self._anchor_checks.reset()
            self._registration.reset()
            if self._reconstruction is not None:
                self._reconstruction.reset()
        anchor_verdict = Verdict()
        if self.settings.check_anchors:
            anchor_verdict = self._anchor_checks.judge(anchors, self.settings.frozen_after, self.settings.still_after)
        try:
            with torch.cuda.stream(self._reconstruct_queue), self.scheduler.reconstructing():
                if self._reconstruction is None:
                    self._reconstruction = self._new_reconstruction()
                observation = self._reconstruction(anchors)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            verdict = Verdict(FrameStatus.OUT_OF_MEMORY, what_ran_out(error, self.model.device, 'stage 1'))
            observation = empty_observation(anchors, self.model.config.wrist_hw, verdict)
        # An estimated place is never as exact as max_residual asks.
        most = self.settings.max_residual if observation.placement is None else None
        moved = self._registration.judge(anchors.stamp_ns, anchors.names, observation.residuals, most)
        return replace(
            observation,
            arrived=arrived,
            starts_stream=starts_stream,
            anchor_verdict=moved if anchor_verdict.status is FrameStatus.VALID else anchor_verdict,
        )

    def generate(self, observation: Observation) -> list[WristFrame]:
        """The frames that became ready with an observation, oldest first: none while its chunk fills."""
        started = time.perf_counter()
        if observation.starts_stream:
            self._waiting = []
        self._waiting.append(observation)
        ran_out, frames = '', []
        if observation.verdict.status is FrameStatus.OUT_OF_MEMORY:
            ran_out = observation.verdict.reason
        else:
            try:
                with torch.cuda.stream(self._generate_queue), self.scheduler.generating():
                    frames = self._generate(observation.starts_stream)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                ran_out = what_ran_out(error, self.model.device, 'stage 2')
        if ran_out:  # the exception, and the memory its frames held, is gone
            reason = out_of_memory_reason(ran_out, self.oom_fallback.apply(self))
            frames = self._blank_frames(Verdict(FrameStatus.OUT_OF_MEMORY, reason))
        self.seconds = observation.seconds | {'generation': time.perf_counter() - started}
        return frames

    def reset(self) -> None:
        """Forget everything received so far; settings and weights stay. Call it from the thread that reconstructs."""
        self._shape: tuple | None = None
        self._last_stamp = -1

    def warm_up(self, names: tuple[str, ...], image_hw: tuple[int, int]) -> list[WristFrame]:
        """Push blank anchor sets of that size until nothing is left to be done for the first time, then forget them.

        On a GPU that is one turn of the ring of keys and values after it has filled: each of its states has its graphs.

        Returns:
            The last frames, whose verdict says so where memory ran out.
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

    def release_steps(self) -> None:
        """Free everything that both halves hold beside the weights; they make it again. For `OomFallback`."""
        self._reconstruction = self._generation = None

    def share_queue(self) -> None:
        """Run both halves on one CUDA stream, so that one's memory serves the other. For `OomFallback`."""
        self._reconstruct_queue = self._generate_queue

    def use_callers_queue(self) -> None:
        """Run on the CUDA stream of the thread that calls. For streams in lockstep, whose networks run in another thread."""
        self._reconstruct_queue = self._generate_queue = None

    def _new_reconstruction(self) -> ReconstructionStep:
        s = self.settings
        return ReconstructionStep(
            self.model, s.near, s.wrist_fov, self.graphs, s.scene_memory, s.place_anchors, self._depth_source,
            s.refine_calibration, s.table_height, s.stage1_every, s.filter_depth,
        )  # fmt: skip

    def _new_generation(self) -> ChunkGenerator:
        return ChunkGenerator(self.model, replace(self.settings, history=self.history, graphs=self.graphs))

    def _generate(self, starts_stream: bool) -> list[WristFrame]:
        if self._generation is None:
            self._generation = self._new_generation()
        if starts_stream:
            self._generation.reset()
        if len(self._waiting) < self._generation.frames:
            return []
        return self._generate_chunk(self._generation)

    def _generate_chunk(self, generator: ChunkGenerator) -> list[WristFrame]:
        """A chunk is generated at once, so one unusable observation makes all of it invalid."""
        waiting = self._waiting
        unusable = next((o.verdict for o in waiting if o.verdict.status is not FrameStatus.VALID), None)
        if unusable is None:
            try:
                images = self._images(generator, waiting)
                self._waiting = []
                return [self._frame(o, image, self._judge(o)) for o, image in zip(waiting, images, strict=True)]
            except NotFiniteError as error:
                unusable = Verdict(FrameStatus.NOT_FINITE, str(error))
        # Keys and values of what came before may hold the same NaN, which would stay in the ring.
        generator.reset()
        return self._blank_frames(unusable)

    def _images(self, generator: ChunkGenerator, waiting: list[Observation]) -> list[np.ndarray]:
        """Images of a chunk: generated, with what is trusted over them; without the generator where it has nothing to add."""
        if all(self._serves_alone(o) for o in waiting):
            generator.reset()  # the next generated chunk begins a video
            return [filled(o.condition) for o in waiting]
        images = generator([o.condition for o in waiting], [o.anchors.images for o in waiting])
        if self.settings.composite:
            images = [_composited(o, image) for o, image in zip(waiting, images, strict=True)]
        return images

    def _serves_alone(self, observation: Observation) -> bool:
        """Whether a condition map serves without the generator: nearly all of it is trusted, or the wrist camera is mounted where the
        generator has not learnt what the hand looks like, and would draw the one that it knows."""
        enough = self.settings.fill_from
        if enough is None:
            return False
        trusted = self.settings.composite and observation.geometry is not Geometry.RGB
        if trusted and trusted_share(observation.condition) >= enough:
            return True
        learnt = self.model.config.mount
        return mounted_elsewhere(observation.anchors.T_hand_wrist, None if learnt is None else np.array(learnt))

    def _blank_frames(self, verdict: Verdict) -> list[WristFrame]:
        """A blank frame for every observation that waits."""
        waiting, self._waiting = self._waiting, []
        blank = np.zeros((*self.model.config.wrist_hw, 3), np.uint8)
        return [self._frame(observation, blank, verdict) for observation in waiting]

    def _frame(self, observation: Observation, image: np.ndarray, verdict: Verdict) -> WristFrame:
        return WristFrame(
            stamp_ns=observation.anchors.stamp_ns,
            image=image,
            camera=observation.reconstruction.wrist,
            condition=observation.condition.marked.cpu().numpy(),
            coverage=observation.coverage,
            confidence=observation.confidence,
            agreement=observation.agreement,
            latency_s=time.perf_counter() - observation.arrived,
            verdict=verdict,
            reconstruction=observation.reconstruction,
            geometry=observation.geometry,
            residuals=observation.residuals,
            missing=observation.missing,
            placement=observation.placement,
            depth=observation.condition.depth,
        )

    def _judge(self, observation: Observation) -> Verdict:
        """Whether the anchor images are as they should be, and what they show of the wrist's view suffices."""
        if observation.anchor_verdict.status is not FrameStatus.VALID:
            return observation.anchor_verdict
        least, found = self.settings.min_coverage, observation.coverage
        if found < least:
            reason = f'The anchors cover only {found:.0%} of the wrist view; min_coverage is {least:.0%}.'
            return Verdict(FrameStatus.LOW_COVERAGE, reason)
        measured = observation.geometry is Geometry.RGBD  # the model's thresholds were chosen for what it predicts
        least, found = self.settings.min_confidence, observation.confidence
        if least is None:
            least = _LEAST_CONFIDENCE if measured else self.model.config.min_confidence
        unsure = judge_confidence(found, least)
        if unsure.status is not FrameStatus.VALID:
            return unsure
        least = self.settings.min_agreement
        if least is None and not measured:
            least = self.model.config.min_agreement
        return judge_agreement(observation.anchors.names, observation.agreements, least)


def _composited(observation: Observation, image: np.ndarray) -> np.ndarray:
    """What was measured belongs over a generated image only where it is known where the wrist camera is."""
    return image if observation.geometry is Geometry.RGB else composite(image, observation.condition)


def _cuda_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A CUDA stream that starts after everything already queued; None, which stands for the default, on a CPU."""
    if device.type != 'cuda':
        return None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream
