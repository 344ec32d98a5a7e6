"""Pairs of a wrist pixel and the anchor pixel that shows the same point: from the model's own tracks, from a learned matcher, or from
the simulator. They are found once for each scene, and kept under its content."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from wristworld_ros.errors import UserError, require_package
from wristworld_ros.geometry import decode_pose, project, shift_principal_point, unproject_depth
from wristworld_ros.models.vggt import Matches, ReconstructionModel, matches_from_tracks, wrist_query_grid
from wristworld_ros.runtime.files import clear_leftovers, file_sha256, write_atomically
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.training.checkpoint import read_tensors
from wristworld_ros.training.config_stage1 import SpcLosses
from wristworld_ros.training.stage1.scenes import Scene, Scenes, matches_path


class Matcher(Protocol):
    """Finds matches of a scene."""

    def identity(self) -> str:
        """Changes with everything that its matches depend on, but the scene."""

    def __call__(self, scene: Scene) -> Matches:
        """The matches, on the CPU."""


class TrackMatcher:
    """The model's own track head on the views [wrist, anchor 1..V], without gradient, as published."""

    def __init__(self, model: ReconstructionModel, losses: SpcLosses, device: str):
        if 'track' not in model.config.heads:
            raise UserError(
                'losses.matches is track, and the network has no track head',
                'give truth, loftr, or a network that has one',
            )
        self._model, self._losses, self._device = model, losses, device

    def identity(self) -> str:
        """Of the weights that tracks depend on."""
        digest = hashlib.sha256(repr(asdict(self._losses)).encode())
        for name, tensor in self._model.state_dict().items():
            if name.startswith(('aggregator.', 'track_head.')):
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, scene: Scene) -> Matches:
        """As `matches_from_tracks`."""
        losses, was_training = self._losses, self._model.training
        self._model.eval()
        views = torch.cat([scene.wrist[None], scene.images])[None].to(self._device)
        queries = wrist_query_grid(views.shape[-2:], losses.grid, losses.margin, self._device)
        out = self._model(views, queries, heads=['track'])
        self._model.train(was_training)
        found = matches_from_tracks(
            out.track, out.track_vis, out.track_conf, confidence_threshold=losses.match_confidence,
            visibility_threshold=losses.match_visibility,
        )  # fmt: skip
        return Matches(**{name: value.cpu() for name, value in vars(found).items()})


