"""Anchor sets in, wrist frames out: windows, chunks, caches. No ROS."""

from .model import ModelConfig, ModelError, WristModel, load_model, save_model, tiny_random_model
from .virtual_wrist import VirtualWrist

__all__ = ['ModelConfig', 'ModelError', 'VirtualWrist', 'WristModel', 'load_model', 'save_model', 'tiny_random_model']
