"""The configurations that the package brings: published recipes for DROID, CALVIN and the real Franka set, and two sizes for the simulator.

`config/train` holds them as files (`python -m wristworld_ros.training.config_files` writes it); numbers are those of arXiv 2510.07313
where it gives them.
"""

from __future__ import annotations

from wristworld_ros.training.config import DecoderConfig, GenerationConfig, ImagesConfig
from wristworld_ros.training.config_causal import CausalConfig, CausalImagesConfig
from wristworld_ros.training.config_reading import changed, default_config
from wristworld_ros.training.config_stage1 import GeometryConfig, ReconstructionConfig
from wristworld_ros.training.recipes import Config

DATA_SETS = ('droid', 'calvin', 'franka', 'sim_tiny', 'sim_base')
# What a small network learns from scratch with: Muon, a high rate, a short memory.
_SCRATCH = {
    'optimizer': 'muon', 'learning_rate': 8e-4, 'weight_decay': 0.03, 'beta2': 0.98, 'warm_up': 150, 'clip': 5.0, 'average': 0.995,
    'max_skipped': 20,
}  # fmt: skip


def _reconstruction() -> dict[str, Config]:
    published = changed(
        default_config(ReconstructionConfig),
        model={'train': ['wrist', 'camera'], 'wrist_rate': 2e-5, 'camera_rate': 5e-6},
        schedule={
            'minutes': 1080.0, 'batch': 4, 'accumulate': 3, 'learning_rate': 2e-5, 'weight_decay': 0.05, 'warm_up_share': 0.05,
            'clip': 1.0, 'samples_every': 500, 'tensorboard': True, 'sharding': 'none', 'average': 0.0,
        },
    )  # fmt: skip
    tiny = changed(
        default_config(GeometryConfig), model={'network': 'sim_tiny', 'train': ['all']},
        schedule=_SCRATCH | {'minutes': 60.0, 'batch': 16},
    )  # fmt: skip
    return {
        'droid': published,
        # Static and gripper camera; the static one is the world, so that there is no other anchor to learn from.
        'calvin': changed(published, data={'anchors': 1}),
        'franka': changed(
            published, model={'train': ['wrist'], 'camera_rate': None}, data={'anchors': 3},
            losses={'cameras': 0.0, 'match_confidence': 0.1},
        ),
        'sim_tiny': tiny,
        'sim_base': changed(
            tiny, model={'network': 'sim_base'}, data={'width': 320, 'height': 240},
            schedule={'minutes': None, 'steps': 60_000, 'batch': 24, 'learning_rate': 4e-4, 'warm_up': 500, 'average': 0.999,
                      'samples_every': 1000, 'tensorboard': True, 'workers': 8},
        ),
    }  # fmt: skip


def _generation() -> dict[str, Config]:
    published = changed(
        default_config(GenerationConfig),
        schedule={
            'steps': 20_000, 'batch': 1, 'accumulate': 1, 'learning_rate': 1e-5, 'weight_decay': 0.01, 'warm_up': 100,
            'schedule': 'constant', 'gradient_checkpointing': True, 'sharding': 'full', 'average': 0.0, 'samples_every': 1000,
            'tensorboard': True,
        },
    )  # fmt: skip
    tiny = changed(
        default_config(ImagesConfig), schedule=_SCRATCH | {'minutes': 40.0, 'batch': 3, 'average': 0.99, 'workers': 1}
    )
    return {
        'droid': published,
        'calvin': changed(published, data={'anchors': 1, 'width': 480, 'height': 480}),
        'franka': changed(published, data={'anchors': 2}),
        'sim_tiny': tiny,
        'sim_base': changed(
            tiny, model={'network': 'sim_base'},
            schedule={'minutes': None, 'steps': 60_000, 'batch': 8, 'learning_rate': 4e-4, 'warm_up': 500, 'average': 0.999,
                      'samples_every': 1000, 'tensorboard': True, 'workers': 8},
        ),
    }  # fmt: skip


def _causal() -> dict[str, Config]:
    """Ours: no causal student of this model was published. Rates and timesteps are near those of Self-Forcing (arXiv 2506.08009)."""
    published = changed(
        default_config(CausalConfig), forcing={'steps': 5_000, 'learning_rate': 1e-5},
        distillation={'steps': 2_000, 'learning_rate': 2e-6},
        schedule={
            'batch': 1, 'accumulate': 1, 'learning_rate': 1e-5, 'weight_decay': 0.01, 'warm_up': 100, 'schedule': 'constant',
            'gradient_checkpointing': True, 'sharding': 'full', 'average': 0.99, 'samples_every': 500, 'tensorboard': True,
        },
    )  # fmt: skip
    tiny = changed(
        default_config(CausalImagesConfig),
        schedule=_SCRATCH
        | {'minutes': 40.0, 'batch': 2, 'warm_up': 50, 'average': 0.99, 'precision': 'float32', 'workers': 1},
    )
    return {
        'droid': published,
        'calvin': changed(published, data={'anchors': 1, 'width': 480, 'height': 480}),
        'franka': published,
        'sim_tiny': tiny,
        'sim_base': changed(
            tiny, model={'network': 'sim_base'}, forcing={'steps': 20_000}, distillation={'steps': 10_000},
            schedule={'minutes': None, 'batch': 8, 'learning_rate': 4e-4, 'warm_up': 500, 'average': 0.999, 'precision': 'bf16',
                      'samples_every': 1000, 'tensorboard': True, 'workers': 8},
        ),
    }  # fmt: skip


def _decoder() -> dict[str, Config]:
    published = changed(
        default_config(DecoderConfig),
        schedule={'steps': 20_000, 'batch': 2, 'optimizer': 'muon', 'learning_rate': 8e-4, 'weight_decay': 0.03, 'beta2': 0.98,
                  'warm_up': 150, 'clip': 5.0, 'average': 0.99, 'tensorboard': True},
    )  # fmt: skip
    small = changed(published, model={'width': 32, 'blocks': 1}, schedule={'steps': 5_000, 'tensorboard': False})
    return {'droid': published, 'calvin': published, 'franka': published, 'sim_tiny': small, 'sim_base': published}


def presets() -> dict[tuple[str, str], Config]:
    """(data set, stage) -> configuration."""
    stages = {
        'reconstruction': _reconstruction(),
        'generation': _generation(),
        'causal': _causal(),
        'decoder': _decoder(),
    }
    return {(name, stage): stages[stage][name] for name in DATA_SETS for stage in stages}
