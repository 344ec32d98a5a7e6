"""The reconstruction model: anchor images to cameras, the wrist camera, depth, world points and tracks.

VGGT (arXiv 2503.11651) with the wrist head of WristWorld (arXiv 2510.07313), at any size. Also here: the weights that a
model starts from, and loading a public checkpoint into it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wristworld_ros.geometry.cameras import decode_pose, shift_principal_point, unproject_depth
from wristworld_ros.models.state_dict import check_shapes
from wristworld_ros.models.vggt.aggregator import Aggregator
from wristworld_ros.models.vggt.config import ReconstructionConfig
from wristworld_ros.models.vggt.dense_head import DenseHead, depth_and_confidence, points_and_confidence
from wristworld_ros.models.vggt.layers import CrossAttention
from wristworld_ros.models.vggt.pose_heads import ROUNDS, CameraHead, PoseRefinement, WristHead
from wristworld_ros.models.vggt.scene_coordinates import SceneCoordinateHead
from wristworld_ros.models.vggt.track_head import TrackHead

log = logging.getLogger(__name__)

_LAST_LAYER = {'camera', 'wrist', 'scene_coordinates'}  # heads that read the last layer's tokens
_VIEWS_AT_A_TIME = 8  # dense heads hold large maps, so without gradient they take this many views at once


@dataclass(frozen=True)
class ReconstructionOutput:
    """What one forward pass gives; a field is None where its head did not run.

    B sets of V views of H x W pixels. The world is the first view's camera; metres (model scale), radians. Pose
    encodings are camera-from-world, see `geometry.decode_pose`; those of the last of the 4 rounds are the best.

    Attributes:
        last_tokens: [B, V, P, 2 * embed_dim], the last layer's; P = 5 + patches.
        camera_pose_enc: [4, B, V, 9], the views' cameras.
        wrist_pose_enc: [4, B, 1, 9], the wrist camera.
        depth: [B, V, H, W, 1], camera z.
        depth_conf: [B, V, H, W], at least 1.
        world_points: [B, V, H, W, 3].
        world_points_conf: [B, V, H, W], at least 1.
        track: [I, B, V, N, 2] as (x, y), pixels, every round's.
        track_vis: [B, V, N], visibility in 0..1.
        track_conf: [B, V, N], confidence in 0..1.
        scene_coordinates: [B, V, patches, 6], see `SceneCoordinateHead`; not part of the published system.
    """

    last_tokens: Tensor | None = None
    camera_pose_enc: Tensor | None = None
    wrist_pose_enc: Tensor | None = None
    depth: Tensor | None = None
    depth_conf: Tensor | None = None
    world_points: Tensor | None = None
    world_points_conf: Tensor | None = None
    track: Tensor | None = None
    track_vis: Tensor | None = None
    track_conf: Tensor | None = None
    scene_coordinates: Tensor | None = None


class ReconstructionModel(nn.Module):
    """VGGT with a wrist head. Parameters are named as in the public checkpoints."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__()
        self.config = config
        dim = 2 * config.embed_dim
        sizes = (config.dpt_features, config.dpt_out_channels, config.patch_size)
        self.aggregator = Aggregator(config)
        if 'camera' in config.heads:
            self.camera_head = CameraHead(config)
        if 'wrist' in config.heads:
            self.wrist_head = WristHead(config)
        if 'depth' in config.heads:
            self.depth_head = DenseHead(dim, *sizes, out_channels=2)
        if 'points' in config.heads:
            self.point_head = DenseHead(dim, *sizes, out_channels=4)
        if 'track' in config.heads:
            self.track_head = TrackHead(config)
        if 'scene_coordinates' in config.heads:
            self.scene_coordinate_head = SceneCoordinateHead(dim)
        initialise(self)

    @classmethod
    def from_config(cls, config: dict) -> ReconstructionModel:
        """A model with initial weights; config and errors as in `ReconstructionConfig.from_dict`."""
        return cls(ReconstructionConfig.from_dict(config))

    def forward(
        self, images: Tensor, query_points: Tensor | None = None, heads: Iterable[str] | None = None
    ) -> ReconstructionOutput:
        """Run the requested heads, and the aggregator up to the last layer that they read.

        The heads run in float32 under autocast, and whatever the aggregator is kept in, unless the configuration's
        ``float32_heads`` is false.

        Args:
            images: Float [B, V, 3, H, W] in [0, 1], RGB; H and W are multiples of the patch size, V is 1 or more.
            query_points: Float [B, N, 2] as (x, y), pixels of the first view; None leaves tracks out.
            heads: Some of the model's heads ('camera', 'wrist', 'depth', 'points', 'track', 'scene_coordinates'); None
                runs all that the model has.

        Raises:
            ValueError: A shape, dtype or head is wrong.
        """
        heads = self._heads(heads, query_points)
        self._check(images, query_points)
        layers = self._layers(heads)
        tokens = self.aggregator(images, layers)
        last = tokens.get(self.config.depth - 1)
        result = {'last_tokens': last}
        device = images.device.type
        with torch.autocast(device, enabled=torch.is_autocast_enabled(device) and not self.config.float32_heads):
            if 'camera' in heads:
                result['camera_pose_enc'] = self.camera_head(last.to(self.camera_head.embed_pose.weight.dtype))
            if 'wrist' in heads:
                result['wrist_pose_enc'] = self.wrist_head(last.to(self.wrist_head.embed_pose.weight.dtype))
            if 'scene_coordinates' in heads:
                dtype = self.scene_coordinate_head.linear.weight.dtype
                result['scene_coordinates'] = self.scene_coordinate_head(last.to(dtype)).float()
            if 'depth' in heads:
                raw = self._dense(self.depth_head, tokens, images.shape)
                result['depth'], result['depth_conf'] = depth_and_confidence(raw.float())
            if 'points' in heads:
                raw = self._dense(self.point_head, tokens, images.shape)
                result['world_points'], result['world_points_conf'] = points_and_confidence(raw.float())
            if 'track' in heads:
                features = self._dense(self.track_head.feature_extractor, tokens, images.shape)
                track = self.track_head.tracker(features, query_points)
                result['track'], result['track_vis'], result['track_conf'] = track
        return ReconstructionOutput(**result)

    @staticmethod
    def param_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
        """The dtype that a parameter of that name is kept in when big networks are kept in ``dtype``.

        The aggregator follows; the heads stay float32, as published.
        """
        return dtype if name.startswith('aggregator.') else torch.float32

    def _heads(self, heads, query_points) -> set[str]:
        built = set(self.config.heads)
        if heads is None:
            return built if query_points is not None else built - {'track'}
        heads = {heads} if isinstance(heads, str) else set(heads)
        if not heads or not heads <= built:
            raise ValueError(f'heads is {sorted(heads)}; this model has {", ".join(self.config.heads)}.')
        if heads == {'track'} and query_points is None:
            raise ValueError("heads is ['track'] and query_points is missing; give query_points [B, N, 2].")
        return heads if query_points is not None else heads - {'track'}

    def _layers(self, heads: set[str]) -> set[int]:
        last = {self.config.depth - 1}
        dense = bool({'depth', 'points', 'track'} & heads)
        if not heads or _LAST_LAYER & heads:
            return last | (set(self.config.dpt_layers) if dense else set())
        return set(self.config.dpt_layers)

    def _dense(self, head: DenseHead, tokens: dict[int, Tensor], shape: torch.Size) -> Tensor:
        """One dense head over all views: [B, V, channels, h, w]."""
        batch, views, _, height, width = shape
        dtype = head.norm.weight.dtype
        layers = [tokens[i].flatten(0, 1).to(dtype) for i in self.config.dpt_layers]
        count = batch * views
        step = count if torch.is_grad_enabled() else _VIEWS_AT_A_TIME
        parts = [head([x[i : i + step] for x in layers], (height, width)) for i in range(0, count, step)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).unflatten(0, (batch, views))

    def _check(self, images: Tensor, query_points: Tensor | None) -> None:
        patch = self.config.patch_size
        if images.ndim != 5 or images.shape[2] != 3 or not images.is_floating_point():
            raise ValueError(
                f'images is {images.dtype} {list(images.shape)}; it must be float [B, V, 3, H, W] in [0, 1].'
            )
        if min(images.shape) < 1 or images.shape[-2] % patch or images.shape[-1] % patch:
            raise ValueError(
                f'images is {images.shape[-2]} x {images.shape[-1]} pixels in {images.shape[1]} views; height and '
                f'width must be multiples of {patch} and there must be at least one view.'
            )
        if query_points is not None and (query_points.ndim != 3 or query_points.shape[::2] != (len(images), 2)):
            raise ValueError(f'query_points is {list(query_points.shape)}; it must be [{len(images)}, N, 2] as (x, y).')


