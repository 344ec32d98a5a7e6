"""The ring cache of keys and values of a chunk-by-chunk (causal) stream."""

from __future__ import annotations

import torch


class KVCache:
    """Keys and values of the last chunks, all layers, in memory that is allocated once.

    The buffers have a slot for each of `history_chunks` committed chunks and one for the current chunk. `append` writes
    the current chunk into its slot, again at each of its denoising steps, and returns what its queries attend to;
    `advance` commits it, and the next chunk takes the slot of the oldest. After one round of the ring the slots are not
    in order of time. That is harmless: attention does not depend on the order of keys, and each key carries its
    position since it was rotated.

    Args:
        layers: Blocks of the transformer.
        batch: Streams side by side (twice as many with guidance).
        heads: Heads of the transformer.
        head_dim: Channels per head.
        chunk_tokens: Tokens per chunk.
        chunk_frames: Positions in time per chunk (latent frames over the temporal patch).
        history_chunks: Committed chunks that are kept, 0 or more.
        sink_chunks: How many of those are the first ones since `reset` or `forget` and never leave (attention sinks, Xiao et
            al. 2023, arXiv 2309.17453); the others are the last.
        dtype: Of the buffers.
        device: Of the buffers.

    Attributes:
        positions: int64 [chunk_frames] on the device, positions in time of the next chunk's frames, counted from the
            last reset (not bounded).
        chunks: Chunks committed since the last `reset` or `forget`.
        start: Position of the next chunk's first frame, on the host.

    Raises:
        ValueError: A size is less than 1, or `history_chunks` less than 0.
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
        sink_chunks: int = 0,
    ):
        if min(layers, batch, heads, head_dim, chunk_tokens, chunk_frames) < 1 or history_chunks < 0:
            raise ValueError('KVCache needs sizes of at least 1 and history_chunks of at least 0.')
        if not 0 <= sink_chunks <= history_chunks:
            raise ValueError(f'KVCache got {sink_chunks} sinks in a history of {history_chunks} chunks.')
        self.sink_chunks = sink_chunks
        self.chunk_tokens, self.chunk_frames, self.history_chunks = chunk_tokens, chunk_frames, history_chunks
        shape = (layers, batch, heads, (history_chunks + 1) * chunk_tokens, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.positions = torch.arange(chunk_frames, device=device)
        self.chunks = self.start = 0

    @property
    def batch(self) -> int:
        """Streams side by side."""
        return self.keys.shape[1]

    @property
    def length(self) -> int:
        """Committed chunks that the next chunk attends to, 0 to `history_chunks`."""
        return min(self.chunks, self.history_chunks)

    @property
    def state(self) -> tuple[int, int]:
        """The slot of the next chunk and the length of its history: all that its kernels depend on, except values."""
        return self._slot, self.length

    @property
    def _slot(self) -> int:
        """Where the next chunk goes. The slots of sinks are written once; the others are a ring."""
        ring = self.history_chunks + 1 - self.sink_chunks
        return (
            self.chunks
            if self.chunks < self.sink_chunks
            else self.sink_chunks + (self.chunks - self.sink_chunks) % ring
        )

    @property
    def nbytes(self) -> int:
        """Memory of both buffers, bytes; constant."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def reset(self) -> None:
        """Forget the history; the next chunk is a first chunk. The memory stays."""
        torch.arange(self.chunk_frames, out=self.positions)
        self.chunks = self.start = 0

    def forget(self) -> None:
        """Forget the history within a stream: the next chunk attends to itself alone, positions go on."""
        self.chunks = 0

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the current chunk into its slot of one layer.

        Args:
            layer: Index of the block.
            keys: Rotated, [B, heads, chunk_tokens, head_dim].
            values: Likewise.

        Returns:
            Views of the keys and values of history and chunk together, [B, heads, (length + 1) * chunk_tokens,
            head_dim].

        Raises:
            ValueError: The shape is not the cache's.
        """
        wanted = (self.batch, self.keys.shape[2], self.chunk_tokens, self.keys.shape[4])
        if tuple(keys.shape) != wanted:
            raise ValueError(
                f'KVCache.append got keys {list(keys.shape)}, wanted {list(wanted)}; '
                'make the cache for this batch, chunk length and image size.'
            )
        start = self._slot * self.chunk_tokens
        self.keys[layer, :, :, start : start + self.chunk_tokens] = keys
        self.values[layer, :, :, start : start + self.chunk_tokens] = values
        # In the first round of the ring the used slots are the first ones; after that all are in use.
        end = (self.length + 1) * self.chunk_tokens
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self) -> None:
        """Commit the current chunk; the oldest leaves when the ring is full."""
        self.positions += self.chunk_frames
        self.start += self.chunk_frames
        self.chunks += 1
