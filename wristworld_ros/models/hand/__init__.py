"""Where the hand is in an anchor image: a guess of the wrist camera's pose there, corrected by looking closely.

An anchor image and a guessed pose come in; a corrected pose with its expected error goes out. Not part of the published system.
Tensors only, no state.
"""

from wristworld_ros.models.hand.crop import HandCrops, hand_crops
from wristworld_ros.models.hand.network import (
    STANDARD_MOUNT,
    Correction,
    HandConfig,
    HandNetwork,
    corrected,
    refine_pose,
)

__all__ = [
    'STANDARD_MOUNT',
    'Correction',
    'HandConfig',
    'HandCrops',
    'HandNetwork',
    'corrected',
    'hand_crops',
    'refine_pose',
]