def own_points(out: ReconstructionOutput, image_hw: tuple[int, int]) -> Tensor:
    """The model's depth, unprojected through the cameras that it predicts for its views.

    VGGT's authors find these points more accurate than the point head's.

    Args:
        out: With depth and camera_pose_enc.
        image_hw: Height and width of the images that the model was given, pixels.

    Returns:
        Float [B, V, H, W, 3], metres, in the first view's frame.
    """
    T, K = decode_pose(out.camera_pose_enc[-1], image_hw)
    # VGGT's pixel coordinates start at the image's edge, those of `unproject_depth` at the first pixel's centre.
    return unproject_depth(out.depth[..., 0], shift_principal_point(K, -0.5), T)


# Weights

_STD = 0.02
_TOKENS = {
    'camera_token',
    'register_token',
    'cls_token',
    'pos_embed',
    'register_tokens',
    'token_query',
    'query_ref_token',
    'virual_tracks',  # spelled so in the public checkpoint
}
_WRIST = 'wrist_head'
_PUBLIC_PARTS = {'aggregator', 'camera_head', _WRIST, 'depth_head', 'point_head', 'track_head'}


def initialise(model: nn.Module) -> None:
    """Give a model or a part of one its initial weights, in place; on the meta device nothing happens.

    Chosen so that a small model trains from scratch. Linear layers and tokens: normal with a deviation of 0.02,
    truncated at two deviations; biases are zero. Convolutions: torch's defaults. Dense heads end near zero: depth
    exp(0) = 1 m, points at the origin, confidence 2. Pose heads end near the identity rotation with fields of view of
    one radian after the last round, so that no quaternion starts at zero and no ReLU without gradient. LayerScale keeps
    what the configuration says.
    """
    if next(model.parameters()).is_meta:
        return
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=_STD)
            nn.init.zeros_(module.bias)
        elif isinstance(module, CrossAttention):
            nn.init.trunc_normal_(module.in_proj_weight, std=_STD)
    for name, parameter in model.named_parameters():
        if name.rsplit('.', 1)[-1] in _TOKENS:
            nn.init.trunc_normal_(parameter, std=_STD)
    for module in model.modules():
        if isinstance(module, DenseHead) and not module.keep_features:
            *_, weight, bias = module.scratch.output_conv2.parameters()
            nn.init.trunc_normal_(weight, std=1e-2)
            nn.init.zeros_(bias)
        elif isinstance(module, PoseRefinement):
            last = module.pose_branch.fc2
            nn.init.trunc_normal_(last.weight, std=2e-3)
            last.bias.data[6:] = 1.0 / ROUNDS  # w of the quaternion, both fields of view


