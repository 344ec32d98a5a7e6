"""What a recording's wrist video is made with, beyond the stream's and the windows' settings."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.settings import setting


@dataclass(frozen=True)
class GenerateSettings:
    """What is read and written."""

    anchors: int = setting(
        0, 'Anchor cameras of an episode that the model sees, its first ones; 0 takes all.', low=0, high=16
    )
    frames: int = setting(0, 'Frames at most; 0 takes all.', low=0, high=10**9)
    name: str = setting('virtual_wrist', 'Name of the files: NAME.mp4 and NAME.json.')
    force: bool = setting(False, 'Replace files of that name that are there already.')
