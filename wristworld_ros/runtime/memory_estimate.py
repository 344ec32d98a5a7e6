"""The memory that a model needs with its settings, estimated from its configuration alone: nothing is loaded."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import lru_cache
from json import dumps, loads

import torch

from wristworld_ros.input_files import convert
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.sweep import SweepConfig
from wristworld_ros.models.vggt import ReconstructionConfig, ReconstructionModel
from wristworld_ros.models.vggt.config import input_size
from wristworld_ros.models.wan import GeneratorConfig, WristGenerator
from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
from wristworld_ros.runtime.machine import format_bytes
from wristworld_ros.settings import StreamSettings

FLOAT = 4  # bytes of a float32
VIEWS_AT_A_TIME = 8  # through a dense head
IMAGE_HW = (480, 640)  # pixels of an anchor image where none was received yet

# Of Wan's autoencoder, in feature maps of its base width at the image's full size: what its causal convolutions keep of
# the two frames before (15 in the encoder, 25 in the decoder), and what four frames take on their way through the last
# block, measured at widths of 32 to 96.
_WAN_STATE, _WAN_WORKING = {'encoder': 15, 'decoder': 25}, 36


@dataclass(frozen=True)
class ParameterCount:
    """Weights of a model: `low_precision` of them may be kept in bfloat16, `float32` may not."""

    low_precision: int
    float32: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one model takes with one choice of settings where it runs, beside the process itself.

    cache: keys and values of the stream. working: images, tokens, points and feature maps of one anchor set and one
    chunk, and the autoencoder's stream state. Files are mapped and read one tensor at a time, which takes next to nothing.
    """

    weights: int
    cache: int
    working: int

    @property
    def total(self) -> int:
        """All of it, bytes."""
        return self.weights + self.cache + self.working

    def __str__(self) -> str:
        return (
            f'{format_bytes(self.weights)} weights, {format_bytes(self.cache)} keys and values, '
            f'{format_bytes(self.working)} working memory'
        )


def estimate_memory(
    config: ModelConfig,
    settings: StreamSettings,
    views: int,
    image_hw: tuple[int, int] = IMAGE_HW,
    param_bytes: int = FLOAT,
) -> MemoryEstimate:
    """What `settings` take with a model.

    Args:
        config: Of a model with both stages.
        settings: Of the stream.
        views: Anchor cameras.
        image_hw: Of their images, pixels.
        param_bytes: Bytes of a weight where low precision is allowed; activations, keys and values have as many.

    Raises:
        ValueError: The configuration describes no model.
    """
    count, guided = parameter_count(config), is_guided(config, settings.guidance)
    working = working_bytes(config, views, image_hw, settings.chunk, param_bytes, guided, settings.decoder == 'tiny')
    return MemoryEstimate(
        weights=param_bytes * count.low_precision + FLOAT * count.float32,
        cache=cache_bytes(config, settings.chunk, settings.history, param_bytes, guided),
        working=working + sweep_bytes(config, views),
    )


def sweep_bytes(config: ModelConfig, views: int) -> int:
    """What a plane sweep takes beside its few weights: features and colours of every plane and anchor, a few times over."""
    if not config.sweep:
        return 0
    sizes = convert(config.sweep, SweepConfig, 'config.json, sweep')
    pixels = config.wrist_hw[0] * config.wrist_hw[1]
    each = pixels // 4 * (sizes.features + 3) + pixels * 4  # at half the wrist's size, and at its size
    return 4 * FLOAT * views * len(sizes.heights) * each


def parameter_count(config: ModelConfig) -> ParameterCount:
    """How many weights the networks of a configuration have."""
    return _parameter_count(dumps(config.stage1, sort_keys=True), dumps(config.generator, sort_keys=True))


@lru_cache(maxsize=4)
def _parameter_count(stage1: str, generator: str) -> ParameterCount:
    with torch.device('meta'):  # the networks without memory behind them
        first, second = ReconstructionModel.from_config(loads(stage1)), WristGenerator.from_config(loads(generator))
        autoencoder = autoencoder_from_config(second.settings.autoencoder)
    low = full = 0
    for module in (first, second, autoencoder):
        for name, tensor in module.state_dict().items():
            if module.param_dtype(name, torch.bfloat16) == torch.bfloat16:
                low += tensor.numel()
            else:
                full += tensor.numel()
    return ParameterCount(low, full)


def is_guided(config: ModelConfig, guidance: float | None) -> bool:
    """Whether a stream of this model is sampled with guidance, which makes it two streams; see `ChunkGenerator`."""
    s = GeneratorConfig.from_config(config.generator)
    return s.text == 'stored' and (s.cfg_scale if guidance is None else guidance) != 1.0


def cache_bytes(config: ModelConfig, chunk: int, history: int, param_bytes: int = FLOAT, guided: bool = False) -> int:
    """Keys and values of a stream: all layers, `history` chunks and the current one; twice with guidance."""
    s = GeneratorConfig.from_config(config.generator)
    streams = 2 if guided else 1
    return 2 * param_bytes * streams * s.num_layers * s.dim * _tokens(config, chunk) * (history + 1)


