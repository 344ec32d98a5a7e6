"""Stage 2: the wrist video, generated from condition maps and anchor views (arXiv 2510.07313).

In come latents of noise and condition maps, features of the anchor images and text embeddings; out go clean latents,
which an autoencoder of `autoencoders` or `tiny_decoder` decodes to video. Tensors only: nothing here reads files, knows
cameras or keeps the state of a call, so one loaded model serves any number of streams and threads.
"""

from wristworld_ros.models.wan.causal import (
    block_causal_predict,
    chunk_contexts,
    commit_chunk,
    generate_chunk,
    new_cache,
    sample_chunks,
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
    'sample_chunks',
    'sample_windows',
    'write_chunk',
]
