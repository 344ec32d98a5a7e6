"""What SPC is worth in a miniature: `python -m wristworld_ros.training.stage1.study runs/train runs/held_out runs/spc`.

The published recipe (`wristworld train reconstruction`, of the real Franka set) on the small model: its pretrained trunk,
cameras and depth stay as they are, and the wrist head is trained by Spatial Projection Consistency, by the direct L1 on the
wrist pose ("w/o SPC"), by that without its preference for one sign of the quaternion, and by both, with several seeds each, all
for the same steps. Measured on held-out episodes, on the simulator's own matches: how far the model's own points, seen by the
predicted wrist camera, fall from the wrist pixels that show them, which is what a condition map depends on; the same of the
simulator's points; and the error of the pose itself. What was finished is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wristworld_ros.evaluation.table import markdown
from wristworld_ros.geometry import decode_pose, pose_error, shift_principal_point, to_homogeneous, unproject_depth
from wristworld_ros.input_files import json_text
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.pipeline.model_directory import find_model
from wristworld_ros.runtime.files import write_text
from wristworld_ros.training.checkpoint import read_tensors, write_weights
from wristworld_ros.training.config_reading import changed
from wristworld_ros.training.config_stage1 import ReconstructionConfig
from wristworld_ros.training.presets import presets
from wristworld_ros.training.schedules import trainer_config
from wristworld_ros.training.stage1.matches import TruthMatcher, prepare_matches
from wristworld_ros.training.stage1.published import (
    build,
    load,
    model_points,
    published_losses,
    reprojection_distances,
)
from wristworld_ros.training.stage1.scenes import Scene, SceneBatches, Scenes, collate_scenes
from wristworld_ros.training.trainer import Step, train

VARIANTS = {'spc': 'SPC', 'direct': 'w/o SPC', 'direct_nearest': 'w/o SPC, quaternions of either sign', 'both': 'both'}
HEADS = (
    'wrist pose by',
    'own points, median px',
    'mean px',
    "the simulator's points, median px",
    'rotation, degrees',
    'position, cm',
)
MEASURES = ('own_px', 'own_mean_px', 'true_px', 'degrees', 'cm')  # of `Figures`
_BATCH = 16


@dataclass(frozen=True)
class Figures:
    """Over held-out matches and scenes. own_px, own_mean_px: median and mean of the model's own points, pixels. true_px: median of the
    simulator's. degrees, cm: medians of the pose's errors."""

    own_px: float
    own_mean_px: float
    true_px: float
    degrees: float
    cm: float


def configuration(
    pose: str, seed: int, weights: Path, steps: int, rate: float, batch: int, front: float = 30.0
) -> ReconstructionConfig:
    """The published recipe of the real Franka set, which trains the wrist head alone, for the small model and the simulator's matches."""
    return changed(
        presets()['franka', 'reconstruction'],
        model={'network': 'sim_tiny', 'weights': str(weights), 'wrist_rate': rate},
        data={'width': 128, 'anchors': 2}, losses={'pose': pose, 'matches': 'truth', 'front': front},
        schedule={'minutes': None, 'steps': steps, 'batch': batch, 'accumulate': 1, 'learning_rate': rate, 'precision': 'float32', 'seed': seed,
                  'checkpoint_every': steps, 'keep': 1, 'samples_every': None, 'tensorboard': False, 'workers': 0},
    )  # fmt: skip


def headless_weights(model: str, folder: Path) -> Path:
    """The weights of a model's stage 1 without those of its wrist head, which so begins at random; returns their file."""
    weights = read_tensors(find_model(model) / 'stage1.safetensors')
    path = folder / 'start.safetensors'
    write_weights(path, {name: tensor for name, tensor in weights.items() if not name.startswith('wrist_head.')})
    return path


class _TruePose(nn.Module):
    """In place of a wrist head: it knows the poses of all scenes, in their order."""

    def __init__(self, poses: Tensor):
        super().__init__()
        self.embed_pose, self._poses, self._place = nn.Linear(1, 1), poses, 0

    def forward(self, tokens: Tensor) -> Tensor:
        """[1, B, 1, 9] of the next B scenes."""
        first, self._place = self._place, self._place + len(tokens)
        return self._poses[None, first : self._place, None]


