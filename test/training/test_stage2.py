"""Stage 2 trains on clips, with and without what the paper's ablations take away."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from wristworld_ros.models.wan import WristGenerator, block_causal_predict, chunk_contexts
from wristworld_ros.pipeline import tiny_random_model
from wristworld_ros.pipeline.model_saving import save_model
from wristworld_ros.training.stage2.data import Stage2Clips, Stage2Sampling, sample_clip
from wristworld_ros.training.stage2.train import (
    ClipTrainer,
    Stage2Training,
    common_mount,
    image_losses,
    noise_levels,
    predict_independent,
    uses_history,
)
from wristworld_ros.training.trainer import Step, start_from


@pytest.fixture
def clips(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        np.savez(
            tmp_path / f'{i}.npz',
            condition=rng.integers(0, 256, (3, 10, 32, 32, 3), dtype=np.uint8),
            depth=rng.uniform(0, 1, (3, 10, 32, 32)).astype(np.float16),
            trust=rng.integers(0, 256, (3, 10, 32, 32), dtype=np.uint8),
            objects=rng.integers(0, 3, (10, 32, 32), dtype=np.uint8),
            anchors=rng.integers(0, 256, (i + 1, 10, 32, 32, 3), dtype=np.uint8),
            wrist=rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8),
        )
    return sorted(tmp_path.glob('*.npz'))


def test_batches_have_the_views_that_all_their_clips_have(clips):
    batch = Stage2Clips(clips, Stage2Sampling(batch=8, frames=4, chunks=(2,)), seed=0)[0]
    assert batch['wrist'].shape == (8, 3, 4, 32, 32) and batch['wrist'].abs().max() <= 1
    assert batch['anchors'].shape == (8, 1, 4, 3, 32, 32) and batch['chunk'] == 2


def test_a_mirrored_clip_is_mirrored_in_all_its_images(clips):
    plain, mirrored = (sample_clip(clips[1], 2, 4, np.random.default_rng(0), mirror=share) for share in (0.0, 1.0))
    widths = {'condition': 2, 'depth': 2, 'trust': 2, 'wrist': 2, 'objects': 2, 'anchors': 3}
    for name, width in widths.items():
        assert np.array_equal(np.flip(mirrored[name], width), plain[name]), name
        assert not np.array_equal(mirrored[name], plain[name])


@pytest.mark.parametrize('left_out', [{}, {'condition': False}, {'anchor_tokens': False}])
@pytest.mark.parametrize('chunk', [1, 2, 4])
@pytest.mark.parametrize('progress', [0.0, 1.0])
def test_every_part_in_use_gets_a_gradient(clips, left_out, chunk, progress):
    run = Stage2Training(model=tiny_random_model().config.generator, **left_out)
    gen = WristGenerator.from_config(run.model).train()
    batch = Stage2Clips(clips, Stage2Sampling(batch=2, frames=4, chunks=(chunk,)), seed=0)[0]
    terms = ClipTrainer(run, 'cpu')(gen, batch, Step(0, progress))
    terms['total'].backward()
    assert torch.isfinite(terms['total'])
    assert gen.decoder.last.weight.grad.abs().max() > 0
    assert (gen.ext_proj[0].weight.grad is not None) == run.anchor_tokens


@torch.no_grad()
def test_independent_chunks_are_the_causal_pass_without_history():
    gen = WristGenerator.from_config(tiny_random_model().config.generator)
    noisy, condition = torch.randn(2, 192, 4, 4, 4), torch.randn(2, 320, 4, 4, 4)
    contexts, sigma = chunk_contexts(gen, torch.randn(2, 2, 4, 16), [2, 2]), torch.rand(2, 2)
    none = torch.zeros(2, dtype=torch.long)
    whole = block_causal_predict(
        gen, noisy, torch.randn_like(noisy), condition, 1000 * sigma, contexts, 2, visible=none
    )
    assert torch.allclose(predict_independent(gen, noisy, condition, sigma, contexts), whole, atol=1e-5)


def test_history_is_used_late_and_as_often_as_asked():
    run = Stage2Training(history=0.6, history_from=0.5)
    assert not any(uses_history(run, Step(number, 0.4)) for number in range(10))
    assert sum(uses_history(run, Step(number, 0.9)) for number in range(100)) == 60


@pytest.mark.parametrize('number', [0, 1])  # without history, and with it
def test_noise_is_made_where_the_latents_are(clips, number, monkeypatch):
    """On the meta device any operation of a CPU and a device tensor is refused."""
    run = Stage2Training(model=tiny_random_model().config.generator, history=0.5, history_from=0.0)
    batch = Stage2Clips(clips, Stage2Sampling(batch=2, frames=4, chunks=(2,)), seed=0)[0]
    step = Step(number, 1.0)
    assert uses_history(run, step) == bool(number)
    gen = WristGenerator.from_config(run.model).to('meta').train()
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: nullcontext())  # it does not know this device
    assert ClipTrainer(run, 'meta')(gen, batch, step)['total'].device.type == 'meta'


def test_views_that_the_generator_does_not_take_are_left_out(clips):
    sampling = Stage2Sampling(batch=2, frames=4, chunks=(2,))
    assert Stage2Clips(clips[1:], sampling, 0)[0]['anchors'].shape[1] == 2
    assert Stage2Clips(clips[1:], sampling, 0, max_views=1)[0]['anchors'].shape[1] == 1


def test_the_same_number_gives_the_same_batch_and_another_process_another(clips):
    sampling = Stage2Sampling(batch=2, frames=4, chunks=(2,))
    one, same, other = (Stage2Clips(clips, sampling, 0, process)[5]['wrist'] for process in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_equal_images_cost_next_to_nothing():
    video = torch.rand(1, 3, 2, 32, 32) * 2 - 1
    terms = image_losses(video, video.clone(), torch.ones(1, 2, 32, 32, dtype=torch.uint8), Stage2Training())
    assert float(terms['structure']) == pytest.approx(0, abs=1e-5)
    assert float(terms['mse']) == 0 and float(terms['total']) < 0.011


def test_an_error_on_an_object_costs_more_than_elsewhere():
    truth = torch.zeros(1, 3, 1, 32, 32)
    objects = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    objects[..., :8, :8] = 1
    on, off = truth.clone(), truth.clone()
    on[..., 2:6, 2:6] = 0.5
    off[..., 20:24, 20:24] = 0.5
    run = Stage2Training(structure=0.0)
    on, off = (image_losses(image, truth, objects, run) for image in (on, off))
    assert float(on['l1']) > 2 * float(off['l1']) and float(on['edges']) > 2 * float(off['edges'])
    assert float(on['mse']) == float(off['mse']) and float(off['object_mse']) == 0


def test_permuted_colours_are_permuted_alike_in_all_images(clips):
    plain, permuted = (sample_clip(clips[1], 2, 4, np.random.default_rng(1), permute=share) for share in (0.0, 1.0))
    order = [
        int(np.argmax([np.array_equal(permuted['wrist'][..., i], plain['wrist'][..., j]) for j in range(3)]))
        for i in range(3)
    ]
    assert sorted(order) == [0, 1, 2]
    for name in ('condition', 'wrist', 'anchors'):
        assert np.array_equal(permuted[name], plain[name][..., order]), name


def test_noise_levels_are_in_range_and_often_the_last():
    torch.manual_seed(0)
    sigma = noise_levels(500, 4, 0.35)
    assert float(sigma.min()) > 0 and float(sigma.max()) == 1
    assert 0.3 < float((sigma == 1).float().mean()) < 0.4


def test_a_run_starts_from_the_generator_of_a_model_directory(tmp_path):
    model = tiny_random_model()
    save_model(model, tmp_path / 'model', torch.float32)
    other = WristGenerator.from_config(model.config.generator)
    start_from(other, tmp_path / 'model' / 'generator.safetensors')
    wanted = model.generator.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize(('metres', 'common'), [((0.05, 0.052), True), ((0.05, 0.12), False), ((0.05, None), False)])
def test_the_mount_of_a_training_set_is_that_of_all_its_cameras_or_none(tmp_path, metres, common):
    mounts = []
    for i, x in enumerate(metres):
        mounts.append(np.eye(4))
        mounts[-1][0, 3] = x or 0
        np.savez(tmp_path / f'{i}.npz', wrist=np.zeros(1), **({} if x is None else {'mount': mounts[-1]}))
    found = common_mount(sorted(tmp_path.glob('*.npz')))
    assert (found is not None) == common
    if common:
        np.testing.assert_array_equal(found, mounts[0])
