"""The memory that a model and its settings need, reckoned from its configuration alone: nothing is loaded."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import lru_cache
from json import dumps, loads

import torch

from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.vggt.config import ReconstructionConfig, input_size
from wristworld_ros.models.wan import GeneratorSettings, WristGenerator
from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
from wristworld_ros.runtime.units import gib
from wristworld_ros.settings import StreamSettings

FLOAT = 4  # bytes of a float32
VIEWS_AT_A_TIME = 8  # through a dense head
IMAGE_HW = (480, 640)  # pixels of an anchor image where none was seen


@dataclass(frozen=True)
class Parameters:
    """How many weights a model has. half: of those that may be held in half precision; rest: of all others, float32."""

    half: int
    rest: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one model takes with one choice of settings where it runs, beside the process itself.

    cache: keys and values of the stream. working: images, tokens, points and feature maps of one anchor set and one
    chunk, and what the autoencoder remembers. Files are mapped and read one tensor at a time, which takes next to nothing.
    """

    weights: int
    cache: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.working

    def __str__(self) -> str:
        return f'{gib(self.weights)} weights, {gib(self.cache)} keys and values, {gib(self.working)} working memory'


def need(config, settings: StreamSettings, views: int, image_hw: tuple[int, int] = IMAGE_HW, half: int = FLOAT) -> MemoryEstimate:
    """What `settings` take with a model.

    config: a `ModelConfig` with both stages. views: anchor cameras. image_hw: of their images, pixels. half: bytes a
    weight of the parts that may be held in half precision; their activations and the keys and values go with them.
    Raises ValueError, one sentence, for a configuration that makes no model.
    """
    count, guided = parameters(config), is_guided(config, settings.guidance)
    return MemoryEstimate(
        weights=half * count.half + FLOAT * count.rest,
        cache=cache_bytes(config, settings.chunk, settings.history, half, guided),
        working=working_bytes(config, views, image_hw, settings.chunk, half, guided, settings.decoder == 'tiny'),
    )


def parameters(config) -> Parameters:
    """How many weights the networks of a `ModelConfig` have."""
    return _parameters(dumps(config.stage1, sort_keys=True), dumps(config.generator, sort_keys=True))


@lru_cache(maxsize=4)
def _parameters(stage1: str, generator: str) -> Parameters:
    with torch.device('meta'):  # the networks without memory behind them
        first, second = ReconstructionModel.from_config(loads(stage1)), WristGenerator.from_config(loads(generator))
        autoencoder = autoencoder_from_config(second.settings.autoencoder)
    half = rest = 0
    for module, rule in ((first, first.allows_low_precision), (second, second.allows_low_precision), (autoencoder, lambda name: True)):
        for name, tensor in module.state_dict().items():
            half, rest = (half + tensor.numel(), rest) if rule(name) else (half, rest + tensor.numel())
    return Parameters(half, rest)


def is_guided(config, guidance: float) -> bool:
    """Whether a stream of this model is sampled with guidance, which makes it two streams; see `ChunkStream`."""
    s = GeneratorSettings.from_config(config.generator)
    return s.text == 'stored' and (guidance or s.cfg_scale) != 1.0


def cache_bytes(config, chunk: int, history: int, each: int = FLOAT, guided: bool = False) -> int:
    """Keys and values of a stream: all layers, `history` chunks and the one in the making; twice with guidance.

    each: bytes a number.
    """
    s = GeneratorSettings.from_config(config.generator)
    streams = 2 if guided else 1
    return 2 * each * streams * s.num_layers * s.dim * _tokens(config, chunk) * (history + 1)


def working_bytes(
    config, views: int, image_hw: tuple[int, int], chunk: int, half: int = FLOAT, guided: bool = False,
    light: bool = False,
) -> int:  # fmt: skip
    """What one anchor set and one chunk take while both stages work at once, and what the autoencoder remembers.

    The largest arrays of each part, with a quarter more for what lies between them.
    """
    images = views * image_hw[0] * image_hw[1] * 3 * 4  # bytes: as they arrive, matched, waiting, resized
    stage1 = _stage1_working(config, views, image_hw, half)
    stage2 = _transformer_working(config, chunk, half, guided)
    stage2 = max(stage2, _tower_working(config, views, chunk, half), _decoder_working(config, chunk))
    remembered, coding = autoencoder_bytes(config, half, light)
    return round(1.25 * (stage1 + max(stage2, coding)) + remembered) + images


