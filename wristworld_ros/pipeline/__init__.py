"""Anchor sets in, wrist frames out: windows, chunks, caches. No ROS."""

from wristworld_ros.models.config import ModelConfig, ModelError
from wristworld_ros.pipeline.model import WristModel, tiny_random_model
from wristworld_ros.pipeline.model_directory import load_model, load_stage1, load_stage2, save_model
from wristworld_ros.pipeline.virtual_wrist import VirtualWrist

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
