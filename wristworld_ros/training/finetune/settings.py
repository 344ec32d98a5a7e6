"""What `wristworld finetune` asks for; apart from the training, so that the command line starts without torch."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.errors import UserError
from wristworld_ros.setting import setting

_STEPS = 400
_KEYS = r'[^,\s]+(,[^,\s]+)*'


@dataclass(frozen=True)
class FinetuneSettings:
    """From which model, on which recordings, for how long."""

    data: str = setting('', 'Recordings with a wrist camera, of any format that docs/datasets.md lists.')
    wrist: str | None = setting(
        None, 'Camera whose images the model shall make; auto is the one that the recordings call a wrist camera.', none='auto'
    )  # fmt: skip
    anchors: str | None = setting(
        None, 'Cameras that it sees, separated by commas; auto takes all that stand beside the robot.',
        none='auto', pattern=_KEYS, described='keys separated by commas',
    )  # fmt: skip
    robot: str | None = setting(
        None,
        "How the wrist camera is mounted, where the recordings do not say it: droid, a ZED mini beside a Robotiq 2F-85 as DROID has it; none leaves it to the model.",
        choices=('droid',), none='none',
    )  # fmt: skip
    model: str = setting('sim_tiny', 'Name or directory of the model that it starts from.')
    out: str = setting('runs/finetune', 'Folder of the run; the same command continues one that was stopped.')
    held_out: str = setting(
        '0.25',
        'Episodes that nothing is learnt from, for the table: how many, a share of them (the last ones in order), or another data set.',
    )
    minutes: float | None = setting(
        30.0, 'Minutes of training; preparing and measuring come on top. none trains for --steps.', low=0.01, none='none'
    )  # fmt: skip
    steps: int | None = setting(
        None, f'Steps at most, of each of the two trainings, with --minutes none; auto is {_STEPS}.', low=2, none='auto'
    )
    limit: int | None = setting(None, 'Episodes to adapt to at most, the first ones.', low=2, high=10**6, none='all')
    frames: int = setting(120, 'Frames of an episode at most, spread over it.', low=8, high=100_000)
    batch: int = setting(3, 'Clips of a step.', low=1)
    learning_rate: float = setting(8e-4, 'Learning rate after the warm-up.', low=0.0)
    color: float = setting(0.5, 'Strength of recoloring clips, all images of one alike; 0 is none.', low=0.0)
    device: str = setting('auto', 'Where to train.', choices=('auto', 'cpu', 'cuda'))
    threads: int | None = setting(None, 'CPU threads; auto is what torch chooses.', low=1, none='auto')
    seed: int = setting(0, 'Of samples and noise.', low=0)

    @property
    def step_count(self) -> int:
        """Steps at most, of each training, where no minutes are given."""
        return _STEPS if self.steps is None else self.steps

    def check_together(self) -> None:
        """Raise UserError where steps are given and the clock would end the training."""
        if self.steps is not None and self.minutes is not None:
            raise UserError(
                f'Setting steps is {self.steps}, and the training ends after {self.minutes:g} minutes',
                'add --minutes none, or leave --steps out',
            )
