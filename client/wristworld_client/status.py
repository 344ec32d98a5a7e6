"""The codes of `WristView.msg`."""

from __future__ import annotations

from enum import IntEnum


class FrameStatus(IntEnum):
    """Whether a policy may use a wrist frame, and if not, why."""

    VALID = 0
    LOW_COVERAGE = 1
    LOW_CONFIDENCE = 2
    STALE = 3
    STAMP_IN_FUTURE = 4
    NOT_FINITE = 5
    OUT_OF_MEMORY = 6
    ANCHORS_DISAGREE = 7
    UNIFORM_ANCHOR = 8
    FROZEN_ANCHOR = 9
    IDENTICAL_ANCHORS = 10
    REQUIRED_MISSING = 11
    ANCHOR_MOVED = 12


class Geometry(IntEnum):
    """What the geometry of a frame was made from: images alone, known cameras, known cameras with measured depth."""

    RGB = 0
    CALIBRATED = 1
    RGBD = 2
