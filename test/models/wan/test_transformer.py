"""The transformer's own forward pass computes what the library's does, and what a pass is told stays in that pass."""

import threading

import pytest
import torch
from diffusers import WanTransformer3DModel

from wristworld_ros.models.wan import KVCache, generate_chunk, new_cache
from wristworld_ros.models.wan.config import GeneratorConfig
from wristworld_ros.models.wan.transformer import AttentionPlan, WanTransformer


def transformer(patch_size=(1, 2, 2), head_dim=20):
    torch.manual_seed(0)
    return WanTransformer(
        GeneratorConfig(
            dim=2 * head_dim, ffn_dim=32, text_dim=8, freq_dim=16, num_heads=2, num_layers=2, clip_dim=8, clip_hidden=8,
            in_channels=4, out_channels=4, patch_size=patch_size,
        )
    ).eval()  # fmt: skip


def library_twin(model):
    twin = WanTransformer3DModel(**{k: v for k, v in model.config.items() if not k.startswith('_')}).eval()
    twin.load_state_dict(model.state_dict())
    return twin


@torch.no_grad()
@pytest.mark.parametrize('patch', [(1, 2, 2), (3, 1, 2)])
def test_a_plain_pass_equals_the_librarys_and_its_state_dict_is_the_same(patch):
    model = transformer(patch)
    twin = library_twin(model)
    inputs = torch.randn(2, 4, 3, 6, 8), torch.tensor([300.0, 900.0]), torch.randn(2, 5, 8)
    assert torch.allclose(model(*inputs), twin(*inputs).sample, atol=1e-5)
    assert list(model.state_dict()) == list(twin.state_dict())


@torch.no_grad()
def test_timesteps_of_frames_are_those_of_their_tokens():
    model = transformer()
    latents, context = torch.randn(2, 4, 3, 6, 8), torch.randn(2, 5, 8)
    timestep = torch.tensor([[300.0, 900.0, 0.0], [10.0, 20.0, 30.0]])
    wanted = library_twin(model)(latents, timestep.repeat_interleave(12, dim=1), context).sample
    assert torch.allclose(model(latents, timestep, context), wanted, atol=1e-5)


@torch.no_grad()
def test_runs_along_the_batch_are_one_sequence():
    model = transformer((1, 1, 1), head_dim=12)
    latents, timestep, context = torch.randn(2, 4, 6, 2, 3), torch.tensor([300.0, 900.0]), torch.randn(2, 5, 8)
    wanted = model(latents, timestep, context)
    runs = latents.unflatten(2, (3, 2)).transpose(1, 2).flatten(0, 1)
    found = model(runs, timestep.repeat_interleave(3), context.repeat_interleave(3, 0), AttentionPlan(runs=3))
    assert torch.allclose(found.unflatten(0, (2, 3)).transpose(1, 2).flatten(2, 3), wanted, atol=1e-5)


@torch.no_grad()
def test_a_pass_that_fails_leaves_nothing_behind(monkeypatch):
    model = transformer()
    inputs = torch.randn(1, 4, 2, 4, 4), torch.tensor([300.0]), torch.randn(1, 5, 8)
    before = {name: id(value) for module in model.modules() for name, value in vars(module).items()}
    wanted = model(*inputs)
    cache = KVCache(layers=2, batch=1, heads=2, head_dim=20, chunk_tokens=8, chunk_frames=2, history_chunks=1)
    streamed = model(*inputs, AttentionPlan(cache=cache))
    too_small = KVCache(layers=2, batch=1, heads=2, head_dim=20, chunk_tokens=4, chunk_frames=2, history_chunks=1)
    with pytest.raises(ValueError, match=r'KVCache\.append'):
        model(*inputs, AttentionPlan(positions=torch.tensor([7, 9]), cache=too_small))
    with monkeypatch.context() as patch:  # Fails half way, after the first block has written to the cache.
        patch.setattr(model.blocks[1], 'forward', None)
        with pytest.raises(TypeError):
            model(*inputs, AttentionPlan(positions=torch.tensor([5, 6]), cache=cache))
    assert torch.equal(model(*inputs), wanted)
    assert (cache.chunks, cache.positions.tolist()) == (0, [0, 1])
    assert torch.equal(model(*inputs, AttentionPlan(cache=cache)), streamed)
    assert {name: id(value) for module in model.modules() for name, value in vars(module).items()} == before


@torch.no_grad()
def test_streams_in_two_threads_share_one_model(small_gen):
    """Each has its own cache, at another place of its video; what they give is what they give one after the other."""
    chunks, rounds = 6, 20
    context = small_gen.context(None, None)
    noise = torch.randn(2, chunks, 1, 192, 2, 4, 4, generator=torch.Generator().manual_seed(0))

    def generate(stream):
        cache = new_cache(small_gen, (4, 4))
        if stream:
            cache.positions += 1000
            generate_chunk(small_gen, noise[0, 0], None, context, cache)
        return [generate_chunk(small_gen, part, None, context, cache, steps=2) for part in noise[stream]]

    wanted = [generate(0), generate(1)]
    found = [[], []]
    barrier = threading.Barrier(2)

    def run(stream):
        for _ in range(rounds):
            barrier.wait(60)
            found[stream].append(generate(stream))

    threads = [threading.Thread(target=run, args=(stream,)) for stream in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(f) for f in found] == [rounds, rounds]
    wrong = sum(not torch.equal(a, b) for s in (0, 1) for f in found[s] for a, b in zip(f, wanted[s], strict=True))
    assert wrong == 0, f'{wrong} of {2 * rounds * chunks} chunks differ'
