"""What reconstructs adapts where the recordings can teach it; a part is kept only if its condition maps are better on other episodes.

Of a model of the small form that are stage 1, hand network and plane sweep, and they learn from true depth and cameras: recordings
of which all cameras have both. Of the published form it is the wrist head, which learns from pixels that show the same point, as
the model's own track head finds them: recordings with the wrist camera's intrinsics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wristworld_ros.data.cache import cache_key
from wristworld_ros.data.episode import ChosenEpisodes
from wristworld_ros.data.packed import PackedEpisode, pack_recording
from wristworld_ros.data.real_clips import FOCAL
from wristworld_ros.evaluation import metrics
from wristworld_ros.evaluation.baselines import inpaint
from wristworld_ros.input_files import json_text, read_json
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.hand import HandNetwork
from wristworld_ros.models.sweep import SweepNetwork
from wristworld_ros.models.vggt import ReconstructionModel, input_size
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.runtime.files import file_sha256, write_text
from wristworld_ros.training.checkpoint import read_weights, weights_file, write_weights
from wristworld_ros.training.config_reading import changed, default_config
from wristworld_ros.training.config_stage1 import ReconstructionConfig
from wristworld_ros.training.finetune.recordings import Recording, Split
from wristworld_ros.training.finetune.settings import FinetuneSettings
from wristworld_ros.training.hand.train import HandTraining, train_hand
from wristworld_ros.training.stage1.data import Stage1Sampling
from wristworld_ros.training.stage1.published import train_published
from wristworld_ros.training.stage1.train import HEADS, Stage1Training, train_stage1
from wristworld_ros.training.sweep.train import SweepTraining, train_sweep
from wristworld_ros.training.trainer import TrainerConfig

STAGE1, HAND, SWEEP = 'stage1', 'hand', 'sweep'
_TITLES = {STAGE1: 'Stage 1', HAND: 'The hand network', SWEEP: 'The plane sweep'}
_ROOM = 21 / 16  # of packed anchors beyond what stage 1 takes: zoom and roll crop them
_MOST_FRAMES = 24  # of an episode, whose maps are compared


@dataclass(frozen=True)
class Verdict:
    """before, after: PSNR of the filled condition maps, dB. kept: whether the part is the adapted one."""

    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class AdaptedGeometry:
    """model: with the parts that were kept. sentences: what was done, for the card. key: changes with the parts that were kept."""

    model: WristModel
    sentences: list[str]
    key: str


def can_adapt_geometry(config: ModelConfig, split: Split) -> bool:
    """Whether any part can learn from these recordings; then the generator gets half of the time."""
    return bool(_parts(config, split))


def adapt_geometry(model: WristModel, split: Split, folder: Path, settings: FinetuneSettings, device: str) -> AdaptedGeometry:  # fmt: skip
    """Train what the recordings can teach, one part after the other, each on the ones before it.

    Args:
        model: To start from.
        split: Learnt from is `training`; `validation` says whether it helped.
        folder: Of the run; each part continues where it was stopped.
        settings: How long, and how fast.
        device: cpu or cuda.

    Raises:
        UserError: A recording cannot be decoded, or training diverged.
    """
    parts = _parts(model.config, split)
    if not parts:
        return AdaptedGeometry(model, [_why_not(model)], '')
    share = replace(settings, minutes=None if settings.minutes is None else settings.minutes / 2 / len(parts))
    train = _published_trainer(split, folder, share, device) if is_published(model.config) else _trainer(model, split, folder, share, device)  # fmt: skip
    sentences, keys = [], ''
    for part in parts:
        candidate = with_part(model, part, _trained(model, part, folder / part, train))
        verdict = _verdict(model, candidate, split.validation, folder / part / 'verdict.json')
        what = 'adapted' if verdict.kept else 'tried, and left as it was'
        sentences.append(
            f'{_TITLES[part]}: {what} (condition maps of the episodes that choose: {verdict.before:.2f} dB before, {verdict.after:.2f} after).'
        )
        if verdict.kept:
            model, keys = candidate, keys + file_sha256(weights_file(folder / part))
    return AdaptedGeometry(model, sentences, keys)


def with_part(model: WristModel, part: str, network: nn.Module) -> WristModel:
    """A model with one part replaced."""
    parts = {STAGE1: model.stage1, HAND: model.hand, SWEEP: model.sweep} | {part: network}
    return WristModel(
        model.config,
        parts[STAGE1],
        model.generator,
        str(model.device),
        model.autoencoder,
        parts[SWEEP],
        parts[HAND],
        model.prior,
    )


@torch.inference_mode()
def map_psnr(model: WristModel, recordings: Sequence[Recording]) -> float:
    """PSNR of filled condition maps against the true wrist images, at every level that is known, dB; episodes count alike."""
    found = []
    for recording in recordings:
        some = np.linspace(0, len(recording) - 1, min(_MOST_FRAMES, len(recording))).round().astype(int)
        truth = replace(recording, indices=recording.indices[np.unique(some)]).truth(model.config.wrist_hw)
        for level in recording.levels:
            step = ReconstructionStep(model)
            maps = [step(anchors).condition for anchors in recording.sets(truth, level)]
            filled = np.stack([inpaint(m.image.cpu().numpy(), m.depth.cpu().numpy()) for m in maps])
            found.append(float(metrics.psnr(filled, truth.wrist).mean()))
    return float(np.mean(found))


def _verdict(model: WristModel, candidate: WristModel, validation: Sequence[Recording], path: Path) -> Verdict:
    if path.exists():
        return read_json(path, Verdict)
    before, after = map_psnr(model, validation), map_psnr(candidate, validation)
    verdict = Verdict(before, after, after > before)
    write_text(path, json_text(vars(verdict)))
    return verdict


def is_published(config: ModelConfig) -> bool:
    """Whether a model's generator is of the published form, which predicts velocities."""
    return config.generator.get('prediction', 'velocity') == 'velocity'


