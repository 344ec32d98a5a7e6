"""Stage 1 trained as published (`wristworld train reconstruction`): the wrist head learns from pixels that show the same point.

Everything else of a pretrained network is frozen, but the camera head where the anchors' cameras are known (arXiv 2510.07313).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.data.episode import DataSet
from wristworld_ros.errors import UserError
from wristworld_ros.geometry import condition_map, decode_pose, intrinsics_to_fov
from wristworld_ros.input_files import json_text
from wristworld_ros.models.vggt import (
    SIM_TINY,
    VGGT_1B,
    Matches,
    ReconstructionConfig,
    ReconstructionModel,
    ReconstructionOutput,
    camera_loss,
    fov_loss,
    load_public_weights,
    own_points,
    spc_loss,
)
from wristworld_ros.models.vggt.config import MINIATURE, SIM_BASE
from wristworld_ros.models.vggt.losses import sample_points
from wristworld_ros.runtime.files import write_text
from wristworld_ros.training.checkpoint import read_tensors
from wristworld_ros.training.config_reading import as_content
from wristworld_ros.training.config_stage1 import ReconstructionConfig as Configuration
from wristworld_ros.training.config_stage1 import SpcLosses
from wristworld_ros.training.parallel import join, process_count, rank
from wristworld_ros.training.part import train_part
from wristworld_ros.training.schedules import trainer_config
from wristworld_ros.training.stage1.matches import make_matcher, prepare_matches
from wristworld_ros.training.stage1.scenes import SceneBatches, Scenes, collate_scenes, matches_path, read_matches
from wristworld_ros.training.trainer import Step, TrainerConfig

NETWORKS: dict[str, dict[str, Any]] = {
    'vggt_1b': VGGT_1B, 'sim_base': SIM_BASE, 'sim_tiny': SIM_TINY, 'miniature': MINIATURE
}  # fmt: skip
_STAGE1 = 'stage1.safetensors'


def build(config: Configuration) -> ReconstructionModel:
    """The network, without weights of its own yet, with the parameters frozen that the configuration does not train."""
    network = NETWORKS[config.model.network] | {'gradient_checkpointing': config.schedule.gradient_checkpointing}
    module = ReconstructionModel(ReconstructionConfig.from_dict(network))
    return freeze(module, config.model.train)


def freeze(module: ReconstructionModel, heads: list[str]) -> ReconstructionModel:
    """Leave only some heads to train; ['all'] leaves everything.

    Raises:
        UserError: The network has no such head.
    """
    if heads == ['all']:
        return module
    module.requires_grad_(False)
    for head in heads:
        name = 'point_head' if head == 'points' else f'{head}_head'
        if not hasattr(module, name):
            raise UserError(
                f'model.train names {head}, and the network has {", ".join(module.config.heads)}', 'leave it out'
            )
        getattr(module, name).requires_grad_(True)
    return module


def load(module: ReconstructionModel, weights: str | None) -> None:
    """Begin with public weights, a converted model directory, or a run of this stage; a wrist head that is missing stays random."""
    if weights is not None:
        path = Path(weights)
        load_public_weights(module, read_tensors(path / _STAGE1 if (path / _STAGE1).exists() else path), weights)


def model_points(module: ReconstructionModel, out: ReconstructionOutput, hw: tuple[int, int]) -> Tensor:
    """World points of every anchor pixel, [B, V, H, W, 3]: of the point head, as published, or depth through its own cameras."""
    return (own_points(out, hw) if out.world_points is None else out.world_points).detach()


def published_losses(
    module: ReconstructionModel, batch: dict[str, Any], losses: SpcLosses, device: str
) -> dict[str, Tensor]:
    """Terms by name, "total", and the pixel error of the wrist pose for the log.

    Args:
        module: With a wrist head.
        batch: Of `collate_scenes`.
        losses: Weights.
        device: Where to compute.
    """
    images = batch['images'].to(device)
    points_head = 'points' if 'points' in module.config.heads else 'depth'
    heads = ['wrist', *(['camera'] if losses.cameras or points_head == 'depth' else [])]
    heads += [points_head] if any(m is not None for m in batch['matches']) else []
    out = module(images, heads=heads)
    with torch.autocast(device, enabled=False):
        hw = tuple(images.shape[-2:])
        K = batch['wrist_K'].to(device)
        terms = {'fov': fov_loss(out.wrist_pose_enc, intrinsics_to_fov(K, hw), weight=losses.wrist_fov)}
        if losses.cameras:
            target = batch['cameras'].to(device)
            terms['cameras'] = camera_loss(out.camera_pose_enc, target, weight=losses.cameras)
        if points_head in heads:
            points = model_points(module, out, hw)
            terms['spc'] = torch.stack(
                [_scene_spc(points[i : i + 1], out.wrist_pose_enc[-1, i : i + 1], K[i : i + 1], m, losses, hw)
                 for i, m in enumerate(batch['matches'])]
            ).mean()  # fmt: skip
            pixels = reprojection_pixels(points, out.wrist_pose_enc[-1, :, 0], K, batch['matches'], hw)
        if losses.pose != 'spc':
            target = batch['wrist_pose'].to(device)[:, None]
            if losses.pose != 'direct':
                target = _nearest_sign(target, out.wrist_pose_enc[-1].detach())
            terms['direct'] = camera_loss(out.wrist_pose_enc, target, weight=losses.direct)
            if losses.pose != 'both':
                terms.pop('spc', None)
    shown = {'spc_px': pixels} if points_head in heads else {}
    return {'total': torch.stack(list(terms.values())).sum()} | terms | shown


def _nearest_sign(target: Tensor, predicted: Tensor) -> Tensor:
    """Encodings [B, 1, 9] whose quaternions have the sign nearer to the predicted ones."""
    opposite = (target[..., 3:7] * predicted[..., 3:7]).sum(-1, keepdim=True) < 0
    quaternion = torch.where(opposite, -target[..., 3:7], target[..., 3:7])
    return torch.cat([target[..., :3], quaternion, target[..., 7:]], -1)


def _scene_spc(points, pose, K, matches: Matches, losses: SpcLosses, hw: tuple[int, int]) -> Tensor:
    m = {name: value.to(points.device) for name, value in vars(matches).items()}
    return spc_loss(
        points, pose, K, m['wrist_uv'], m['anchor_uv'], m['anchor_view'], m['confidence'], image_hw=hw, uv_weight=losses.front,
        behind_weight=losses.behind, confidence_threshold=losses.match_confidence,
    )  # fmt: skip


@torch.no_grad()
def reprojection_pixels(points: Tensor, pose: Tensor, K: Tensor, matches: list[Matches], hw: tuple[int, int]) -> Tensor:
    """The median of `reprojection_distances`, pixels."""
    every = reprojection_distances(points, pose, K, matches, hw)
    return every.median() if len(every) else every.new_tensor(float('nan'))


@torch.no_grad()
def reprojection_distances(
    points: Tensor, pose: Tensor, K: Tensor, matches: list[Matches], hw: tuple[int, int]
) -> Tensor:
    """How far matched points, seen by a wrist camera, fall from where they belong.

    Args:
        points: Of every anchor pixel, [B, V, H, W, 3], first anchor's frame.
        pose: Encoding of the wrist camera, [B, 9].
        K: [B, 3, 3], pixels.
        matches: Of each of the B scenes.
        hw: Height and width of the images.

    Returns:
        [M] of all scenes, pixels; points behind the camera and beyond an image diagonal count as one.
    """
    found = []
    T, _ = decode_pose(pose, hw)
    for i, m in enumerate(matches):
        X = sample_points(points[i], m.anchor_uv.to(points.device), m.anchor_view.to(points.device))
        camera = X @ T[i, :3, :3].mT + T[i, :3, 3]
        z = camera[:, 2:]
        uv = camera[:, :2] / z.clamp(min=1e-3) @ K[i, :2, :2].mT + K[i, :2, 2]
        error = (uv - m.wrist_uv.to(uv)).norm(dim=-1).clamp(max=float(np.hypot(*hw)))
        found.append(torch.where(z[:, 0] > 0, error, torch.full_like(error, float(np.hypot(*hw)))))
    return torch.cat(found)


@dataclass(frozen=True)
class PublishedTraining:
    """What `train_part` is told of a run."""

    config: TrainerConfig
    seed: int
    workers: int
    start: Path | None = None


def train_published(
    episodes: Path | DataSet,
    held_out: Path | DataSet | None,
    folder: Path,
    config: Configuration,
    start: Path | None,
    device: str,
    network: ReconstructionModel | None = None,
) -> ReconstructionModel:
    """Train the wrist head (and what else the configuration names) on recordings of any format.

    Leaves `folder/config.json`, `folder/model.safetensors` with all weights, and `folder/matches`.

    Args:
        episodes: Recordings to train on.
        held_out: Others to validate on; None for none.
        folder: Of the run, which continues where it was stopped.
        config: Checked already.
        start: In place of `config.model.weights`.
        device: cpu or cuda.
        network: With its weights, in place of the one that the configuration names; it is trained in place.

    Raises:
        UserError: The recordings lack what the losses need, weights do not fit, or training diverged.
    """
    schedule = config.schedule
    torch.manual_seed(schedule.seed)
    if network is None:
        module = build(config)
        load(module, str(start) if start else config.model.weights)
    else:
        module = freeze(network.requires_grad_(True), config.model.train)
    module.to(device)
    scenes = Scenes(episodes, config.data, module.config.patch_size)
    held = Scenes(held_out, config.data, module.config.patch_size) if held_out else None
    for part in filter(None, (scenes, held)):
        part.need_known(cameras=config.losses.cameras > 0, wrist=config.losses.pose != 'spc')
    needs_matches = config.losses.pose in ('spc', 'both')
    matches, key = folder / 'matches', ''
    place = join(device)
    if needs_matches or held is not None:
        matcher = make_matcher(config.losses, module, device)
        for part in (scenes if needs_matches else None, held):
            key = prepare_matches(part, matcher, matches, rank(), process_count()) if part is not None else key
    place.wait_for_everyone()
    if rank() == 0:
        write_text(folder / 'training.json', json_text(as_content(config), indent=2))

    def batches(_: ReconstructionModel) -> SceneBatches:
        return SceneBatches(
            scenes, matches if needs_matches else None, key, schedule.batch, schedule.seed, rank(), process_count()
        )  # fmt: skip

    def losses(module: ReconstructionModel, batch: dict, step: Step) -> dict[str, Tensor]:
        return published_losses(module, batch, config.losses, device)

    def figures(module: ReconstructionModel, batch: dict) -> dict[str, float]:
        return {name: float(value) for name, value in losses(module, batch, Step(0, 1.0)).items()}

    def picture(module: ReconstructionModel) -> np.ndarray:
        return sample_picture(module, scenes[0].images[None].to(device), scenes[0].wrist)

    network_config = asdict(module.config)
    run = PublishedTraining(trainer_config(config), schedule.seed, schedule.workers)
    return train_part(
        lambda: module, network_config, batches, losses, _held_out_batches(held, matches, key), figures, folder, run, device,
        picture,
    )  # fmt: skip


def sample_picture(module: ReconstructionModel, images: Tensor, wrist: Tensor) -> np.ndarray:
    """Wrist image, and beside it the anchors' points as the predicted wrist camera sees them, uint8 [H, 2 W, 3]."""
    module.eval()
    hw = tuple(images.shape[-2:])
    points_head = 'points' if 'points' in module.config.heads else 'depth'
    out = module(images, heads=['wrist', 'camera', points_head])
    points = model_points(module, out, hw)[0].flatten(0, 2)
    colors = (255 * images[0].permute(0, 2, 3, 1).flatten(0, 2)).round().to(torch.uint8)
    T, K = decode_pose(out.wrist_pose_enc[-1, 0, 0].float(), hw)
    seen, _ = condition_map(points.float(), colors, K, T, image_hw=hw)
    image = seen.cpu().numpy()
    true = (wrist.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return np.concatenate([true, image], axis=1)


def _held_out_batches(scenes: Scenes | None, matches: Path, key: str, most: int = 64, size: int = 8) -> list[dict]:
    """Batches of some held-out scenes, spread evenly."""
    if scenes is None:
        return []
    chosen = [scenes[int(i)] for i in np.linspace(0, len(scenes) - 1, min(most, len(scenes)))]
    pairs = [read_matches(matches_path(matches, scene, key)) for scene in chosen]
    return [collate_scenes(chosen[i : i + size], pairs[i : i + size]) for i in range(0, len(chosen), size)]
