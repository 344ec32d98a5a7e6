"""Anchor sets in, wrist frames out: windows, chunks, caches. No ROS."""

from .config import ModelConfig, ModelError
from .loading import load_model, load_stage1, load_stage2, save_model
from .model import WristModel, tiny_random_model
from .virtual_wrist import VirtualWrist

__all__ = [
    'ModelConfig',
    'ModelError',
    'VirtualWrist',
    'WristModel',
    'load_model',
    'load_stage1',
    'load_stage2',
    'save_model',
    'tiny_random_model',
]  # fmt: skip
