"""Stage 1: anchor images to cameras, the wrist camera's pose, depth, points and tracks."""

from .config import ReconstructionConfig
from .model import ReconstructionModel, ReconstructionOutput
from .presets import VGGT_1B

__all__ = ['ReconstructionConfig', 'ReconstructionModel', 'ReconstructionOutput', 'VGGT_1B']
