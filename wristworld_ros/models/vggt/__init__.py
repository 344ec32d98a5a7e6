"""Stage 1: anchor images to cameras, the wrist camera's pose, depth, points and tracks.

`ReconstructionModel` takes float images in [0, 1] and gives a `ReconstructionOutput`; the losses take such outputs.
Parameter names and numbers are those of the public checkpoints (test/fixtures) and must stay so; sizes are free.
"""

from wristworld_ros.models.vggt.config import SIM_TINY, VGGT_1B, ReconstructionConfig, input_size
from wristworld_ros.models.vggt.losses import (
    Matches,
    camera_loss,
    fov_loss,
    matches_from_tracks,
    round_weights,
    sample_points,
    spc_loss,
    wrist_query_grid,
)
from wristworld_ros.models.vggt.model import (
    ReconstructionModel,
    ReconstructionOutput,
    load_public_weights,
    own_points,
)
from wristworld_ros.models.vggt.scene_coordinates import patch_centers, refine_wrist

__all__ = [
    'SIM_TINY',
    'VGGT_1B',
    'Matches',
    'ReconstructionConfig',
    'ReconstructionModel',
    'ReconstructionOutput',
    'camera_loss',
    'fov_loss',
    'input_size',
    'load_public_weights',
    'matches_from_tracks',
    'own_points',
    'patch_centers',
    'refine_wrist',
    'round_weights',
    'sample_points',
    'spc_loss',
    'wrist_query_grid',
]
