"""Configurations of causal few-step students: teacher forcing, then distillation by the student's own roll-outs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from wristworld_ros.errors import UserError
from wristworld_ros.setting import setting
from wristworld_ros.training.config import GenerationData, GenerationModel, Schedule


@dataclass(frozen=True)
class CausalModel(GenerationModel):
    """The teacher, a windowed flow model, and what is trained of its copy, the student."""

    network: str = setting(
        'wristworld_1_3b',
        'Sizes of the generator for --dry-run; a training takes those of its teacher.',
        choices=('wristworld_1_3b', 'miniature'),
    )
    model: str | None = setting(
        None,
        'Model directory of the teacher, such as `wristworld convert` or `wristworld train generation` leave; --model names it too.',
        none='none',
    )
    adapt: str = setting(
        'full',
        'lora: low-rank adapters (peft) beside what `also` names, merged at the end of each part. full: every parameter.',
        choices=('lora', 'full'),
    )


@dataclass(frozen=True)
class CausalImagesModel:
    """The teacher, a small windowed flow model on images; all of its copy, the student, is trained but the anchor encoder."""

    network: str = setting(
        'sim_tiny',
        'Sizes of the generator for --dry-run; a training takes those of its teacher.',
        choices=('sim_tiny', 'sim_base'),
    )
    model: str | None = setting(
        None,
        'Name or directory of the teacher, such as `wristworld train teacher` leaves; --model names it too.',
        none='none',
    )


@dataclass(frozen=True)
class CausalImagesData:
    """Clips of condition maps by the teacher's own stage 1, wrist images and anchors."""

    clip_chunks: int = setting(2, "Chunks of the model's own length in a clip.", low=2, high=1024)
    maps: int = setting(2, 'Condition maps of each frame, of different knowledge.', low=1, high=7)
    color: float = setting(1.0, 'Strength of recoloring; 0 is none.', low=0.0)
    mirror: float = setting(0.5, 'Share of clips that are mirrored left to right.', low=0.0, high=1.0)
    permute: float = setting(0.3, 'Share of clips whose colour channels are permuted.', low=0.0, high=1.0)


@dataclass(frozen=True)
class _Part:
    """How long and how fast one of the two parts is trained, where it is not as `schedule` says."""

    steps: int | None = setting(None, 'Optimizer steps of this part.', low=1, none='schedule')
    minutes: float | None = setting(
        None, 'Minutes of this part; the schedule follows the clock.', low=0.01, none='schedule'
    )
    learning_rate: float | None = setting(None, 'Peak learning rate of this part.', low=0.0, none='schedule')

    def of(self, schedule: Schedule) -> Schedule:
        """The schedule of this part; steps of its own are not overruled by minutes of the whole."""
        own = {
            name: value for name in ('steps', 'minutes', 'learning_rate') if (value := getattr(self, name)) is not None
        }
        return replace(schedule, **({'minutes': None} if 'steps' in own else {}) | own)


@dataclass(frozen=True)
class ForcingPart(_Part):
    """Teacher forcing: every chunk at a noise level of its own, attending to the clean chunks before it."""

    last_level: float = setting(
        0.25, 'Share of chunks at pure noise, where few-step sampling starts.', low=0.0, high=1.0
    )
    history_noise: float = setting(
        0.2,
        'Largest share of noise on the clean history, so that a copy of it is not the best guess; each clip has some up to it.',
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True)
class DistillationPart(_Part):
    """Distillation: the student streams each clip, and learns where the teacher's flow leads from what it made."""

    timesteps: list = setting(
        ['1000', '750', '500', '250'],
        "What the student is distilled to, falling from 1000, before the model's shift; as many as it takes steps.",
        pattern=r'\d+(\.\d+)?',
        described='falling numbers above 0, the first of them 1000',
    )
    substeps: int = setting(4, 'Euler steps of the teacher from one of them to the next.', low=1)
    guidance: float | None = setting(
        None, "The teacher's guidance, which is distilled; the student then needs none.", low=1.0, none='model'
    )

    @property
    def levels(self) -> tuple[float, ...]:
        """The timesteps as numbers."""
        return tuple(float(t) for t in self.timesteps)


@dataclass(frozen=True)
class CausalConfig:
    """A causal few-step student of the published form, on latents. `schedule` is that of each part, where the part says nothing else."""

    model: CausalModel
    data: GenerationData
    forcing: ForcingPart
    distillation: DistillationPart
    schedule: Schedule

    def check_together(self) -> None:
        """Raise UserError where sections contradict each other."""
        _check_parts(self.forcing, self.distillation)
        for name in ('width', 'height'):
            if getattr(self.data, name) % 16:
                raise UserError(f'data.{name} is {getattr(self.data, name)}', 'give a multiple of 16')
        # Latent frames come in chunks of 3, and the first of them stands for one video frame, each other for 4.
        frames = self.data.frames
        if self.model.network == 'wristworld_1_3b' and (frames % 12 != 9 or frames < 21):
            raise UserError(
                f'data.frames is {frames}, which are not two or more whole chunks of 3 latent frames',
                'give 12 n + 9, as 21 or 81',
            )


@dataclass(frozen=True)
class CausalImagesConfig:
    """A causal few-step student of the small model, on images. `schedule` is that of each part, where the part says nothing else."""

    model: CausalImagesModel
    data: CausalImagesData
    forcing: ForcingPart
    distillation: DistillationPart
    schedule: Schedule

    def check_together(self) -> None:
        """Raise UserError where sections contradict each other."""
        _check_parts(self.forcing, self.distillation)


def _check_parts(forcing: ForcingPart, distillation: DistillationPart) -> None:
    for name, part in (('forcing', forcing), ('distillation', distillation)):
        if part.steps is not None and part.minutes is not None:
            raise UserError(f'{name} has both steps ({part.steps}) and minutes ({part.minutes:g})', 'give one of them')
    levels = distillation.levels
    if levels[0] != 1000 or levels[-1] <= 0 or any(a <= b for a, b in itertools.pairwise(levels)):
        raise UserError(
            f'distillation.timesteps is {distillation.timesteps}',
            'give falling numbers above 0, the first of them 1000',
        )
