"""The ring cache has a fixed size, keeps the newest chunks and refuses what does not fit."""

import pytest
import torch

from wristworld_ros.models.wan import KVCache, generate_chunk, new_cache


def test_ring_keeps_the_newest_chunks_and_its_memory():
    cache = KVCache(layers=1, batch=1, heads=1, head_dim=1, chunk_tokens=2, chunk_frames=1, history_chunks=3)
    pointer, size = cache.keys.data_ptr(), cache.nbytes
    for number in range(50):
        for _ in range(3):  # denoising steps write the same slot again
            keys, values = cache.append(0, torch.full((1, 1, 2, 1), float(number)), torch.zeros(1, 1, 2, 1))
        seen = sorted(set(keys.flatten().int().tolist()))
        assert seen == list(range(max(0, number - 3), number + 1))
        assert keys.shape == values.shape
        cache.advance()
    assert (cache.keys.data_ptr(), cache.nbytes) == (pointer, size)
    assert cache.positions[0] == 50
    cache.reset()
    keys, _ = cache.append(0, torch.full((1, 1, 2, 1), 99.0), torch.zeros(1, 1, 2, 1))
    assert keys.flatten().tolist() == [99, 99]


def test_what_is_forgotten_is_not_seen_while_positions_go_on():
    cache = KVCache(layers=1, batch=1, heads=1, head_dim=1, chunk_tokens=2, chunk_frames=4, history_chunks=2)
    pointer, size = cache.keys.data_ptr(), cache.nbytes
    seen = []
    for number in range(12):
        keys, _ = cache.append(0, torch.full((1, 1, 2, 1), float(number)), torch.zeros(1, 1, 2, 1))
        assert int(cache.positions[0]) == 4 * number
        seen.append(sorted(set(keys.flatten().int().tolist())))
        cache.advance()
        if cache.chunks == 5:
            cache.forget()
            assert cache.length == 0
    assert seen[4:8] == [[2, 3, 4], [5], [5, 6], [5, 6, 7]] and seen[9:] == [[7, 8, 9], [10], [10, 11]]
    assert (cache.keys.data_ptr(), cache.nbytes) == (pointer, size)
    cache.reset()
    assert int(cache.positions[0]) == 0


def test_a_chunk_of_another_size_is_refused():
    cache = KVCache(1, 1, 1, 4, chunk_tokens=2, chunk_frames=1, history_chunks=1)
    with pytest.raises(ValueError, match=r'\[1, 1, 3, 4\], wanted \[1, 1, 2, 4\]'):
        cache.append(0, torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4))


def test_sizes_that_patches_do_not_divide_are_refused(small_gen):
    with pytest.raises(ValueError, match='not a multiple of patch'):
        new_cache(small_gen, (5, 4))


def test_old_chunks_leave_no_trace(small_gen):
    """After the ring has turned twice, two streams that differ only before the window agree."""
    torch.manual_seed(3)
    context = small_gen.context(None, None)
    common = [torch.randn(1, 192, 2, 4, 4) for _ in range(12)]
    ends = []
    for seed in (4, 5):
        cache = new_cache(small_gen, (4, 4))
        generate_chunk(small_gen, torch.randn(1, 192, 2, 4, 4, generator=torch.manual_seed(seed)), None, context, cache)
        # What layer l keeps of a chunk saw the window before it, so a trace lives for layers * history chunks.
        for latents in common:
            end = generate_chunk(small_gen, latents, None, context, cache, steps=1)
        ends.append(end)
    assert torch.allclose(*ends, atol=1e-6)
