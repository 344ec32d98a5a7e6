"""Time and roofline of every part of a model, as the stream runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from wristworld_ros.apps.bench.inputs import Shapes, anchor_set, surface_reconstruction
from wristworld_ros.apps.bench.roofline import Rates, Work, count_flops, median_ms, tensor_bytes, weight_bytes
from wristworld_ros.geometry.cloud import dense_cloud
from wristworld_ros.models.wan import new_cache
from wristworld_ros.models.wan.transformer import AttentionPlan
from wristworld_ros.pipeline.generate import anchor_features, anchor_images
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.pipeline.reconstructor import Reconstructor
from wristworld_ros.runtime.cuda_graphs import CudaGraphRunner
from wristworld_ros.runtime.transfer import upload


@dataclass(frozen=True)
class Part:
    """Something to time.

    run: one call; on a GPU the replay of a CUDA graph where the stream does that. modules: whose weights it reads.
    bytes: moved besides them, what goes in and out. frames: wrist frames that a call serves, 0 where that depends on the
    steps. eager: the same call without a graph, whose flops can be counted; None for `run`.
    """

    name: str
    run: Callable[[], object]
    modules: tuple[nn.Module, ...]
    bytes: float
    frames: int
    eager: Callable[[], object] | None = None


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
    """One row: median milliseconds, flops and bytes of a call."""
    flops = count_flops(part.eager or part.run)
    part.run()
    return {
        'part': part.name, 'frames': part.frames, 'ms': median_ms(part.run, device), 'flops': flops,
        'bytes': weight_bytes(part.modules) + part.bytes,
    }  # fmt: skip


def with_roofline(row: dict, rates: Rates) -> dict:
    """A row with its roofline, the ratio to it, and what bounds it."""
    work = Work(row['flops'], row['bytes'])
    roofline = work.roofline_ms(rates)
    return row | {'roofline_ms': roofline, 'ratio': row['ms'] / roofline, 'bound': work.bound(rates)}


def reconstructor_of(model: WristModel) -> Reconstructor:
    """Stage 1 as a step."""
    return Reconstructor(model.stage1, model.config.anchor_width, model.config.wrist_hw)


def is_guided(model: WristModel) -> bool:
    """Whether this model stores a negative prompt and was published to be sampled with guidance."""
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
    """A context for the negative half of guidance; the positive text where the model stores no other: the cost is the same."""
    gen = model.generator
    return gen.context(gen.own_text(negative=gen.settings.text == 'stored'), None)


def context_of(model: WristModel, shapes: Shapes, frames: int) -> torch.Tensor:
    """Text and anchor tokens of this many frames, [1, context_length, text_dim]."""
    gen = model.generator
    if not model.config.use_anchor_tokens:
        return gen.context(None, None)
    views = min(shapes.anchors, gen.settings.max_views)
    weight = gen.temporal_embed.weight
    features = torch.zeros(1, views, frames, gen.settings.clip_dim, dtype=weight.dtype, device=model.device)
    return gen.context(None, gen.anchor_tokens(features))


def condition_planes_of(model: WristModel) -> int:
    """Planes of a condition video: 3 for the image as published."""
    gen, autoencoder = model.generator, model.autoencoder
    return 3 * gen.settings.condition_channels // autoencoder.latent_channels


def children_that_run(network: nn.Module, run: Callable[[], object]) -> tuple[nn.Module, ...]:
    """The direct children of a network that a call runs; heads that are not asked for are not among them."""
    ran: list[nn.Module] = []
    hooks = [child.register_forward_hook(lambda module, *_: ran.append(module)) for child in network.children()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(ran)


def _stage1(model: WristModel, shapes: Shapes, views: int) -> Part:
    step, reconstructor = ReconstructionStep(model, graphs=True), reconstructor_of(model)
    colors = upload(reconstructor.resized(anchor_set(views, shapes.anchor_hw).images), model.device)
    modules = children_that_run(model.stage1, lambda: reconstructor.scene(colors))
    scene = reconstructor.scene(colors)
    moved = tensor_bytes(colors, scene.points, scene.confidence)
    name = f'stage 1, {views} view{"s" * (views > 1)}'
    return Part(name, lambda: step.stage1(colors), modules, moved, 1, lambda: reconstructor.scene(colors))


def _condition(model: WristModel, shapes: Shapes) -> Part:
    step, cloud = ReconstructionStep(model, graphs=True), surface_reconstruction(model, shapes)
    K, T = (torch.from_numpy(m)[None].to(model.device) for m in (cloud.wrist.K, cloud.wrist.T_camera_world))
    inputs = (K, T, cloud.points, cloud.confidence, cloud.colors, cloud.colors)
    points, colors = dense_cloud(cloud.points, cloud.colors, model.config.cloud)
    image, depth, _ = step.condition(*inputs)
    moved = tensor_bytes(points, colors, image, depth)
    return Part('condition map', lambda: step.condition(*inputs), (), moved, 1)


def _autoencoder(model: WristModel, shapes: Shapes) -> list[Part]:
    """The next chunk of a stream after its first latent frame."""
    autoencoder, tiny = model.autoencoder, model.tiny_autoencoder
    frames, hw = video_frames(model, shapes.chunk), shapes.wrist_hw
    video = torch.zeros(1, condition_planes_of(model), frames, *hw, device=model.device)
    z = latents(model, shapes, autoencoder.latent_channels, shapes.chunk)
    _, encoded = autoencoder.encode_next(video[:, :, :1], None)
    _, decoded = autoencoder.decode_next(z[:, :, :1], None)
    vae = getattr(autoencoder, 'vae', None)
    encoder = () if vae is None else (vae.encoder, vae.quant_conv)
    decoder = () if vae is None else (vae.post_quant_conv, vae.decoder)
    image_bytes = 4 * 3 * frames * hw[0] * hw[1]

    def encode() -> torch.Tensor:
        return autoencoder.encode_next(video, encoded)[0]

    def decode() -> torch.Tensor:
        return autoencoder.decode_next(z, decoded)[0]

    parts = [
        Part('VAE encode, a chunk', encode, encoder, tensor_bytes(video, z), frames),
        Part('VAE decode, a chunk', decode, decoder, tensor_bytes(z) + image_bytes, frames),
    ]
    if tiny is not None:
        _, tiny_decoded = tiny.decode_next(z[:, :, :1], None)

        def tiny_decode() -> torch.Tensor:
            return tiny.decode_next(z, tiny_decoded)[0]

        parts.append(Part('tiny decoder, a chunk', tiny_decode, (tiny.tiny,), tensor_bytes(z) + image_bytes, frames))
    return parts


def _anchor_tokens(model: WristModel, shapes: Shapes) -> Part:
    gen, frames = model.generator, video_frames(model, shapes.chunk)
    arrays = anchor_images(gen, [anchor_set(shapes.anchors, shapes.anchor_hw).images] * frames)
    images = upload(arrays, model.device)

    def tokens(images: torch.Tensor) -> tuple[torch.Tensor]:
        return (gen.anchor_tokens(anchor_features(gen, images)),)

    graph, modules = _graph(model, tokens), (gen.anchor_encoder, gen.ext_proj)
    return Part('anchor tokens, a chunk', lambda: graph(images), modules, arrays.nbytes, frames, lambda: tokens(images))


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
        graph = _graph(model, lambda x, sigma, velocity=velocity: (velocity(x, sigma),))
        moved = tensor_bytes(z, z, condition, context) + cache.nbytes
        name = 'transformer, a guided step (one batch)' if guided else 'transformer, a step'
        run, eager = (lambda f=f: f(z, sigma) for f in (graph, velocity))
        parts.append(Part(name, run, modules, moved, 0, eager))
    return parts


def _graph(model: WristModel, function: Callable) -> CudaGraphRunner:
    return CudaGraphRunner(function, model.device.type == 'cuda')
