"""Stage 1: anchor images to cameras, the wrist camera's pose, depth, points and tracks."""

from .config import ReconstructionConfig
from .losses import camera_loss, fov_loss, round_weights
from .model import ReconstructionModel, ReconstructionOutput
from .presets import VGGT_1B
from .spc import Matches, matches_from_tracks, sample_points, spc_loss, wrist_query_grid
from .weights import load_public_weights

__all__ = [
    'VGGT_1B',
    'Matches',
    'ReconstructionConfig',
    'ReconstructionModel',
    'ReconstructionOutput',
    'camera_loss',
    'fov_loss',
    'load_public_weights',
    'matches_from_tracks',
    'round_weights',
    'sample_points',
    'spc_loss',
    'wrist_query_grid',
]  # fmt: skip
