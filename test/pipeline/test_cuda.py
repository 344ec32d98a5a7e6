"""On a GPU: the same numbers as on the CPU, graphs or not, in streams of their own, and no wait inside a step."""

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wristworld_ros.apps.bench.reference_renderer import render_reference
from wristworld_ros.geometry import condition_map
from wristworld_ros.pipeline import VirtualWrist, load_model, tiny_random_model
from wristworld_ros.pipeline.generate import ChunkGenerator
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.runtime.cuda_graphs import CudaGraphRunner
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')


def anchor_set(i, hw=(42, 56)):
    images = np.random.default_rng(i).integers(0, 256, (2, *hw, 3), dtype=np.uint8)
    return AnchorSet(i * 100_000_000, ('a', 'b'), images)


def settings(**changes):
    return StreamSettings(min_coverage=0.0, min_confidence=0.0, history=2, **changes)


def video(model, count=12, **changes):
    stream = VirtualWrist(model, settings(**changes))
    return np.stack([f.image for i in range(count) for f in stream.push(anchor_set(i))]).astype(int)


@pytest.mark.parametrize('steps', [1, 2])
def test_the_stream_is_that_of_the_cpu_with_and_without_graphs(steps):
    wanted = video(tiny_random_model(), steps=steps)
    for graphs in (False, True):
        found = video(tiny_random_model(device='cuda'), steps=steps, graphs=graphs)
        assert np.abs(found - wanted).max() <= 2, f'graphs={graphs}'


def test_the_shipped_model_in_bfloat16_is_close_to_float32():
    wanted, found = (video(load_model('sim_tiny', 'cuda', p)) for p in ('float32', 'bfloat16'))
    assert np.abs(found - wanted).mean() < 4


@pytest.mark.parametrize('size', [(84, 112), (42, 56)])
def test_steps_do_not_wait_for_the_device(size):
    model = tiny_random_model(device='cuda')
    reconstruction, stream = ReconstructionStep(model), ChunkGenerator(model, settings(steps=2))
    colors = torch.zeros(2, 42, 56, 3, dtype=torch.uint8, device='cuda')
    images = torch.zeros(2, *size, 3, dtype=torch.uint8, device='cuda')
    noise, condition = torch.randn(1, 192, 1, 4, 4, device='cuda'), torch.randn(1, 320, 1, 4, 4, device='cuda')

    def step():
        reconstruction._condition(*reconstruction._scene(colors), images, colors)
        (context,) = stream._context(torch.zeros(2, 1, 32, 32, 3, dtype=torch.uint8, device='cuda'))
        (latents,) = stream._sample_chunk(noise[None], condition, context)
        stream._write_chunk(latents, condition, context)

    with torch.inference_mode():
        step()
        torch.cuda.set_sync_debug_mode('error')
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode('default')


def test_both_halves_in_two_threads_are_push_in_one():
    model = tiny_random_model(device='cuda')
    wanted = video(model)
    stream, observations, found = VirtualWrist(model, settings()), [], []
    stream.warm_up(('a', 'b'), (42, 56))
    ready = threading.Semaphore(0)

    def generate():
        for i in range(12):
            ready.acquire()
            found.extend(stream.generate(observations[i]))

    thread = threading.Thread(target=generate)
    thread.start()
    for i in range(12):
        observations.append(stream.reconstruct(anchor_set(i)))
        ready.release()
    thread.join()
    assert np.array_equal(np.stack([f.image for f in found]), wanted)


def test_a_replayed_function_gives_each_call_its_own_result():
    double = CudaGraphRunner(lambda x: (2 * x,), enabled=True)
    inputs = [torch.randn(5, device='cuda') for _ in range(4)]
    outputs = [double(x)[0] for x in inputs]
    for x, y in zip(inputs, outputs, strict=True):
        assert torch.equal(y, 2 * x)
    assert torch.equal(double(torch.ones(7, device='cuda'))[0], torch.full((7,), 2.0, device='cuda'))


def test_the_splat_is_the_reference_rendering_of_a_random_scene():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.4, (200_000, 3)).astype(np.float32) + np.float32([0, 0, 1.5])
    colors = rng.integers(0, 256, (200_000, 3), dtype=np.uint8)
    K, T = np.array([[400.0, 0, 259], [0, 400.0, 147], [0, 0, 1]]), np.eye(4)
    wanted, _ = render_reference(points, colors, K, T, image_hw=(294, 518), radius=2)
    tensors = (torch.from_numpy(a).cuda() for a in (points, colors, K, T))
    found, _ = condition_map(*tensors, image_hw=(294, 518), radius=2)
    assert np.array_equal(found.cpu().numpy(), wanted)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_attention_kernels_agree_with_float64(dtype):
    q, k, v = (torch.randn(1, 12, n, 128, device='cuda') for n in (1560, 3120, 3120))
    wanted = F.scaled_dot_product_attention(*(t.double() for t in (q, k, v)))
    found = F.scaled_dot_product_attention(*(t.to(dtype) for t in (q, k, v)))
    bound = {torch.float32: 1e-3, torch.bfloat16: 2e-2}[dtype]
    assert (found - wanted).abs().max() < bound
