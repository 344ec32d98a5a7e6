"""The reconstruction model: anchor images to cameras, the wrist camera, depth, world points and tracks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wristworld_ros.geometry import decode_pose, shift_principal_point, unproject_depth
from wristworld_ros.models.vggt.aggregator import Aggregator
from wristworld_ros.models.vggt.config import HEADS, ReconstructionConfig
from wristworld_ros.models.vggt.dense_head import DenseHead, depth_and_confidence, points_and_confidence
from wristworld_ros.models.vggt.init import initialise
from wristworld_ros.models.vggt.pose_heads import CameraHead, WristHead
from wristworld_ros.models.vggt.scene_coordinates import SceneCoordinateHead
from wristworld_ros.models.vggt.track_head import TrackHead

_MODULES = dict(zip(HEADS, ('camera_head', 'wrist_head', 'depth_head', 'point_head', 'track_head'), strict=True))
_LAST_LAYER = {'camera', 'wrist', 'scene_coordinates'}  # heads that read the last layer's tokens
_VIEWS_AT_A_TIME = 8  # dense heads hold large maps; without gradient they take this many views at once


@dataclass(frozen=True)
class ReconstructionOutput:
    """What one forward pass says; a field is None where its head did not run.

    World and units: the first view's camera, metres (model scale), radians. B sets of V views of H x W pixels.
    last_tokens: [B, V, P, 2C], P = 5 + patches. Pose encodings (see ``geometry.decode_pose``) of the 4 rounds, last is
    best: camera_pose_enc [4, B, V, 9], wrist_pose_enc [4, B, 1, 9].
    depth: [B, V, H, W, 1], camera z. world_points: [B, V, H, W, 3]. depth_conf, world_points_conf: [B, V, H, W], >= 1.
    places: [B, V, patches, 6], see `SceneCoordinateHead`; not part of the published system.
    track: [I, B, V, N, 2] (x, y) pixels of every round; track_vis, track_conf: [B, V, N] in 0..1.
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
    """VGGT with a wrist head, at any size (paper sheet 2.1 and 2.2). State-dict names are the public checkpoints'."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__()
        self.config = config
        dim, sizes = 2 * config.embed_dim, (config.dpt_features, config.dpt_out_channels, config.patch_size)
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
        """A model with fresh weights. config: the fields of ``ReconstructionConfig``; ValueError when one is wrong."""
        return cls(ReconstructionConfig.from_dict(config))

    def forward(
        self, images: Tensor, query_points: Tensor | None = None, heads: Iterable[str] | None = None
    ) -> ReconstructionOutput:
        """Run the asked heads, and of the aggregator only the layers that they read.

        images: float [B, V, 3, H, W] in [0, 1], RGB; H and W multiples of the patch size; V from 1 up, the first view
        is the world. query_points: [B, N, 2] as (x, y), pixels of the first view; tracks are made only when given.
        heads: any of 'camera', 'wrist', 'depth', 'points', 'track', 'scene_coordinates'; default: all that the model has.
        Heads run in their own parameters' precision (float32) whatever the autocast state or the trunk's dtype.
        Raises ValueError in one sentence for a wrong shape, dtype, or head.
        """
        heads = self._heads(heads, query_points)
        self._check(images, query_points)
        layers = self._layers(heads)
        tokens = self.aggregator(images, layers)
        result = {'last_tokens': tokens.get(self.config.depth - 1)}
        device = images.device.type
        with torch.autocast(device, enabled=torch.is_autocast_enabled(device) and not self.config.float32_heads):
            if _LAST_LAYER & heads:
                last = tokens[self.config.depth - 1]
                if 'camera' in heads:
                    result['camera_pose_enc'] = self.camera_head(last.to(self.camera_head.embed_pose.weight.dtype))
                if 'wrist' in heads:
                    result['wrist_pose_enc'] = self.wrist_head(last.to(self.wrist_head.embed_pose.weight.dtype))
                if 'scene_coordinates' in heads:
                    result['scene_coordinates'] = self.scene_coordinate_head(last.to(self.scene_coordinate_head.linear.weight.dtype)).float()
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
    def allows_low_precision(name: str) -> bool:
        """Whether a parameter may be held in bfloat16: the aggregator's; heads stay float32, as published."""
        return name.startswith('aggregator.')

    def _heads(self, heads, query_points) -> set[str]:
        built = set(self.config.heads)
        if heads is None:
            return built if query_points is not None else built - {'track'}
        heads = {heads} if isinstance(heads, str) else set(heads)
        if not heads or not heads <= built:
            raise ValueError(f'heads is {sorted(heads)}; this model has {", ".join(self.config.heads)}.')
        if heads == {'track'} and query_points is None:
            raise ValueError('heads asks for tracks alone, which need query_points [B, N, 2]; give them.')
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
                f'images is {images.shape[-2]} x {images.shape[-1]} pixels in {images.shape[1]} views; height and width '
                f'must be multiples of {patch} and there must be at least one view.'
            )
        if query_points is not None and (query_points.ndim != 3 or query_points.shape[::2] != (len(images), 2)):
            raise ValueError(f'query_points is {list(query_points.shape)}; it must be [{len(images)}, N, 2] as (x, y).')


def own_points(out: ReconstructionOutput, image_hw: tuple[int, int]) -> Tensor:
    """The model's depth unprojected through its own cameras: [B, V, H, W, 3], metres, in the first view's frame."""
    T, K = decode_pose(out.camera_pose_enc[-1], image_hw)
    return unproject_depth(out.depth[..., 0], shift_principal_point(K, -0.5), T)  # edge to the first pixel's centre
