"""What `wristworld train` asks for; apart from the trainings, so that the command line starts without torch."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.setting import setting


@dataclass(frozen=True)
class TrainSettings:
    """Options of `wristworld train`; everything else is in the trainings' own classes, such as `Stage1Training`."""

    out: str = setting(
        'runs/train', 'Folder of the run: checkpoints, log.jsonl, model.safetensors; a run that was stopped continues.'
    )
    held_out: str | None = setting(None, 'Folder of episodes to validate on while training.', none='none')
    minutes: float | None = setting(None, 'Train for so many minutes; none trains for --steps.', low=0.01, none='none')
    steps: int = setting(10_000, 'Optimizer steps, where no --minutes are given.', low=1)
    batch: int | None = setting(None, 'Samples per step; auto takes the default of the stage.', low=1, none='auto')
    learning_rate: float = setting(8e-4, 'Peak learning rate.', low=0.0)
    max_skipped: int = setting(
        20, 'Steps in a row whose gradient may be NaN or infinite; they are skipped, and one more ends the run.', low=0
    )
    processes: int = setting(
        1,
        'Processes that train together, each with its own batches (CPU only); one per core is fastest.',
        low=1,
        high=256,
    )
    threads: int | None = setting(
        None,
        'CPU threads of a process; auto: one where there are several processes, otherwise what torch chooses.',
        low=1,
        none='auto',
    )
    device: str = setting('auto', 'Where to train.', choices=('auto', 'cpu', 'cuda'))
    seed: int = setting(0, 'Seed of weights, samples and noise.', low=0)
    stage1: str | None = setting(
        None, 'Stage 2, package: folder of the stage 1 run whose geometry the condition maps come from.', none='none'
    )
    sweep: str | None = setting(None, 'Stage 2, package: folder of the plane sweep run.', none='none')
    hand: str | None = setting(None, 'Stage 2, package: folder of the hand network run.', none='none')
    start: str | None = setting(
        None,
        "Another run's folder, or a file of weights such as a model directory's <stage>.safetensors, that this run begins with.",
        none='none',
    )
    only: str = setting('all', 'Stage 1: train this head alone, or all.', choices=('all', 'camera', 'wrist', 'depth'))
    spc: bool = setting(
        True, 'Stage 1: train the wrist pose by Spatial Projection Consistency; --no-spc is the ablation.'
    )
    condition: bool = setting(True, 'Stage 2: use the condition map; --no-condition is the ablation.')
    anchor_tokens: bool = setting(True, 'Stage 2: use the anchor tokens; --no-anchor-tokens is the ablation.')
    limit: int | None = setting(
        None, 'Stage 2, tiny decoder, teacher, causal, sim-FVD: use only the first so many episodes.', low=1, none='all'
    )
    model: str | None = setting(
        None,
        'Tiny decoder: the model directory whose autoencoder it learns from, and which it is installed in. Teacher, causal: the model that the training starts from.',
        none='none',
    )
    timesteps: str = setting(
        '1000,750,500,250',
        "Causal: what the student's steps are distilled to, falling from 1000, before the model's shift.",
    )
    clip_chunks: int = setting(
        2,
        'Teacher, causal: chunks of the model in a training clip; 7 are the 81 frames of the published one.',
        low=2,
        high=1024,
    )
    videos: list = setting([], 'Tiny decoder: video files to learn from, beside the episodes or in their place.')
    width: int = setting(
        64, "Tiny decoder: channels at half the image's resolution, twice as many at each coarser level.", low=1
    )
    blocks: int = setting(2, 'Tiny decoder: residual blocks of each level.', low=1)
    workers: int = setting(2, 'Processes that prepare data.', low=1)