def _parts(config: ModelConfig, split: Split) -> list[str]:
    """What of a model the recordings can teach."""
    if is_published(config):
        heads = config.stage1.get('heads', ())
        return [STAGE1] if {'wrist', 'track'} <= set(heads) and all(_has_wrist_fov(r) for r in split.adapt) else []
    if not all(_is_measured(recording) for recording in split.adapt):
        return []
    mounts = all(recording.episode.meta.get('T_hand_wrist') is not None for recording in split.adapt)
    there = {STAGE1: set(HEADS) <= set(config.stage1.get('heads', ())), HAND: bool(config.hand) and mounts, SWEEP: bool(config.sweep)}  # fmt: skip
    return [part for part, possible in there.items() if possible]


def _has_wrist_fov(recording: Recording) -> bool:
    return recording.robot is not None or recording.episode.K(recording.episode.names('wrist')[0]) is not None


def _is_measured(recording: Recording) -> bool:
    """Whether of every camera that is used depth, intrinsics and place are known."""
    episode = recording.episode
    return all(
        episode.camera(name).has_depth and episode.K(name) is not None and episode.T_camera_world(name) is not None
        for name in (*episode.anchors(), *episode.names('wrist'))
    )


def _why_not(model: WristModel) -> str:
    if is_published(model.config):
        return 'Stage 1 is as before: its wrist head learns where the model has a track head and the wrist intrinsics are known.'
    return (
        'Stage 1, hand network and plane sweep are as before: they learn from depth, intrinsics and places of all cameras, '
        'which these recordings do not have.'
    )


def _trained(model: WristModel, part: str, folder: Path, train: Callable[[WristModel, str, Path], nn.Module]) -> nn.Module:  # fmt: skip
    """The part, trained now or read back."""
    if not weights_file(folder).exists():
        train(model, part, folder)
    network = {
        STAGE1: lambda: ReconstructionModel.from_config(model.config.stage1),
        HAND: lambda: HandNetwork(model.hand.config),
        SWEEP: lambda: SweepNetwork(model.sweep.config),
    }[part]()
    read_weights(network, folder)
    return network.eval()


