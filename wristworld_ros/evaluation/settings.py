"""What `wristworld evaluate` asks for; apart from `evaluate.py`, so that the command line starts without torch."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.setting import setting


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated, beyond the stream's own settings."""

    row_steps: str = setting('1,2,4', 'Sampling steps, a row of the table for each.')
    knowledge: str | None = setting(
        None,
        'What the stream is told beside images, rows of the table for each, out of rgb,mounted,calibrated,calibrated-exact,rgbd,exact; auto: all that every episode knows enough for.',
        none='auto',
    )
    anchors: int | None = setting(
        2, 'Anchor cameras that the model sees; all takes all an episode has.', low=1, high=16, none='all'
    )
    limit: int | None = setting(None, 'Episodes at most.', low=1, high=10**9, none='all')
    frames: int | None = setting(None, 'Frames of an episode at most.', low=1, high=10**9, none='all')
    seeds: int = setting(1, 'Seeds of the sampling noise that generated rows are averaged over.', low=1, high=100)
    mean_image: str | None = setting(
        None, "PNG of the mean wrist image of the training set; auto takes the model's mean_wrist.png.", none='auto'
    )
    lpips: str | None = setting(
        None,
        "Local weights of LPIPS (safetensors or a state dict): AlexNet's features and the linear weights, in one file or in two with a comma between; none leaves LPIPS out.",
        none='none',
    )
    sim_fvd: str | None = setting(
        None,
        'Weights of sim-FVD, a distance of simulated videos by a small network of this project (`wristworld train sim-fvd` makes them); none leaves it out.',
        none='none',
    )
    page: int = setting(4, 'Episodes whose videos page.html shows side by side; 0 writes no page.', low=0, high=1000)
    fvd: str | None = setting(
        None, 'Local weights of I3D for FVD (safetensors or a state dict); none leaves FVD out.', none='none'
    )
