"""Stage 1: anchor images to cameras, the wrist camera's pose, depth, points and tracks."""

from wristworld_ros.models.vggt.checkpoint import load_public_weights
from wristworld_ros.models.vggt.config import ReconstructionConfig
from wristworld_ros.models.vggt.losses import camera_loss, fov_loss, round_weights
from wristworld_ros.models.vggt.model import ReconstructionModel, ReconstructionOutput
from wristworld_ros.models.vggt.presets import VGGT_1B
from wristworld_ros.models.vggt.spc import Matches, matches_from_tracks, sample_points, spc_loss, wrist_query_grid

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
