"""The configuration of a reconstruction model as ``config.json`` holds it, and the sizes of known models."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import Depth, Share, Size, convert

REQUIRED = ('img_size', 'embed_dim', 'depth', 'num_heads')
HEADS = ('camera', 'wrist', 'depth', 'points', 'track')
# Not in the published system; built only where a configuration names it.
OPTIONAL_HEADS = ('scene_coordinates',)


@dataclass(frozen=True)
class ReconstructionConfig:
    """Sizes of a VGGT-shaped model with a wrist head; `from_dict` derives most of them from a few.

    Attributes:
        img_size: Side of the square image whose position embedding is stored, pixels.
        embed_dim: Channels of the aggregator's tokens.
        depth: Frame blocks of the aggregator, and as many global blocks.
        num_heads: Attention heads of the aggregator.
        patch_embed_depth: Blocks of the DINOv2 patch embedding.
        patch_embed_heads: Attention heads of the patch embedding.
        camera_heads: Attention heads of the trunks of the camera head and of the wrist head.
        dpt_layers: The four aggregator layers that the dense heads read.
        dpt_out_channels: Channels of the four layers' maps in the dense heads.
        camera_trunk_depth: Blocks of the trunks of the camera head and of the wrist head.
        dpt_features: Channels inside the dense heads.
        track_features: Channels of the tracker's feature map.
        track_iters: Rounds of the tracker.
        track_corr_levels: Levels of its correlation pyramid.
        track_corr_radius: Radius of its correlation window, cells.
        track_hidden: Channels of its transformer.
        patch_size: Pixels.
        patch_stem: 'linear' as published, or 'convolutional', with which small models trained from scratch need far
            less data; the patch size is then a power of 2.
        layerscale_init: Initial value of every LayerScale.
        wrist_dropout: Dropout of the wrist head, in training only.
        heads: The heads that are built.
        float32_heads: Run the heads in float32 under autocast, as published; false lets autocast apply to them too
            (small models on a CPU).
        gradient_checkpointing: Recompute aggregator blocks in the backward pass, to save memory.
    """

    img_size: Size
    embed_dim: Size
    depth: Depth
    num_heads: Size
    patch_embed_depth: Depth
    patch_embed_heads: Size
    camera_heads: Size
    dpt_layers: tuple[Depth, ...]
    dpt_out_channels: tuple[Size, ...]
    camera_trunk_depth: Depth = 4
    dpt_features: Size = 256
    track_features: Size = 128
    track_iters: Depth = 4
    track_corr_levels: Depth = 7
    track_corr_radius: Depth = 4
    track_hidden: Size = 384
    patch_size: Size = 14
    patch_stem: str = 'linear'
    layerscale_init: float = 0.01
    wrist_dropout: Share = 0.1
    heads: tuple[str, ...] = HEADS
    float32_heads: bool = True
    gradient_checkpointing: bool = False

    def __post_init__(self):
        for name in ('dpt_layers', 'dpt_out_channels', 'heads'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check()

    @classmethod
    def from_dict(cls, config: dict) -> ReconstructionConfig:
        """The configuration that a dict describes.

        Args:
            config: Fields of this class. img_size, embed_dim, depth and num_heads are required; everything else has a
                default. Derived ones: the patch embedding has the aggregator's depth and heads, as has the camera trunk
                its heads; dpt_layers are the quarter points of ``depth``; dpt_out_channels are 1, 2, 4 and 4 times
                dpt_features.

        Raises:
            UserError: A key is missing or unknown, or a value has another type or is not allowed.
        """
        allowed = {field.name for field in fields(cls)}
        if missing := [name for name in REQUIRED if name not in config]:
            raise UserError(
                f'The reconstruction config lacks {", ".join(missing)}; it has {", ".join(sorted(config)) or "no key"}',
                f'give all of {", ".join(REQUIRED)}',
            )
        if unknown := sorted(set(config) - allowed):
            raise UserError(
                f'The reconstruction config has unknown keys {", ".join(unknown)}',
                f'remove them; allowed are {", ".join(sorted(allowed))}',
            )
        source = 'The reconstruction config'
        depth = convert(config['depth'], Depth, f'{source}, depth')
        features = convert(config.get('dpt_features', cls.dpt_features), Size, f'{source}, dpt_features')
        derived = {
            'patch_embed_depth': depth,
            'patch_embed_heads': config['num_heads'],
            'camera_heads': config['num_heads'],
            'dpt_layers': tuple(max(depth * k // 4 - 1, 0) for k in (1, 2, 3, 4)),
            'dpt_out_channels': (features, 2 * features, 4 * features, 4 * features),
        }
        return convert(derived | config, cls, source, 'correct it')

    def to_dict(self) -> dict:
        """Every field, ready for JSON; `from_dict` takes it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def _check(self) -> None:
        head_dim, rest = divmod(self.embed_dim, self.num_heads)
        last, known = self.depth - 1, HEADS + OPTIONAL_HEADS
        power_of_two = self.patch_size & (self.patch_size - 1) == 0
        _need(
            rest == 0 and head_dim % 4 == 0,
            f'embed_dim {self.embed_dim} / num_heads {self.num_heads}',
            'make the quotient a multiple of 4, which the rotary embedding needs',
        )
        self._need_multiple('embed_dim', self.patch_embed_heads, 'patch_embed_heads')
        _need(
            2 * self.embed_dim % self.camera_heads == 0,
            f'camera_heads {self.camera_heads} with embed_dim {self.embed_dim}',
            'make 2 * embed_dim a multiple of camera_heads',
        )
        _need(
            self.patch_stem in ('linear', 'convolutional'),
            f'patch_stem {self.patch_stem!r}',
            "give 'linear' or 'convolutional'",
        )
        _need(
            self.patch_stem == 'linear' or power_of_two,
            f'patch_size {self.patch_size} with a convolutional patch_stem',
            'make patch_size a power of 2',
        )
        _need(
            self.img_size >= self.patch_size,
            f'img_size {self.img_size} below patch_size {self.patch_size}',
            'make the image at least one patch',
        )
        _need(
            len(self.dpt_layers) == 4 and all(0 <= i <= last for i in self.dpt_layers),
            f'dpt_layers {list(self.dpt_layers)}',
            f'give four layers in 0..{last}',
        )
        _need(
            len(self.dpt_out_channels) == 4 and all(c % 4 == 0 for c in self.dpt_out_channels),
            f'dpt_out_channels {list(self.dpt_out_channels)}',
            'give four multiples of 4',
        )
        self._need_multiple('dpt_features', 8)
        self._need_multiple('track_features', 4)
        self._need_multiple('track_hidden', 8)  # attention heads of the tracker
        _need(set(self.heads) <= set(known), f'heads {list(self.heads)}', f'give some of {", ".join(known)}')
        if 'wrist' in self.heads:
            self._need_multiple('embed_dim', 4)  # the wrist head has 8 attention heads on 2 * embed_dim

    def _need_multiple(self, name: str, of: int, of_name: str = '') -> None:
        value = getattr(self, name)
        _need(
            value % of == 0,
            f'{name} {value}',
            f'make it a multiple of {f"{of_name}, which is {of}" if of_name else of}',
        )