def load_public_weights(
    model: ReconstructionModel, weights: Mapping[str, Tensor], source: str = 'The public weights'
) -> str:
    """Load a public checkpoint, with or without a wrist head, and say in one sentence what was loaded.

    VGGT's own file (1797 names) has no ``wrist_head.*``: the wrist head stays as it is, and the sentence, which is
    logged too, says so. Weights of heads that the model was built without are left out and counted. A model on the meta
    device takes the tensors uncopied, and gets an initialised wrist head if the file has none.

    Args:
        model: The model to fill.
        weights: Name -> tensor, under the public names.
        source: Where the weights come from, for the message.

    Returns:
        One sentence.

    Raises:
        UserError: A name is missing or unknown, or a shape is wrong; the model is unchanged then.
    """
    own = model.state_dict()
    absent = _PUBLIC_PARTS - {_part(name) for name in own}
    given = {name: tensor for name, tensor in weights.items() if _part(name) not in absent}
    without_wrist = _WRIST not in absent and not any(_part(name) == _WRIST for name in given)
    check_shapes({n: t for n, t in own.items() if not (without_wrist and _part(n) == _WRIST)}, given, source)
    on_meta = any(tensor.is_meta for tensor in own.values())
    if on_meta and without_wrist:
        model.wrist_head = WristHead(model.config).to(next(iter(given.values())).device)
        initialise(model.wrist_head)
    model.load_state_dict(given, strict=False, assign=on_meta)
    sentence = f'Loaded {len(given)} tensors'
    if left_out := len(weights) - len(given):
        sentence += f', left out {left_out} of heads that this model does not have'
    if without_wrist:
        sentence += '; the weights have no wrist_head.*, so the wrist head stays as it was'
    sentence += '.'
    (log.warning if without_wrist else log.info)(sentence)
    return sentence


def _part(name: str) -> str:
    return name.split('.', 1)[0]
