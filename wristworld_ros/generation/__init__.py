"""Stage 2: what the wrist camera sees, generated from the condition map and the anchor views."""

from .cache import KVCache
from .causal import block_causal_predict, chunk_contexts, commit_chunk, generate_chunk, new_cache
from .generator import WristGenerator
from .settings import SIM_TINY, WRISTWORLD_1_3B, GeneratorSettings

__all__ = [
    'SIM_TINY',
    'WRISTWORLD_1_3B',
    'GeneratorSettings',
    'KVCache',
    'WristGenerator',
    'block_causal_predict',
    'chunk_contexts',
    'commit_chunk',
    'generate_chunk',
    'new_cache',
]