def _need(condition: bool, what: str, fix: str) -> None:
    if not condition:
        raise UserError(f'The reconstruction config has {what}', fix)


def input_size(image_hw: tuple[int, int], width: int, patch: int = 14) -> tuple[int, int]:
    """The size stage 1 runs at: a given width, and the height in whole patches that keeps the aspect best.

    Args:
        image_hw: Height and width of the anchor images, pixels.
        width: Width that stage 1 runs at, pixels.
        patch: Patch size, pixels.

    Returns:
        Height and width, pixels.
    """
    height = round(width * image_hw[0] / image_hw[1] / patch) * patch
    return max(height, patch), width


# VGGT-1B with the wrist head: 1797 public tensors of 1256.5 M parameters, and about 367 M in ``wrist_head.*``.
VGGT_1B: dict[str, Any] = {
    'img_size': 518,
    'embed_dim': 1024,
    'depth': 24,
    'num_heads': 16,
    'patch_embed_depth': 24,
    'patch_embed_heads': 16,
    'camera_trunk_depth': 4,
    'camera_heads': 16,
    'dpt_layers': [4, 11, 17, 23],
    'dpt_features': 256,
    'dpt_out_channels': [256, 512, 1024, 1024],
    'track_features': 128,
    'track_iters': 4,
    'track_corr_levels': 7,
    'track_corr_radius': 4,
    'track_hidden': 384,
}

# VGGT's architecture at about a hundredth of its size, for the simulator; the wrist head's own layers are as published.
SIM_TINY: dict[str, Any] = {
    'img_size': 128,
    'patch_size': 16,
    'patch_stem': 'convolutional',
    'embed_dim': 128,
    'depth': 6,
    'num_heads': 4,
    'patch_embed_depth': 1,
    'patch_embed_heads': 4,
    'camera_trunk_depth': 1,
    'camera_heads': 4,
    'dpt_layers': [1, 2, 4, 5],
    'dpt_features': 32,
    'dpt_out_channels': [32, 48, 96, 96],
    'heads': ['camera', 'wrist', 'depth', 'scene_coordinates'],
    'layerscale_init': 0.3,
    'wrist_dropout': 0.0,
    'float32_heads': False,
}

# The same for 320x240 anchors, about 20 M parameters: for a GPU, with the recipe of the small one.
SIM_BASE: dict[str, Any] = SIM_TINY | {
    'img_size': 320,
    'embed_dim': 192,
    'depth': 10,
    'num_heads': 6,
    'patch_embed_depth': 2,
    'patch_embed_heads': 6,
    'camera_heads': 6,
    'dpt_layers': [2, 4, 7, 9],
    'dpt_features': 64,
    'dpt_out_channels': [64, 96, 192, 192],
}

# Every part of the published form, as small as it goes: what tests and first tries train.
MINIATURE: dict[str, Any] = {
    'img_size': 56,
    'embed_dim': 32,
    'depth': 4,
    'num_heads': 4,
    'patch_embed_depth': 1,
    'camera_trunk_depth': 1,
    'dpt_features': 16,
    'track_features': 16,
    'track_iters': 2,
    'track_corr_levels': 3,
    'track_hidden': 32,
    'layerscale_init': 0.3,
    'wrist_dropout': 0.0,
}
