"""What an evaluation runs on."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.settings import setting


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated, beyond the stream's own settings."""

    row_steps: str = setting('1,2,4', 'Sampling steps, a row of the table for each.')
    anchors: int = setting(2, 'Anchor cameras that the model sees; 0 takes all an episode has.', low=0, high=16)
    limit: int = setting(0, 'Episodes at most; 0 takes all.', low=0, high=10**9)
    frames: int = setting(0, 'Frames an episode at most; 0 takes all.', low=0, high=10**9)
    seeds: int = setting(1, 'Seeds of the sampling noise that generated rows are averaged over.', low=1, high=100)
    mean_image: str = setting(
        '', 'PNG of the mean wrist image of the training set; empty takes mean_wrist.png of the model.'
    )
    lpips: str = setting('', 'Local TorchScript file for LPIPS; empty leaves LPIPS out.')
    fvd: str = setting('', 'Local TorchScript file of the I3D network for FVD; empty leaves FVD out.')