def _trainer(model: WristModel, split: Split, folder: Path, settings: FinetuneSettings, device: str):
    """A function of a model, one of its parts and a folder that trains that part of a model of the small form."""
    width, patch = model.config.anchor_width, model.stage1.config.patch_size
    entry = split.adapt[0].episode.camera(split.adapt[0].episode.anchors()[0])
    height = input_size((entry.height, entry.width), width, patch)[0]
    sweep_width = model.sweep.config.anchor_width if model.sweep is not None else width
    sizes = {
        STAGE1: (round(width * _ROOM), round(height * _ROOM)),
        HAND: (sweep_width, round(sweep_width * entry.height / entry.width / 2) * 2),
    }
    sizes[SWEEP] = sizes[HAND]
    config = TrainerConfig(
        steps=settings.step_count, minutes=settings.minutes, learning_rate=settings.learning_rate, warm_up=0, warm_up_share=0.05, average=0.98,
        bf16=False, checkpoint_every=100,
    )  # fmt: skip

    def packed(recordings: Sequence[Recording], size: tuple[int, int]) -> list[PackedEpisode]:
        found = []
        for r in recordings:
            key = cache_key(r.episode.path, content=r.content, size=size, wrist=model.config.wrist_hw)
            found.append(
                PackedEpisode(pack_recording(r.episode, folder / 'frames' / key, size, model.config.wrist_hw[::-1]))
            )
        return found

    def train(model: WristModel, part: str, to: Path) -> None:
        episodes, held_out = packed(split.training, sizes[part]), packed(split.validation, sizes[part])
        start = to / 'start.safetensors'
        write_weights(start, {STAGE1: model.stage1, HAND: model.hand, SWEEP: model.sweep}[part].state_dict())
        # Not in other processes, which are forked from one that has run both stages, threads and all.
        common = {'config': config, 'seed': settings.seed, 'start': start, 'workers': 0 if device == 'cpu' else 2}
        if part == STAGE1:
            sampling = Stage1Sampling(batch=8, size=(width, height), azimuth=180.0)
            train_stage1(
                episodes, held_out, to, Stage1Training(model=model.config.stage1, sampling=sampling, **common), device
            )
        elif part == HAND:
            train_hand(episodes, held_out, to, HandTraining(model=model.hand.config, **common), device)
        else:
            train_sweep(episodes, held_out, to, SweepTraining(model=model.sweep.config, **common), device)

    return train


def _published_trainer(split: Split, folder: Path, settings: FinetuneSettings, device: str):
    """A function of a model, its stage 1 and a folder that trains the wrist head of the published form."""

    def train(model: WristModel, part: str, to: Path) -> None:
        known = all(
            r.episode.K(name) is not None and r.episode.T_camera_world(name) is not None
            for r in split.adapt for name in r.episode.anchors()
        )  # fmt: skip
        entry = split.adapt[0].episode.camera(split.adapt[0].episode.anchors()[0])
        size = input_size((entry.height, entry.width), model.config.anchor_width, model.stage1.config.patch_size)
        recorded = all(r.episode.K(r.episode.names('wrist')[0]) is not None for r in split.adapt)
        config = changed(
            default_config(ReconstructionConfig),
            model={'train': ['wrist', 'camera'] if known else ['wrist']},
            data={'width': model.config.anchor_width, 'wrist_fov': None if recorded else 2 * float(np.degrees(np.arctan(0.5 / FOCAL)))},
            losses={'margin': min(32.0, min(size) / 8)} | ({} if known else {'cameras': 0.0}),
            schedule={
                'steps': settings.step_count, 'minutes': settings.minutes, 'learning_rate': settings.learning_rate, 'batch': 1,
                'precision': 'bf16' if device == 'cuda' else 'float32', 'workers': 0, 'seed': settings.seed, 'checkpoint_every': 50,
            },
        )  # fmt: skip
        network = ReconstructionModel.from_config(model.config.stage1)
        network.load_state_dict({name: value.float() for name, value in model.stage1.state_dict().items()})
        sets = [ChosenEpisodes(r[0].episode.path, [x.episode for x in r]) for r in (split.training, split.validation)]
        train_published(*sets, to, config, None, device, network)

    return train