class HeldOut:
    """Held-out scenes with the simulator's matches.

    Args:
        path: Folder of simulated episodes.
        config: How scenes are read.
        patch: Of the network, pixels.
    """

    def __init__(self, path: Path, config: ReconstructionConfig, patch: int):
        scenes, matcher = Scenes(path, config.data, patch), TruthMatcher(config.losses)
        self._scenes = [scenes[i] for i in range(len(scenes))]
        self._matches = [matcher(scene) for scene in self._scenes]

    def best(self, module: ReconstructionModel) -> Figures:
        """What the true poses give with the network's points: the error that no wrist head can undo but by errors of its own."""
        head, module.wrist_head = module.wrist_head, _TruePose(torch.stack([s.wrist_pose for s in self._scenes]))
        found, module.wrist_head = self.figures(module), head
        return found

    @torch.no_grad()
    def figures(self, module: ReconstructionModel) -> Figures:
        """What a network predicts of them."""
        module.eval()
        own, true, degrees, metres = [], [], [], []
        for first in range(0, len(self._scenes), _BATCH):
            scenes, matches = self._scenes[first : first + _BATCH], self._matches[first : first + _BATCH]
            batch = collate_scenes(scenes, matches)
            out, hw = module(batch['images'], heads=['wrist', 'camera', 'depth']), tuple(batch['images'].shape[-2:])
            pose = out.wrist_pose_enc[-1, :, 0]
            own.append(reprojection_distances(model_points(module, out, hw), pose, batch['wrist_K'], matches, hw))
            points = torch.stack([_true_points(scene, hw) for scene in scenes])
            true.append(reprojection_distances(points, pose, batch['wrist_K'], matches, hw))
            guess, wanted = (to_homogeneous(decode_pose(p, hw)[0]) for p in (pose, batch['wrist_pose']))
            found = pose_error(guess, wanted)
            degrees.append(found[0])
            metres.append(found[1])
        medians = [float(torch.cat(values).median()) for values in (own, true, degrees, metres)]
        return Figures(medians[0], float(torch.cat(own).mean()), *medians[1:3], 100 * medians[3])


def _true_points(scene: Scene, hw: tuple[int, int]) -> torch.Tensor:
    T, K = decode_pose(scene.cameras, hw)
    return unproject_depth(scene.depth, shift_principal_point(K, -0.5), T)