def _stage1_working(config, views: int, image_hw: tuple[int, int], half: int) -> float:
    """Tokens that the heads read; those of one block, of the wrist head or the maps of a dense head at full size; the
    cloud."""
    stage1 = ReconstructionConfig.from_dict(config.stage1)
    h, w = input_size(image_hw, config.anchor_width, stage1.patch_size)
    tokens = views * (h * w // stage1.patch_size**2 + 5)
    kept = len(stage1.dpt_layers) * 2 * stage1.embed_dim * tokens * half
    block = (
        (4 + 4 + 3) * stage1.embed_dim * tokens * half
    )  # both sides of the feed-forward's bend; queries, keys, values
    wrist = 6 * 2 * stage1.embed_dim * tokens * FLOAT  # all tokens, keys and values of them, the feed-forward
    dense = min(views, VIEWS_AT_A_TIME) * h * w * 2 * stage1.dpt_features * FLOAT  # the last maps, at full size
    points = (
        views * h * w * config.cloud.upsample**2 * 24 * FLOAT
    )  # positions, projections, colours, the splat's indices
    return kept + max(block, wrist, dense) + points


def _transformer_working(config, chunk: int, half: int, guided: bool) -> float:
    s = GeneratorSettings.from_config(config.generator)
    streams = 2 if guided else 1
    text = s.context_length * (2 * s.dim + s.text_dim)
    return streams * half * (_tokens(config, chunk) * (2 * s.ffn_dim + 8 * s.dim) + text)


def _tower_working(config, views: int, chunk: int, half: int) -> float:
    """The vision tower on all anchor images of a chunk."""
    tower = config.generator.get('anchor_encoder')
    if not (tower and config.use_anchor_tokens):
        return 0
    stride = autoencoder_strides(config)[0]
    images = min(views, config.generator.get('max_views', 2)) * chunk * stride
    tokens = images * ((tower['image_size'] // tower['patch_size']) ** 2 + 1)
    pixels = images * 3 * tower['image_size'] ** 2
    return tokens * tower['dim'] * (2 * tower.get('mlp_ratio', 4) + 6) * half + 3 * pixels * FLOAT


def _decoder_working(config, chunk: int) -> float:
    """The small model's convolutional decoder."""
    decoder = config.generator.get('decoder')
    if not decoder:
        return 0
    pixels = chunk * config.wrist_hw[0] * config.wrist_hw[1]
    return pixels * (3 * decoder.get('widths', [32])[0] + 16 + 32) * FLOAT


def autoencoder_strides(config) -> tuple[int, int]:
    """(video frames a latent frame, pixels a latent cell)."""
    with torch.device('meta'):
        autoencoder = autoencoder_from_config(config.generator['autoencoder'])
    return autoencoder.temporal_stride, autoencoder.spatial_stride


# Of Wan's autoencoder, in maps of its base width at the picture's full size: what its causal convolutions remember of
# the two frames before (15 in the encoder, 25 in the decoder), and what four frames take on their way through the last
# block, measured at widths of 32 to 96.
WAN_REMEMBERS, WAN_WORKS = {'encoder': 15, 'decoder': 25}, 36


def autoencoder_bytes(config, each: int = FLOAT, light: bool = False) -> tuple[int, int]:
    """(what the streams of the autoencoder remember, what coding four frames takes on top); 0, 0 without weights.

    light: the light decoder draws, whose memory is next to nothing.
    """
    autoencoder = config.generator['autoencoder']
    if autoencoder['kind'] != 'wan':
        return 0, 0
    plane = autoencoder.get('dim', 96) * config.wrist_hw[0] * config.wrist_hw[1] * each
    remembers = WAN_REMEMBERS['encoder'] + (0 if light else WAN_REMEMBERS['decoder'])
    return remembers * plane, WAN_WORKS * plane


def _tokens(config, chunk: int) -> int:
    """Of a chunk of latent frames."""
    stride = autoencoder_strides(config)[1]
    t, h, w = GeneratorSettings.from_config(config.generator).patch_size
    return chunk // t * (config.wrist_hw[0] // stride // h) * (config.wrist_hw[1] // stride // w)


def release(device: torch.device) -> None:
    """Give back what torch holds and nobody uses."""
    gc.collect()  # an exception's frames hold tensors in cycles
    if device.type == 'cuda':
        torch.cuda.empty_cache()
