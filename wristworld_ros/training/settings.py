"""Settings of the training commands."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.settings import setting


@dataclass(frozen=True)
class TrainSettings:
    """What `wristworld train` asks for; everything else is in the records of `stage1.py`, `stage2.py` and `tiny_decoder.py`."""

    out: str = setting(
        'runs/train', 'Folder of the run: checkpoints, log.jsonl, model.pt; a run that was stopped goes on.'
    )
    held_out: str = setting('', 'Folder of episodes to validate on while training; empty for none.')
    minutes: float = setting(0.0, 'Train for so long; 0 trains for --steps.', low=0.0)
    steps: int = setting(10_000, 'Optimiser steps, where no --minutes are given.', low=1)
    batch: int = setting(0, 'Samples a step; 0 takes the default of the stage.', low=0)
    learning_rate: float = setting(8e-4, 'Peak learning rate.', low=0.0)
    processes: int = setting(
        1,
        'Processes that train together, each with its own batches (CPU only); one a core is fastest.',
        low=1,
        high=256,
    )
    threads: int = setting(
        0, 'CPU threads of a process; 0: one where there are several processes, else what torch chooses.', low=0
    )
    device: str = setting('auto', 'Where to train.', choices=('auto', 'cpu', 'cuda'))
    seed: int = setting(0, 'Seed of weights, samples and noise.', low=0)
    stage1: str = setting('', 'Stage 2: folder of the stage 1 run whose geometry the condition maps come from.')
    start: str = setting('', "Another run's last.pt to take the weights from when this run begins.")
    only: str = setting(
        '', 'Stage 1: train this head alone; empty trains everything.', choices=('', 'camera', 'wrist', 'depth')
    )
    spc: bool = setting(
        True, 'Stage 1: train the wrist pose by Spatial Projection Consistency; --no-spc is the ablation.'
    )
    condition: bool = setting(True, 'Stage 2: see the condition map; --no-condition is the ablation.')
    anchor_tokens: bool = setting(True, 'Stage 2: see the anchor tokens; --no-anchor-tokens is the ablation.')
    limit: int = setting(0, 'Stage 2, light decoder: use only the first so many episodes; 0 uses all.', low=0)
    model: str = setting(
        '', 'Light decoder: the model directory whose autoencoder it learns from, and which it is put into.'
    )
    videos: list = setting([], 'Light decoder: video files to learn from, beside the episodes or in their place.')
    width: int = setting(
        64, "Light decoder: channels at half the picture's resolution, twice as many at each coarser level.", low=1
    )
    blocks: int = setting(2, 'Light decoder: residual blocks of each level.', low=1)
    workers: int = setting(2, 'Processes that prepare data.', low=1)
