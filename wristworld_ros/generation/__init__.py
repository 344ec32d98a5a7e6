"""Stage 2: what the wrist camera sees, generated from the condition map and the anchor views."""

from .cache import KVCache
from .causal import block_causal_predict, chunk_contexts, commit_chunk, generate_chunk, new_cache, write_chunk
from .generator import WristGenerator
from .settings import SIM_TINY, WRISTWORLD_1_3B, GeneratorSettings
from .windows import Window, clip_latents, plan_windows, sample_windows

__all__ = [
    'SIM_TINY',
    'WRISTWORLD_1_3B',
    'GeneratorSettings',
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
