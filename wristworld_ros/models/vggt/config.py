"""The settings of a reconstruction model, as they stand in ``config.json`` beside its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

REQUIRED = ('img_size', 'embed_dim', 'depth', 'num_heads')
HEADS = ('camera', 'wrist', 'depth', 'points', 'track')
OWN_HEADS = ('scene_coordinates',)  # not in the published system; built only where a configuration names it


@dataclass(frozen=True)
class ReconstructionConfig:
    """Sizes of a VGGT-shaped model with a wrist head. ``from_dict`` fills in what follows from others.

    img_size: side of the square image whose position embedding is stored, pixels.
    embed_dim, depth, num_heads: the aggregator (``depth`` frame blocks and as many global blocks).
    patch_embed_depth, patch_embed_heads: the DINOv2 patch embedding.
    camera_trunk_depth, camera_heads: the trunk of the camera head and of the wrist head.
    dpt_layers: the four aggregator layers that the dense heads read.
    dpt_features, dpt_out_channels: widths of the dense heads.
    track_*: the tracker.
    patch_stem: 'linear' as published, or 'convolutional': small models that start from scratch learn from far less data
        with it; patch_size is then a power of 2.
    patch_size: pixels. layerscale_init: start of every LayerScale. wrist_dropout: in training only.
    heads: which heads are built; leave out those that a small model shall not carry.
    float32_heads: heads in float32 under autocast, as published; false lets autocast have them (small models on a CPU).
    gradient_checkpointing: recompute aggregator blocks in the backward pass, to save memory.
    """

    img_size: int
    embed_dim: int
    depth: int
    num_heads: int
    patch_embed_depth: int
    patch_embed_heads: int
    camera_heads: int
    dpt_layers: tuple[int, ...]
    dpt_out_channels: tuple[int, ...]
    camera_trunk_depth: int = 4
    dpt_features: int = 256
    track_features: int = 128
    track_iters: int = 4
    track_corr_levels: int = 7
    track_corr_radius: int = 4
    track_hidden: int = 384
    patch_size: int = 14
    patch_stem: str = 'linear'
    layerscale_init: float = 0.01
    wrist_dropout: float = 0.1
    heads: tuple[str, ...] = HEADS
    float32_heads: bool = True
    gradient_checkpointing: bool = False

    def __post_init__(self):
        for name in ('dpt_layers', 'dpt_out_channels', 'heads'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check()

    @classmethod
    def from_dict(cls, config: dict) -> ReconstructionConfig:
        """Settings from a dict. img_size, embed_dim, depth and num_heads are required; everything else has a default:
        the patch embedding's depth and the heads of it and of the camera trunk follow the aggregator's, dpt_layers are
        the quarter points of ``depth``, dpt_out_channels are 1, 2, 4 and 4 times dpt_features.

        A missing or an unknown key, or a size that does not fit, is answered in one sentence (ValueError).
        """
        allowed = {field.name for field in fields(cls)}
        if missing := [name for name in REQUIRED if name not in config]:
            raise ValueError(
                f'The reconstruction config lacks {", ".join(missing)}; it has {", ".join(sorted(config)) or "nothing"}.'
            )
        if unknown := sorted(set(config) - allowed):
            raise ValueError(
                f'The reconstruction config has unknown keys {", ".join(unknown)}; allowed: {", ".join(sorted(allowed))}.'
            )
        depth, features = config['depth'], config.get('dpt_features', cls.dpt_features)
        derived = {
            'patch_embed_depth': depth,
            'patch_embed_heads': config['num_heads'],
            'camera_heads': config['num_heads'],
            'dpt_layers': tuple(max(depth * k // 4 - 1, 0) for k in (1, 2, 3, 4)),
            'dpt_out_channels': (features, 2 * features, 4 * features, 4 * features),
        }
        return cls(**(derived | config))

    def to_dict(self) -> dict:
        """Every setting, ready for JSON; ``from_dict`` takes it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def _check(self):
        def need(condition, sentence):
            if not condition:
                raise ValueError(sentence)

        need(
            self.embed_dim % self.num_heads == 0 and self.embed_dim // self.num_heads % 4 == 0,
            f'embed_dim {self.embed_dim} / num_heads {self.num_heads} must be a multiple of 4 for the rotary embedding.',
        )
        need(
            self.embed_dim % self.patch_embed_heads == 0,
            f'embed_dim {self.embed_dim} must be a multiple of patch_embed_heads {self.patch_embed_heads}.',
        )
        need(
            2 * self.embed_dim % self.camera_heads == 0,
            f'2 * embed_dim {2 * self.embed_dim} must be a multiple of camera_heads {self.camera_heads}.',
        )
        need(
            self.patch_stem in ('linear', 'convolutional'),
            f"patch_stem is {self.patch_stem!r}; it must be 'linear' or 'convolutional'.",
        )
        need(
            self.patch_stem == 'linear' or self.patch_size & (self.patch_size - 1) == 0,
            f'patch_size {self.patch_size} must be a power of 2 for a convolutional patch_stem.',
        )
        need(self.img_size >= self.patch_size, f'img_size {self.img_size} is below patch_size {self.patch_size}.')
        need(
            len(self.dpt_layers) == 4 and all(0 <= i < self.depth for i in self.dpt_layers),
            f'dpt_layers is {list(self.dpt_layers)}; it must be four layers in 0..{self.depth - 1}.',
        )
        need(
            len(self.dpt_out_channels) == 4 and all(c % 4 == 0 for c in self.dpt_out_channels),
            f'dpt_out_channels is {list(self.dpt_out_channels)}; it must be four multiples of 4.',
        )
        need(self.dpt_features % 8 == 0, f'dpt_features {self.dpt_features} must be a multiple of 8.')
        need(self.track_features % 4 == 0, f'track_features {self.track_features} must be a multiple of 4.')
        need(self.track_hidden % 8 == 0, f'track_hidden {self.track_hidden} must be a multiple of 8 (heads).')
        known = HEADS + OWN_HEADS
        need(set(self.heads) <= set(known), f'heads is {list(self.heads)}; each must be one of {", ".join(known)}.')
        need(
            'wrist' not in self.heads or self.embed_dim % 4 == 0,
            f'embed_dim {self.embed_dim} must be a multiple of 4 for the wrist head (8 heads on 2 * embed_dim).',
        )


def input_size(image_hw: tuple[int, int], width: int, patch: int = 14) -> tuple[int, int]:
    """(height, width) stage 1 runs at: `width`, and the height that keeps the aspect, in whole patches (paper 2.1)."""
    height = round(width * image_hw[0] / image_hw[1] / patch) * patch
    return max(height, patch), width