def working_bytes(
    config: ModelConfig,
    views: int,
    image_hw: tuple[int, int],
    chunk: int,
    param_bytes: int = FLOAT,
    guided: bool = False,
    tiny: bool = False,
) -> int:
    """What one anchor set and one chunk take while both stages work at once, and the autoencoder's state.

    The largest arrays of each part, with a quarter more for what lies between them.
    """
    # Bytes, by the sets they belong to: two that wait for partners, one for the model, one in each of its halves as received
    # or decoded and as uploaded. What a camera that lags adds is bounded by `max_queue_bytes`.
    images = views * image_hw[0] * image_hw[1] * 3 * 7
    stage1 = _stage1_working(config, views, image_hw, param_bytes)
    stage2 = _transformer_working(config, chunk, param_bytes, guided)
    stage2 = max(stage2, _tower_working(config, views, chunk, param_bytes), _decoder_working(config, chunk))
    state, coding = autoencoder_bytes(config, param_bytes, tiny)
    return round(1.25 * (stage1 + max(stage2, coding)) + state) + images


def _stage1_working(config: ModelConfig, views: int, image_hw: tuple[int, int], param_bytes: int) -> float:
    """Tokens that the heads read; those of one block, of the wrist head, or a dense head's maps at full size; the cloud."""
    stage1 = ReconstructionConfig.from_dict(config.stage1)
    h, w = input_size(image_hw, config.anchor_width, stage1.patch_size)
    tokens = views * (h * w // stage1.patch_size**2 + 5)
    kept = len(stage1.dpt_layers) * 2 * stage1.embed_dim * tokens * param_bytes
    # Of a block: its MLP before and after the GELU, and queries, keys and values.
    block = (4 + 4 + 3) * stage1.embed_dim * tokens * param_bytes
    wrist = 6 * 2 * stage1.embed_dim * tokens * FLOAT  # all tokens, their keys and values, the MLP
    dense = min(views, VIEWS_AT_A_TIME) * h * w * 2 * stage1.dpt_features * FLOAT  # the last maps, at full size
    points = views * h * w * config.cloud.upsample**2 * 24 * FLOAT  # positions, projections, colours, splat indices
    return kept + max(block, wrist, dense) + points


def _transformer_working(config: ModelConfig, chunk: int, param_bytes: int, guided: bool) -> float:
    s = GeneratorConfig.from_config(config.generator)
    streams = 2 if guided else 1
    text = s.context_length * (2 * s.dim + s.text_dim)
    return streams * param_bytes * (_tokens(config, chunk) * (2 * s.ffn_dim + 8 * s.dim) + text)


def _tower_working(config: ModelConfig, views: int, chunk: int, param_bytes: int) -> float:
    """The vision tower on all anchor images of a chunk."""
    tower = config.generator.get('anchor_encoder')
    if not (tower and config.use_anchor_tokens):
        return 0
    stride = autoencoder_strides(config)[0]
    images = min(views, config.generator.get('max_views', 2)) * chunk * stride
    tokens = images * ((tower['image_size'] // tower['patch_size']) ** 2 + 1)
    pixels = images * 3 * tower['image_size'] ** 2
    return tokens * tower['dim'] * (2 * tower.get('mlp_ratio', 4) + 6) * param_bytes + 3 * pixels * FLOAT


def _decoder_working(config: ModelConfig, chunk: int) -> float:
    """The small model's convolutional decoder."""
    decoder = config.generator.get('decoder')
    if not decoder:
        return 0
    pixels = chunk * config.wrist_hw[0] * config.wrist_hw[1]
    return pixels * (3 * decoder.get('widths', [32])[0] + 16 + 32) * FLOAT


def autoencoder_strides(config: ModelConfig) -> tuple[int, int]:
    """(video frames per latent frame, pixels per latent cell)."""
    with torch.device('meta'):
        autoencoder = autoencoder_from_config(config.generator.get('autoencoder'))
    return autoencoder.temporal_stride, autoencoder.spatial_stride


def autoencoder_bytes(config: ModelConfig, param_bytes: int = FLOAT, tiny: bool = False) -> tuple[int, int]:
    """(state of the autoencoder's streams, what coding four frames takes on top); 0, 0 where it has no weights.

    Args:
        tiny: Whether the tiny decoder decodes, whose state is next to nothing.
    """
    autoencoder = config.generator['autoencoder']
    if autoencoder['kind'] != 'wan':
        return 0, 0
    plane = autoencoder.get('dim', 96) * config.wrist_hw[0] * config.wrist_hw[1] * param_bytes
    planes = _WAN_STATE['encoder'] + (0 if tiny else _WAN_STATE['decoder'])
    return planes * plane, _WAN_WORKING * plane


def _tokens(config: ModelConfig, chunk: int) -> int:
    """Tokens of a chunk of latent frames."""
    stride = autoencoder_strides(config)[1]
    t, h, w = GeneratorConfig.from_config(config.generator).patch_size
    return chunk // t * (config.wrist_hw[0] // stride // h) * (config.wrist_hw[1] // stride // w)


def release_unused(device: torch.device) -> None:
    """Give back the memory that torch caches and nobody uses."""
    gc.collect()  # an exception's frames hold tensors in cycles
    if device.type == 'cuda':
        torch.cuda.empty_cache()
