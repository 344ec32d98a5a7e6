"""Time and floor of every part of a model, as the stream runs it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from wristworld_ros.apps.bench.roofline import Rates, Work, count_operations, weight_bytes
from wristworld_ros.apps.bench.shapes import Shapes, anchor_set, cloud_before_wrist
from wristworld_ros.apps.bench.timing import median_ms
from wristworld_ros.geometry.cloud import dense_cloud
from wristworld_ros.models.wan import new_cache
from wristworld_ros.models.wan.attention import AttentionPlan
from wristworld_ros.pipeline.generator_inputs import anchor_features, anchor_pictures
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.runtime.cuda_graphs import CudaGraphRunner
from wristworld_ros.runtime.transfer import upload


@dataclass(frozen=True)
class Part:
    """Something to time. run: one call, on a GPU the replay of a CUDA graph where the stream does that. modules: whose
    weights it reads. moved: bytes beside them, what goes in and out. frames: wrist frames that a call serves, 0 where that
    depends on the steps. plain: the same call without a graph, whose operations can be counted; None for `run`."""

    name: str
    run: Callable[[], object]
    modules: tuple[nn.Module, ...]
    bytes_moved: float
    frames: int
    plain: Callable[[], object] | None = None


def parts_of(model: WristModel, shapes: Shapes) -> list[Part]:
    """Every part between the anchor images and the wrist images; a model without anchor tokens has no such part."""
    return [
        *(_stage1(model, shapes, views) for views in shapes.views),
        _condition(model, shapes),
        *_autoencoder(model, shapes),
        *([_anchor_tokens(model, shapes)] if model.config.use_anchor_tokens else []),
        *_transformer(model, shapes),
    ]


@torch.inference_mode()
def measure(part: Part, device: torch.device) -> dict:
    """One row: median milliseconds, operations and bytes of a call."""
    operations = count_operations(part.plain or part.run)
    part.run()
    return {
        'part': part.name, 'frames': part.frames, 'ms': median_ms(part.run, device), 'operations': operations,
        'bytes': weight_bytes(part.modules) + part.bytes_moved,
    }  # fmt: skip


def with_roofline(row: dict, rates: Rates) -> dict:
    """A row with its floor, what that floor is, and the ratio to it."""
    work = Work(row['operations'], row['bytes'])
    floor = work.roofline_ms(rates)
    return row | {'roofline_ms': floor, 'ratio': row['ms'] / floor, 'bound': work.bound(rates)}


def is_guided(model: WristModel) -> bool:
    """Whether this model can be sampled with guidance, and was published so."""
    s = model.generator.settings
    return s.text == 'stored' and s.cfg_scale != 1.0


def video_frames(model: WristModel, chunk: int) -> int:
    """Video frames of a chunk in the middle of a stream."""
    return chunk * model.autoencoder.temporal_stride


def latents(model: WristModel, shapes: Shapes, channels: int, frames: int) -> torch.Tensor:
    """Noise in place of latents: float32 [1, channels, frames, h, w]."""
    stride = model.autoencoder.spatial_stride
    height, width = (side // stride for side in shapes.wrist_hw)
    return torch.randn(1, channels, frames, height, width).to(model.device)


def negative_context(model: WristModel) -> torch.Tensor:
    """A context for the negative half of guidance; the positive text where the model stores no other, which costs the same."""
    gen = model.generator
    return gen.context(gen.own_text(negative=gen.settings.text == 'stored'), None)


def context_of(model: WristModel, shapes: Shapes, frames: int) -> torch.Tensor:
    """Text and anchor tokens of so many frames, [1, context_length, text_dim]."""
    gen = model.generator
    if not model.config.use_anchor_tokens:
        return gen.context(None, None)
    views = min(shapes.anchors, gen.settings.max_views)
    weight = gen.temporal_embed.weight
    features = torch.zeros(1, views, frames, gen.settings.clip_dim, dtype=weight.dtype, device=model.device)
    return gen.context(None, gen.anchor_tokens(features))


def condition_planes_of(model: WristModel) -> int:
    """Planes of a condition video: 3 for the picture as published."""
    gen, autoencoder = model.generator, model.autoencoder
    return 3 * gen.settings.condition_channels // autoencoder.latent_channels


def children_that_run(network: nn.Module, run: Callable[[], object]) -> tuple[nn.Module, ...]:
    """The direct children of a network that a call goes through; heads that are not asked for are not among them."""
    seen: list[nn.Module] = []
    hooks = [child.register_forward_hook(lambda module, *_: seen.append(module)) for child in network.children()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(seen)


def _stage1(model: WristModel, shapes: Shapes, views: int) -> Part:
    reconstruction_step, reconstructor = model.reconstruction_step(graphs=True), model.reconstructor()
    colors = upload(reconstructor.resized(anchor_set(views, shapes.anchor_hw).images), model.device)
    modules = children_that_run(model.stage1, lambda: reconstructor.scene(colors))
    scene = reconstructor.scene(colors)
    bytes_moved = _bytes(colors, scene.points, scene.confidence)
    name = f'stage 1, {views} view{"s" * (views > 1)}'
    return Part(name, lambda: reconstruction_step.stage1(colors), modules, bytes_moved, 1, lambda: reconstructor.scene(colors))


def _condition(model: WristModel, shapes: Shapes) -> Part:
    reconstruction_step, cloud = model.reconstruction_step(graphs=True), cloud_before_wrist(model, shapes)
    K, T = (torch.from_numpy(m)[None].to(model.device) for m in (cloud.wrist.K, cloud.wrist.T_camera_world))
    inputs = (K, T, cloud.points, cloud.confidence, cloud.colors)
    points, colors = dense_cloud(cloud.points, cloud.colors, model.config.cloud)
    image, depth, _ = reconstruction_step.condition(*inputs)
    return Part('condition map', lambda: reconstruction_step.condition(*inputs), (), _bytes(points, colors, image, depth), 1)


def _autoencoder(model: WristModel, shapes: Shapes) -> list[Part]:
    """The next chunk of a stream that is under way."""
    frames, hw = video_frames(model, shapes.chunk), shapes.wrist_hw
    stream = copy.copy(model.autoencoder)  # its own streams, the same weights
    stream.reset()
    video = torch.zeros(1, condition_planes_of(model), frames, *hw, device=model.device)
    z = latents(model, shapes, stream.latent_channels, shapes.chunk)
    stream.encode_next(video[:, :, :1])
    stream.decode_next(z[:, :, :1])
    vae = getattr(stream, 'vae', None)
    encoder = () if vae is None else (vae.encoder, vae.quant_conv)
    decoder = () if vae is None else (vae.post_quant_conv, vae.decoder)
    pictures = 4 * 3 * frames * hw[0] * hw[1]
    found = [
        Part('VAE encode, a chunk', lambda: stream.encode_next(video), encoder, _bytes(video, z), frames),
        Part('VAE decode, a chunk', lambda: stream.decode_next(z), decoder, _bytes(z) + pictures, frames),
    ]
    if model.tiny_autoencoder:
        light = copy.copy(model.tiny_autoencoder)
        light.reset()
        light.decode_next(z[:, :, :1])
        run = lambda: light.decode_next(z)  # noqa: E731
        found.append(Part('light decoder, a chunk', run, (light.light,), _bytes(z) + pictures, frames))
    return found


def _anchor_tokens(model: WristModel, shapes: Shapes) -> Part:
    gen, frames = model.generator, video_frames(model, shapes.chunk)
    images = anchor_pictures(gen, [anchor_set(shapes.anchors, shapes.anchor_hw).images] * frames)
    pictures = upload(images, model.device)

    def tokens(pictures: torch.Tensor) -> tuple[torch.Tensor]:
        return (gen.anchor_tokens(anchor_features(gen, pictures)),)

    replayed = _replayed(model, tokens)
    modules = (gen.anchor_encoder, gen.ext_proj)
    return Part(
        'anchor tokens, a chunk', lambda: replayed(pictures), modules, images.nbytes, frames, lambda: tokens(pictures)
    )


def _transformer(model: WristModel, shapes: Shapes) -> list[Part]:
    """A step of a chunk whose history is full, without guidance and, in a model that samples with it, with both halves as
    one batch."""
    gen, s = model.generator, model.generator.settings
    z = latents(model, shapes, s.latent_channels, shapes.chunk)
    condition = latents(model, shapes, s.condition_channels, shapes.chunk)
    context = context_of(model, shapes, video_frames(model, shapes.chunk))
    sigma = gen.sigmas(shapes.steps, device=model.device)[0]
    modules = (gen.transformer,) if gen.decoder is None else (gen.transformer, gen.decoder)
    parts = []
    for guided in (False, True) if is_guided(model) else (False,):
        cache = new_cache(gen, tuple(z.shape[-2:]), 2 if guided else 1, shapes.chunk, shapes.history)
        for _ in range(shapes.history):
            cache.advance()
        negative = negative_context(model) if guided else None
        velocity = gen.guided_velocity(condition, context, negative, s.cfg_scale, AttentionPlan(cache=cache))
        replayed = _replayed(model, lambda x, sigma, velocity=velocity: (velocity(x, sigma),))
        bytes_moved = _bytes(z, z, condition, context) + cache.nbytes
        name = 'transformer, a guided step (one batch)' if guided else 'transformer, a step'
        run, plain = (lambda f=f: f(z, sigma) for f in (replayed, velocity))
        parts.append(Part(name, run, modules, bytes_moved, 0, plain))
    return parts


def _replayed(model: WristModel, function: Callable) -> CudaGraphRunner:
    return CudaGraphRunner(function, model.device.type == 'cuda')


def _bytes(*tensors: torch.Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