class Remembered(nn.Module):
    """A frozen network that computes what belongs to a scene once: its results are kept under the bytes of what it is given.

    Args:
        network: (items [N, ...] or a list of such, anything) -> [N, ...], or a dictionary of such.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self._kept = network, {}
        if hasattr(network, 'norm'):
            self.norm = network.norm  # whose dtype its user asks for

    @torch.no_grad()
    def forward(self, items: Tensor | list[Tensor], *others: Any) -> Any:
        """network(items, *others)."""
        first = items if isinstance(items, Tensor) else items[-1]
        keys = [(hashlib.sha256(row.numpy()).hexdigest(), str(others)) for row in first.contiguous()]
        if new := [i for i, key in enumerate(keys) if key not in self._kept]:
            chosen = items[new] if isinstance(items, Tensor) else [x[new] for x in items]
            made = self.network(chosen, *others)
            for place, i in enumerate(new):
                self._kept[keys[i]] = {n: x[place] for n, x in made.items()} if isinstance(made, dict) else made[place]
        found = [self._kept[key] for key in keys]
        return (
            {n: torch.stack([x[n] for x in found]) for n in found[0]}
            if isinstance(found[0], dict)
            else torch.stack(found)
        )


def run(episodes: Path, held: HeldOut, folder: Path, config: ReconstructionConfig) -> tuple[Figures, Figures]:
    """Figures before and after one training, which is skipped where it was finished."""
    path = folder / 'figures.json'
    if not path.exists():
        torch.manual_seed(config.schedule.seed)
        module = build(config)
        load(module, config.model.weights)
        before = held.figures(module)
        scenes, matches = Scenes(episodes, config.data, module.config.patch_size), folder.parent / 'matches'
        key = prepare_matches(scenes, TruthMatcher(config.losses), matches)
        batches = SceneBatches(scenes, matches, key, config.schedule.batch, config.schedule.seed, 0, 1)
        for name in ('aggregator', 'depth_head'):  # the costly ones of what is frozen
            setattr(module, name, Remembered(getattr(module, name)))

        def losses(module: ReconstructionModel, batch: dict, step: Step) -> dict[str, Tensor]:
            return published_losses(module, batch, config.losses, 'cpu')

        trained = train(module, batches, losses, trainer_config(config), folder, seed=config.schedule.seed, workers=0)
        after = held.figures(trained)
        write_text(path, json_text({'before': asdict(before), 'after': asdict(after)}, indent=2))
    read = json.loads(path.read_text())
    return Figures(**read['before']), Figures(**read['after'])


def table(results: dict[str, Sequence[tuple[Figures, Figures]]], best: Figures) -> str:
    """Markdown: before and after training by each variant, means ± standard errors over seeds, what SPC gains, paired by seed, and the
    true pose."""

    def row(name: str, figures: Sequence[Figures]) -> list[str]:
        return [name, *(_spread([getattr(f, measure) for f in figures]) for measure in MEASURES)]

    first = next(iter(results.values()))
    rows = [row('before', [before for before, _ in first])]
    rows.append(row('the true pose', [best]))
    rows += [row(VARIANTS[pose], [after for _, after in pairs]) for pose, pairs in results.items()]
    for pose, other in results.items():
        if pose != 'spc' and 'spc' in results:
            pairs = list(zip(results['spc'], other, strict=True))
            gains = [_spread([getattr(s, m) - getattr(d, m) for (_, s), (_, d) in pairs], '+') for m in MEASURES]
            rows.append([f'SPC less {VARIANTS[pose]}, paired', *gains])
    return markdown(HEADS, rows)


def _spread(values: Sequence[float], sign: str = '') -> str:
    error = f' ± {np.std(values, ddof=1) / len(values) ** 0.5:.2f}' if len(values) > 1 else ''
    return f'{np.mean(values):{sign}.2f}{error}'


def main(argv: list[str] | None = None) -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(prog='python -m wristworld_ros.training.stage1.study', description=__doc__)
    parser.add_argument('train', type=Path, help='Folder of simulated episodes to train on.')
    parser.add_argument('held_out', type=Path, help='Folder of others.')
    parser.add_argument('out', type=Path, help='Folder of the runs.')
    parser.add_argument('--model', default='sim_tiny', help='Model whose stage 1 stands in for VGGT.')
    parser.add_argument(
        '--new-head', action='store_true', help="Begin with a random wrist head instead of the model's own."
    )
    parser.add_argument('--seeds', type=int, nargs='*', default=[0, 1, 2])
    parser.add_argument('--steps', type=int, default=300)
    parser.add_argument('--rate', type=float, default=3e-4, help='Learning rate of the wrist head.')
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--front', type=float, default=30.0, help='Weight of SPC, as published by default.')
    parser.add_argument('--poses', nargs='*', default=list(VARIANTS), choices=list(VARIANTS))
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    weights = headless_weights(args.model, args.out) if args.new_head else find_model(args.model) / 'stage1.safetensors'

    def config(pose: str, seed: int) -> ReconstructionConfig:
        return configuration(pose, seed, weights, args.steps, args.rate, args.batch, args.front)

    start = build(config('spc', 0))
    load(start, str(weights))
    held = HeldOut(args.held_out, config('spc', 0), start.config.patch_size)
    best = held.best(start)
    results = {
        pose: [run(args.train, held, args.out / f'{pose}-{"new" if args.new_head else "own"}-{args.front:g}-{args.steps}-{args.rate:g}-{seed}', config(pose, seed)) for seed in args.seeds]
        for pose in args.poses
    }  # fmt: skip
    print(f'\n{table(results, best)}')


if __name__ == '__main__':
    main()
