"""Stage 2: what the wrist camera sees, generated from the condition map and the anchor views."""

from wristworld_ros.models.wan.causal import (
    block_causal_predict,
    chunk_contexts,
    commit_chunk,
    generate_chunk,
    new_cache,
    write_chunk,
)
from wristworld_ros.models.wan.config import SIM_TINY, WRISTWORLD_1_3B, GeneratorConfig
from wristworld_ros.models.wan.generator import WristGenerator
from wristworld_ros.models.wan.kv_cache import KVCache
from wristworld_ros.models.wan.windows import Window, clip_latents, plan_windows, sample_windows

__all__ = [
    'SIM_TINY',
    'WRISTWORLD_1_3B',
    'GeneratorConfig',
    'KVCache',
    'Window',
    'WristGenerator',
    'block_causal_predict',
    'chunk_contexts',
    'clip_latents',
    'commit_chunk',
    'generate_chunk',
    'new_cache',
    'plan_windows',
    'sample_windows',
    'write_chunk',
]
