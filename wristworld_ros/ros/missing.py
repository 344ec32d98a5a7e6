"""What an anchor set lacks for a better view: sentences gathered while it is looked up, and which of them a reader wants to see."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from wristworld_ros.ros.depth_camera import DepthFault
from wristworld_ros.ros.robot_state import RobotFault
from wristworld_ros.ros.transforms import TransformFault

# Inputs that nobody offers (yet): what they would add is listed as missing, and not logged as a fault.
ABSENT = (TransformFault.MISSING, DepthFault.SILENT, RobotFault.NO_DESCRIPTION, RobotFault.LOADING)


class Notes:
    """Sentences on what is missing of one kind, each with the kind of fault."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.kinds: list[Enum] = []

    def add(self, text: str, kind: Enum) -> None:
        """One more. text: a sentence. kind: a member of `TransformFault`, `DepthFault` or `RobotFault`."""
        self.texts.append(text)
        self.kinds.append(kind)

    @property
    def faults(self) -> list[tuple[str, Enum]]:
        """Those that are worth a line in the log: of inputs that are there and cannot be used."""
        return [(text, kind) for text, kind in zip(self.texts, self.kinds, strict=True) if kind not in ABSENT]


def sentences(first: Sequence[str], places: Notes, wrist: Notes, depth: Notes, robot: Notes) -> list[str]:
    """What the next better view lacks: every fault, and inputs that are merely absent where all before them is there.

    A wrist camera whose place is not known is named in any case: without it nothing else makes a better view.

    Args:
        first: What comes before all notes.
        places: Of the anchors' places.
        wrist: Of the wrist camera.
        depth: Of the anchors' depth.
        robot: Of the robot's surface.
    """
    found = list(first)
    for notes in (places, wrist, depth, robot):
        complete = not found
        for text, kind in zip(notes.texts, notes.kinds, strict=True):
            if kind not in ABSENT or complete or notes is wrist:
                found.append(text)
    return found