class LoftrMatcher:
    """kornia's LoFTR between the wrist image and every anchor, with weights from this machine."""

    def __init__(self, weights: Path, losses: SpcLosses, device: str):
        require_package('kornia', 'train', 'Matching with LoFTR')
        from kornia.feature import LoFTR

        self._weights, self._losses, self._device = weights, losses, device
        self._network = LoFTR(pretrained=None).eval()
        try:
            self._network.load_state_dict(read_tensors(weights))
        except RuntimeError as error:
            raise UserError(
                f'{weights} does not hold the weights of LoFTR ({str(error).splitlines()[-1].strip()})',
                "give the matcher's own file",
            ) from None
        self._network.to(device)

    def identity(self) -> str:
        """Of the weights' file."""
        return file_sha256(self._weights) + repr(asdict(self._losses))

    @torch.no_grad()
    def __call__(self, scene: Scene) -> Matches:
        """Pairs above `match_confidence`, cut to the network's coarse grid (multiples of 8 pixels)."""
        height, width = (n // 8 * 8 for n in scene.wrist.shape[-2:])
        grey = [_grey(image)[None, :, :height, :width].to(self._device) for image in (scene.wrist, *scene.images)]
        found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for view, anchor in enumerate(grey[1:]):
            pairs = self._network({'image0': grey[0], 'image1': anchor})
            kept = pairs['confidence'] > self._losses.match_confidence
            uv = [pairs[name][kept].cpu().float() for name in ('keypoints0', 'keypoints1')]
            found.append((*uv, torch.full((int(kept.sum()),), view), pairs['confidence'][kept].cpu().float()))
        wrist_uv, anchor_uv, view, confidence = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Matches(wrist_uv, anchor_uv, view, confidence, torch.arange(len(view)))


class TruthMatcher:
    """Pixels that truly show the same point, by the simulator's depth and cameras; confidence 1.

    tolerance: largest difference of depths, as a share.
    """

    def __init__(self, losses: SpcLosses, tolerance: float = 0.03):
        self._losses, self._tolerance = losses, tolerance

    def identity(self) -> str:
        """Of the grid alone."""
        return f'{self._losses.grid} {self._losses.margin} {self._tolerance}'

    def __call__(self, scene: Scene) -> Matches:
        """Pairs of grid points.

        Raises:
            UserError: The scene has no depth or no cameras.
        """
        if scene.depth is None or scene.wrist_depth is None or not torch.isfinite(scene.wrist_pose).all():
            raise UserError(
                'losses.matches is truth, and the recordings have no depth or no camera poses', 'give track or loftr'
            )
        hw = scene.wrist.shape[-2:]
        T, K = decode_pose(scene.cameras, hw)
        T_wrist, _ = decode_pose(scene.wrist_pose, hw)
        K, wrist_K = shift_principal_point(K, -0.5), scene.wrist_K
        queries = wrist_query_grid(hw, self._losses.grid, min(self._losses.margin, min(hw) / 8))[0].round()
        world = unproject_depth(scene.wrist_depth[None], wrist_K[None], T_wrist[None])[0]
        column, row = queries.long().clamp(min=0).unbind(-1)
        row, column = row.clamp(max=hw[0] - 1), column.clamp(max=hw[1] - 1)
        points, depth = world[row, column], scene.wrist_depth[row, column]
        uv, z = project(points[None], K, T)
        limit = uv.new_tensor([hw[1] - 1, hw[0] - 1])
        inside = ((uv > 0) & (uv < limit)).all(-1) & (z > 0.05)
        pixel = uv.round().long().clamp_min(0).minimum(limit.long())
        found = scene.depth.flatten(1).gather(1, pixel[..., 1] * hw[1] + pixel[..., 0])
        seen = inside & ((found - z).abs() < self._tolerance * z) & (depth > 0.02)
        view, query = seen.nonzero(as_tuple=True)
        return Matches(queries[query], uv[view, query], view, torch.ones(len(view)), query)


def make_matcher(losses: SpcLosses, model: ReconstructionModel, device: str) -> Matcher:
    """The matcher that a configuration names; errors as in its class."""
    if losses.matches == 'truth':
        return TruthMatcher(losses)
    if losses.matches == 'loftr':
        return LoftrMatcher(Path(losses.matcher_weights or ''), losses, device)
    return TrackMatcher(model, losses, device)


def prepare_matches(scenes: Scenes, matcher: Matcher, folder: Path, process: int = 0, processes: int = 1) -> str:
    """Find the matches of this process's share of the scenes that have none yet; returns the key that they are kept under.

    Args:
        scenes: All of them.
        matcher: Finds them.
        folder: Where they go.
        process: Rank of this process.
        processes: How many share the work.

    Raises:
        UserError: Not one scene has a match.
    """
    key = hashlib.sha256(matcher.identity().encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    if process == 0:
        clear_leftovers(folder)
    share, count, made = range(process, len(scenes), processes), 0, 0
    for number in ProgressBar(share, desc='matches', unit='scene', mininterval=5, disable=process > 0):
        scene = scenes[number]
        path = matches_path(folder, scene, key)
        if not path.exists():
            matches = matcher(scene)
            made, count = made + 1, count + len(matches.wrist_uv)
            with write_atomically(path) as part:
                save_file({name: value.contiguous() for name, value in vars(matches).items()}, part)
    if made == len(share) and made and not count:
        raise UserError(
            f'No wrist pixel of {made} scenes was found in an anchor',
            'lower losses.match_confidence, or give another source of matches',
        )
    return key


def _grey(image: Tensor) -> Tensor:
    weights = image.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (image * weights).sum(0, keepdim=True)
