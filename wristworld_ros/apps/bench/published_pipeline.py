"""The published pipeline on the same networks, shapes and machine: what the speed-up is computed against.

One clip of 81 frames at a time: stage 1 for each frame, condition maps rendered point by point, the whole clip through the
autoencoder, 50 steps of two passes each, no frame before all is done (arXiv 2510.07313 and its published code). Reading and
writing of files, which the published code does between its stages, is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from wristworld_ros.apps.bench.inputs import Shapes, anchor_set, surface_reconstruction
from wristworld_ros.apps.bench.parts import (
    condition_planes_of,
    context_of,
    latents,
    negative_context,
    reconstructor_of,
)
from wristworld_ros.apps.bench.reference_renderer import render_reference
from wristworld_ros.apps.bench.roofline import once_ms
from wristworld_ros.geometry.cloud import dense_cloud
from wristworld_ros.models.wan import clip_latents
from wristworld_ros.pipeline.generate import anchor_features, anchor_images
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.runtime.transfer import upload

STEPS, GUIDANCE = 50, 5.0
CONDITION_MAPS = 'condition maps, point by point'


@dataclass(frozen=True)
class Phase:
    """A phase of a clip: `count` times `unit`. whole: all of it in one call; None for `unit` called `count` times."""

    name: str
    count: int
    of: str
    unit: Callable[[], object]
    whole: Callable[[], object] | None = None


def clip_frames(model: WristModel, anchors: int) -> tuple[int, int]:
    """Latent and video frames of a clip: 21 and 81 as published, or as many as the model takes."""
    stride = model.autoencoder.temporal_stride
    count = clip_latents(model.generator.settings, stride, min(anchors, model.generator.settings.max_views))
    return count, 1 + stride * (count - 1)


def phases(model: WristModel, shapes: Shapes) -> list[Phase]:
    """Everything that the published pipeline does for a clip."""
    count, frames = clip_frames(model, shapes.anchors)
    anchors, reconstruct = anchor_set(shapes.anchors, shapes.anchor_hw), reconstructor_of(model)
    gen, autoencoder = model.generator, model.autoencoder
    planes, hw, device = condition_planes_of(model), shapes.wrist_hw, model.device
    piece = torch.zeros(1, planes, autoencoder.temporal_stride, *hw, device=device)
    clip = torch.zeros(1, planes, frames, *hw, device=device)
    z = latents(model, shapes, gen.settings.latent_channels, count)
    condition = latents(model, shapes, gen.settings.condition_channels, count)
    velocity = gen.guided_velocity(
        condition, context_of(model, shapes, frames), negative_context(model), GUIDANCE, batched=False
    )
    sigma = gen.sigmas(STEPS, device=device)[0]
    _, encoded = autoencoder.encode_next(piece[:, :, :1], None)
    _, decoded = autoencoder.decode_next(z[:, :, :1], None)

    def encode_piece() -> object:
        return autoencoder.encode_next(piece, encoded)

    def decode_piece() -> object:
        return autoencoder.decode_next(z[:, :, :1], decoded)

    found = [
        Phase('stage 1', frames, 'frames', lambda: reconstruct(anchors)),
        Phase(CONDITION_MAPS, frames, 'frames', _reference_renderer(model, shapes)),
        Phase('VAE encode', count, 'latent frames', encode_piece, lambda: autoencoder.encode(clip)),
        Phase('transformer, two passes per step', STEPS, 'steps', lambda: velocity(z, sigma)),
        Phase('VAE decode', count, 'latent frames', decode_piece, lambda: autoencoder.decode(z)),
    ]
    if model.config.use_anchor_tokens:

        def anchor_tokens() -> torch.Tensor:
            images = upload(anchor_images(gen, [anchors.images]), device)
            return gen.anchor_tokens(anchor_features(gen, images))

        found.insert(3, Phase('anchor tokens', frames, 'frames', anchor_tokens))
    return found


@torch.inference_mode()
def measure(model: WristModel, shapes: Shapes, seconds: float = 10.0) -> Iterator[dict]:
    """A row for each phase: milliseconds of the clip, and how much of it was measured.

    Args:
        model: Whose networks run.
        shapes: Of the case.
        seconds: A phase that would take longer is measured once and multiplied.
    """
    for phase in phases(model, shapes):
        if phase.name != CONDITION_MAPS:  # numpy: nothing to warm up
            phase.unit()
        unit = once_ms(phase.unit, model.device)
        if unit * phase.count > seconds * 1e3:
            ms, measured = unit * phase.count, f'1 of {phase.count} {phase.of}, times {phase.count}'
        else:
            ms, measured = once_ms(phase.whole or _times(phase), model.device), f'all {phase.count} {phase.of}'
        yield {'phase': phase.name, 'ms': ms, 'unit_ms': unit, 'measured': measured}


def _times(phase: Phase) -> Callable[[], object]:
    def run():
        for _ in range(phase.count):
            phase.unit()

    return run


def _reference_renderer(model: WristModel, shapes: Shapes) -> Callable[[], object]:
    """One condition map of the same cloud, point by point, at the size that the model's own is rendered at."""
    reconstruction, cloud = surface_reconstruction(model, shapes), model.config.cloud
    points, colors = (t.cpu().numpy() for t in dense_cloud(reconstruction.points, reconstruction.colors, cloud))
    wrist, render_size = reconstruction.wrist, cloud.render_size or shapes.wrist_hw
    K = wrist.K.copy()
    K[:2] *= [[render_size[1] / wrist.width], [render_size[0] / wrist.height]]
    return lambda: render_reference(
        points, colors, K, wrist.T_camera_world, image_hw=render_size, radius=cloud.radius, near=cloud.near
    )
