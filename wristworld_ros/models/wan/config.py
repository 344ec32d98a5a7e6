"""Settings of a generator, and presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

# The released WristWorld model: Wan2.1-T2V-1.3B with 16 condition channels and anchor tokens (paper.md, section 3).
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
}


@dataclass(frozen=True)
class GeneratorSettings:
    """Everything that shapes a generator; a configuration holds these keys (others are kept by their owners).

    dim, ffn_dim, num_heads, num_layers, freq_dim, patch_size, eps: the Wan transformer.
    in_channels: noisy latents and condition together. out_channels: the transformer's output.
    latent_channels: of a latent frame; None for out_channels. text_dim, context_length: context tokens.
    clip_dim, clip_hidden, max_frames, max_views: anchor tokens.
    sampling_steps, cfg_scale, shift: defaults of sampling.
    prediction: ``velocity`` or ``sample``, what the network's output means.
    decoder: keyword arguments of ``ConvDecoder`` (factor, widths, noise_channels), or None.
    anchor_encoder: configuration of an ``AnchorEncoder`` trained with the model, or None.
    autoencoder: which one made the latents (``autoencoders.autoencoder_from_config``).
    text: ``given`` with every call, ``stored`` embeddings beside the weights, or ``learned``.
    chunk_frames, history_chunks: of the causal stream, in latent frames and chunks.
    """

    dim: int
    ffn_dim: int
    text_dim: int
    freq_dim: int
    num_heads: int
    num_layers: int
    clip_dim: int
    clip_hidden: int
    in_channels: int
    out_channels: int
    max_frames: int = 200
    max_views: int = 2
    context_length: int = 512
    sampling_steps: int = 50
    cfg_scale: float = 5.0
    shift: float = 5.0
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6
    latent_channels: int | None = None
    prediction: str = 'velocity'
    decoder: dict[str, Any] | None = None
    anchor_encoder: dict[str, Any] | None = None
    autoencoder: dict[str, Any] | None = None
    text: str = 'given'
    chunk_frames: int = 3
    history_chunks: int = 6

    def __post_init__(self):
        object.__setattr__(self, 'patch_size', tuple(self.patch_size))
        if self.latent_channels is None:
            object.__setattr__(self, 'latent_channels', self.out_channels)
        if self.dim % self.num_heads or self.dim // self.num_heads % 2:
            raise ValueError(f'dim {self.dim} over {self.num_heads} heads must give an even number; change either.')
        if self.prediction not in ('velocity', 'sample'):
            raise ValueError(f"prediction is {self.prediction!r}; it must be 'velocity' or 'sample'.")
        if self.text not in ('given', 'stored', 'learned'):
            raise ValueError(f"text is {self.text!r}; it must be 'given', 'stored' or 'learned'.")
        if self.in_channels < self.latent_channels:
            raise ValueError(f'in_channels {self.in_channels} is less than latent_channels {self.latent_channels}.')
        if self.decoder and self.prediction != 'sample':
            raise ValueError("A decoder predicts the clean sample; set prediction to 'sample'.")
        if not self.decoder and self.out_channels != self.latent_channels:
            raise ValueError(
                f'out_channels {self.out_channels} must be latent_channels {self.latent_channels} without a decoder.'
            )

    @property
    def condition_channels(self) -> int:
        """Channels of the condition latents."""
        return self.in_channels - self.latent_channels

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> GeneratorSettings:
        """Settings from a configuration; keys that are not the generator's are ignored.

        Raises ValueError, one sentence, naming the keys that are missing.
        """
        names = {f.name for f in fields(cls)}
        try:
            return cls(**{key: value for key, value in config.items() if key in names})
        except TypeError as error:
            missing = [f.name for f in list(fields(cls))[:10] if f.name not in config]
            if not missing:
                raise
            raise ValueError(f'The generator configuration lacks {", ".join(missing)}; add them.') from error

    def to_config(self) -> dict[str, Any]:
        """A configuration, ready for JSON, that builds the same generator."""
        return asdict(self) | {'patch_size': list(self.patch_size)}
