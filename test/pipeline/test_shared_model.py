"""Streams share a model and nothing else."""

import threading

import numpy as np
import torch

from wristworld_ros.pipeline import VirtualWrist, tiny_random_model
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet

FRAMES = 60


def video(model, seed, start):
    torch.set_num_threads(1)  # every thread has a number of its own, and sums in other pieces are rounded in other ways
    stream = VirtualWrist(model, StreamSettings(steps=2, seed=seed, min_coverage=0.0, min_confidence=0.0))
    start.wait()
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (FRAMES, 2, 42, 56, 3), dtype=np.uint8)
    return np.stack([f.image for i, p in enumerate(images) for f in stream.push(AnchorSet(i, ('a', 'b'), p))])


def test_two_streams_of_one_model_in_two_threads_make_what_each_makes_by_itself():
    model, alone = tiny_random_model(), threading.Barrier(1)
    wanted = [video(model, seed, alone) for seed in (0, 1)]
    found, both = {}, threading.Barrier(2)
    threads = [threading.Thread(target=lambda s=s: found.update({s: video(model, s, both)})) for s in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (0, 1):
        wrong = (found[seed] != wanted[seed]).any(axis=(1, 2, 3)).sum()
        assert wrong == 0, f'{wrong} of {FRAMES} frames of stream {seed} differ'
