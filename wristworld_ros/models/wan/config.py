"""The configuration of a generator, and presets."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Annotated, Any, Literal

import msgspec

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import Depth, Size, convert

# The released WristWorld model (arXiv 2510.07313): Wan2.1-T2V-1.3B with 16 condition channels and anchor tokens.
WRISTWORLD_1_3B: dict[str, Any] = {
    'dim': 1536,
    'ffn_dim': 8960,
    'text_dim': 4096,
    'freq_dim': 256,
    'num_heads': 12,
    'num_layers': 30,
    'clip_dim': 1280,
    'clip_hidden': 2048,
    'max_frames': 200,
    'max_views': 2,
    'context_length': 512,
    'sampling_steps': 50,
    'cfg_scale': 5.0,
    'shift': 5.0,
    'in_channels': 32,
    'out_channels': 16,
    'patch_size': [1, 2, 2],
    'eps': 1e-6,
}

# The small model: pixel-unshuffled 128x128 wrist images, a decoder that convolves over the condition map.
SIM_TINY: dict[str, Any] = {
    'dim': 192,
    'ffn_dim': 512,
    'text_dim': 96,
    'freq_dim': 96,
    'num_heads': 4,
    'num_layers': 4,
    'clip_dim': 96,
    'clip_hidden': 192,
    'max_frames': 16,
    'max_views': 4,
    'context_length': 68,
    'sampling_steps': 1,
    'cfg_scale': 1.0,
    'shift': 1.0,
    'in_channels': 192 + 320,
    'out_channels': 48,
    'patch_size': [1, 2, 2],
    'eps': 1e-6,
    'latent_channels': 192,
    'prediction': 'sample',
    'decoder': {'factor': 8, 'widths': [32, 64, 96, 128], 'noise_channels': 64},
    'anchor_encoder': {'image_size': 96, 'dim': 96, 'num_heads': 4, 'num_layers': 4, 'patch_size': 16},
    'autoencoder': {'kind': 'pixel_unshuffle', 'factor': 8},
    'text': 'learned',
    'chunk_frames': 4,
    'history_chunks': 4,
    'condition_confidence': True,
}

# The same for 224x224 wrist images, about 35 M parameters: for a GPU, with the recipe of the small one.
SIM_BASE: dict[str, Any] = SIM_TINY | {
    'dim': 384,
    'ffn_dim': 1536,
    'text_dim': 192,
    'freq_dim': 128,
    'num_heads': 8,
    'num_layers': 11,
    'clip_dim': 192,
    'clip_hidden': 384,
    'out_channels': 96,
    'decoder': {'factor': 8, 'widths': [48, 96, 160, 224], 'noise_channels': 128},
    'anchor_encoder': {'image_size': 128, 'dim': 192, 'num_heads': 6, 'num_layers': 6, 'patch_size': 16},
}

# The published form as small as it goes, on pixel-unshuffled images: what tests and first tries train.
MINIATURE: dict[str, Any] = {
    'dim': 128,
    'ffn_dim': 256,
    'text_dim': 32,
    'freq_dim': 64,
    'num_heads': 4,
    'num_layers': 4,
    'clip_dim': 32,
    'clip_hidden': 48,
    'max_frames': 32,
    'max_views': 2,
    'context_length': 72,
    'in_channels': 96,
    'out_channels': 48,
    'patch_size': [1, 1, 1],
    'sampling_steps': 20,
    'cfg_scale': 1.0,
    'shift': 5.0,
    'anchor_encoder': {'image_size': 32, 'dim': 32, 'num_heads': 4, 'num_layers': 2, 'patch_size': 8},
    'autoencoder': {'kind': 'pixel_unshuffle', 'factor': 4},
    'text': 'learned',
}

_Scale = Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)]


@dataclass(frozen=True)
class _DecoderSizes:
    """`GeneratorConfig.decoder`; see `ConvDecoder`."""

    factor: Size = 8
    widths: tuple[Size, ...] = ()
    noise_channels: Size = 128
    fine_width: Size = 16


@dataclass(frozen=True)
class _AnchorEncoderSizes:
    """`GeneratorConfig.anchor_encoder`; see `AnchorEncoder`."""

    image_size: Size = 1
    dim: Size = 1
    num_heads: Size = 1
    num_layers: Annotated[int, msgspec.Meta(ge=1, le=512)] = 1
    patch_size: Size = 1
    mlp_ratio: _Scale = 4.0
    eps: float = 1e-5


@dataclass(frozen=True)
class _AutoencoderSizes:
    """`GeneratorConfig.autoencoder`; see `autoencoders.autoencoder_from_config`."""

    kind: Literal['pixel_unshuffle', 'wan']
    factor: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    channels: Size = 3
    dim: Size = 96
    z_dim: Size = 16
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class RenoiseSampler:
    """`GeneratorConfig.sampler`: how a few-step student samples, see `sampling.renoise_sample`.

    timesteps: 1000 times the noise levels that it was distilled to, falling, the first 1000.
    """

    timesteps: tuple[float, ...]
    kind: Literal['renoise'] = 'renoise'

    def __post_init__(self):
        t = self.timesteps
        if not t or t[0] != 1000 or t[-1] <= 0 or any(a <= b for a, b in itertools.pairwise(t)):
            raise UserError(
                f'The sampler of the generator configuration has timesteps {list(t)}',
                'give falling numbers above 0, the first of them 1000',
            )

    @property
    def levels(self) -> tuple[float, ...]:
        """The noise levels, falling from 1."""
        return tuple(t / 1000 for t in self.timesteps)


# Types of the parts' own configurations. What they lack, the parts themselves say.
_PARTS = {
    'decoder': _DecoderSizes,
    'anchor_encoder': _AnchorEncoderSizes,
    'autoencoder': _AutoencoderSizes,
    'sampler': RenoiseSampler,
}


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that shapes a generator. Dictionaries that hold these keys may hold others, of their owners.

    Attributes:
        dim: Channels of the transformer.
        ffn_dim: Hidden channels of its feed-forward layers.
        text_dim: Channels of context tokens.
        freq_dim: Channels of the sinusoidal timestep embedding.
        num_heads: Attention heads.
        num_layers: Blocks.
        clip_dim: Channels of anchor features.
        clip_hidden: Hidden channels of their projection to context tokens.
        in_channels: Channels of noisy latents and condition latents together.
        out_channels: Channels of the transformer's output.
        max_frames: Rows of the time embedding of anchor tokens.
        max_views: Rows of their view embedding.
        context_length: Context tokens, text and anchor tokens together.
        sampling_steps: Default number of sampling steps.
        cfg_scale: Default scale of classifier-free guidance; 1 is none.
        shift: Default shift of the noise schedule.
        patch_size: Latent cells per token, (time, height, width).
        eps: Of the transformer's norms.
        latent_channels: Channels of a latent frame; None for `out_channels`.
        prediction: What the output means, 'velocity' or 'sample'.
        decoder: Keyword arguments of `ConvDecoder` (factor, widths, noise_channels), or None.
        anchor_encoder: Configuration of an `AnchorEncoder` that is trained with the model, or None.
        autoencoder: Which one makes the latents (`autoencoders.autoencoder_from_config`).
        text: 'given' with every call, 'stored' embeddings beside the weights, or 'learned'.
        chunk_frames: Latent frames per chunk of the causal stream.
        history_chunks: Chunks of history that a chunk attends to.
        sink_chunks: How many of them are always the first ones of the stream (attention sinks); the others are the last.
        sampler: None where the flow is integrated (the teacher's way); `{'kind': 'renoise', 'timesteps': [1000, 750, ...]}` for a
            few-step student, which is causal: it is sampled chunk by chunk wherever it runs.
        condition_confidence: Whether the condition planes hold the map's confidence in place of the mask of hit pixels.

    Raises:
        UserError: Values that contradict each other.
    """

    dim: Size
    ffn_dim: Size
    text_dim: Size
    freq_dim: Size
    num_heads: Size
    num_layers: Depth
    clip_dim: Size
    clip_hidden: Size
    in_channels: Size
    out_channels: Size
    max_frames: Size = 200
    max_views: Size = 2
    context_length: Size = 512
    sampling_steps: Size = 50
    cfg_scale: _Scale = 5.0
    shift: _Scale = 5.0
    patch_size: tuple[Size, Size, Size] = (1, 2, 2)
    eps: float = 1e-6
    latent_channels: Size | None = None
    prediction: str = 'velocity'
    decoder: dict[str, Any] | None = None
    anchor_encoder: dict[str, Any] | None = None
    autoencoder: dict[str, Any] | None = None
    text: str = 'given'
    chunk_frames: Size = 3
    history_chunks: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 6
    condition_confidence: bool = False
    sink_chunks: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    sampler: dict[str, Any] | None = None

    def __post_init__(self):
        object.__setattr__(self, 'patch_size', tuple(self.patch_size))
        if self.latent_channels is None:
            object.__setattr__(self, 'latent_channels', self.out_channels)
        where = 'The generator configuration has'
        if self.dim % self.num_heads or self.dim // self.num_heads % 2:
            raise UserError(
                f'{where} dim {self.dim} for {self.num_heads} heads; each head must get an even number of channels',
                'change dim or num_heads',
            )
        if self.prediction not in ('velocity', 'sample'):
            raise UserError(f'{where} prediction {self.prediction!r}', "set it to 'velocity' or 'sample'")
        if self.text not in ('given', 'stored', 'learned'):
            raise UserError(f'{where} text {self.text!r}', "set it to 'given', 'stored' or 'learned'")
        if self.in_channels < self.latent_channels:
            raise UserError(
                f'{where} in_channels {self.in_channels}, less than latent_channels {self.latent_channels}',
                'set in_channels to latent and condition channels together',
            )
        if self.decoder and self.prediction != 'sample':
            raise UserError(f'{where} a decoder, which predicts the clean sample', "set prediction to 'sample'")
        if self.sink_chunks > self.history_chunks:
            raise UserError(
                f'{where} sink_chunks {self.sink_chunks} of history_chunks {self.history_chunks}', 'lower sink_chunks'
            )
        if not self.decoder and self.out_channels != self.latent_channels:
            raise UserError(
                f'{where} out_channels {self.out_channels}, latent_channels {self.latent_channels} and no decoder',
                'make both equal or add a decoder',
            )

    @property
    def renoise(self) -> RenoiseSampler | None:
        """The sampler of a few-step student; None for a model whose flow is integrated."""
        return self.sampler and convert(
            self.sampler, RenoiseSampler, 'The generator configuration, sampler', 'correct it'
        )

    @property
    def condition_channels(self) -> int:
        """Channels of the condition latents."""
        return self.in_channels - self.latent_channels

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> GeneratorConfig:
        """From a dictionary, e.g. out of a JSON file; keys that are not the generator's are ignored.

        Raises:
            UserError: Keys are missing (all of them are named), or a value has another type, is out of bounds, or contradicts
                others.
        """
        missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in config]
        if missing:
            raise UserError(f'The generator configuration lacks {", ".join(missing)}', 'add them')
        names = {f.name for f in fields(cls)}
        source = 'The generator configuration'
        for part, kind in _PARTS.items():
            if config.get(part) is not None:
                convert(config[part], kind, f'{source}, {part}', 'correct it', other_keys=True)
        return convert({key: value for key, value in config.items() if key in names}, cls, source, 'correct it')

    def to_config(self) -> dict[str, Any]:
        """A dictionary, ready for JSON, that builds the same generator."""
        return asdict(self) | {'patch_size': list(self.patch_size)}
