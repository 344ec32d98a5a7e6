"""The ring cache of keys and values of a chunk-by-chunk (causal) stream."""

from __future__ import annotations

import torch


class KVCache:
    """Keys and values of the last chunks, all layers, in memory taken once.

    The buffers hold ``history_chunks`` committed chunks and the chunk in the making; each has a slot. ``append`` writes
    the chunk in the making into its slot, again and again as its denoising steps go by, and returns what its queries
    see; ``advance`` commits it, and the next chunk takes the slot of the oldest. Slots are not in order of time once
    the ring has turned. That is harmless: attention over keys has no order, and each key has carried its own position
    since its rotation.

    layers, heads, head_dim: of the transformer. batch: streams side by side (twice as many under guidance).
    chunk_tokens: tokens a chunk. chunk_frames: positions in time a chunk (latent frames over the temporal patch).
    history_chunks: committed chunks kept, 0 or more.
    ``positions``: int64 [chunk_frames] on the device, positions in time of the next chunk's frames, counted from the last
    reset (not bounded).
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        heads: int,
        head_dim: int,
        chunk_tokens: int,
        chunk_frames: int,
        history_chunks: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = 'cpu',
    ):
        if min(layers, batch, heads, head_dim, chunk_tokens, chunk_frames) < 1 or history_chunks < 0:
            raise ValueError('KVCache wants sizes of at least 1 and history_chunks of at least 0.')
        self.chunk_tokens, self.chunk_frames, self.history_chunks = chunk_tokens, chunk_frames, history_chunks
        shape = (layers, batch, heads, (history_chunks + 1) * chunk_tokens, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.positions = torch.arange(chunk_frames, device=device)
        self.chunks = 0

    @property
    def batch(self) -> int:
        """Streams side by side."""
        return self.keys.shape[1]

    @property
    def length(self) -> int:
        """Committed chunks that the next chunk sees, 0 to ``history_chunks``."""
        return min(self.chunks, self.history_chunks)

    @property
    def state(self) -> tuple[int, int]:
        """Where the next chunk is written and how much history it sees: all that its kernels depend on but values."""
        return self.chunks % (self.history_chunks + 1), self.length

    @property
    def nbytes(self) -> int:
        """Memory of both buffers, bytes; constant."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def reset(self) -> None:
        """Forget the history; the next chunk is a first chunk. The memory stays."""
        torch.arange(self.chunk_frames, out=self.positions)
        self.chunks = 0

    def forget(self) -> None:
        """Forget the history in the middle of a stream: the next chunk sees itself alone, positions go on."""
        self.chunks = 0

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the chunk in the making into its slot of one layer.

        keys (rotated), values: [B, heads, chunk_tokens, head_dim]. Returns views of history and chunk together,
        [B, heads, (length + 1) * chunk_tokens, head_dim]. Raises ValueError when the shape is not the cache's.
        """
        wanted = (self.batch, self.keys.shape[2], self.chunk_tokens, self.keys.shape[4])
        if tuple(keys.shape) != wanted:
            raise ValueError(
                f'KVCache.append got keys {list(keys.shape)}, wanted {list(wanted)}; '
                'make the cache for this batch, chunk length and image size.'
            )
        start = self.chunks % (self.history_chunks + 1) * self.chunk_tokens
        self.keys[layer, :, :, start : start + self.chunk_tokens] = keys
        self.values[layer, :, :, start : start + self.chunk_tokens] = values
        # Before the ring has turned the used slots are the first ones; after that all are in use.
        end = (self.length + 1) * self.chunk_tokens
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self) -> None:
        """Commit the chunk in the making; the oldest leaves when the ring is full."""
        self.positions += self.chunk_frames
        self.chunks += 1
