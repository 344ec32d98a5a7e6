"""What a model needs is known before it is loaded, and refused where it cannot be had."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.models.config import ModelConfig, ModelError
from wristworld_ros.models.vggt import VGGT_1B
from wristworld_ros.models.wan import WRISTWORLD_1_3B
from wristworld_ros.models.wan.autoencoders import WanAutoencoder
from wristworld_ros.models.wan.checkpoints import CLIP_VIT_H
from wristworld_ros.pipeline import memory_check, save_model, tiny_random_model
from wristworld_ros.pipeline.generate import ChunkGenerator
from wristworld_ros.runtime import machine
from wristworld_ros.runtime import memory_estimate as memory
from wristworld_ros.settings import StreamSettings

GIB = 2**30


@pytest.fixture(scope='module')
def tiny():
    return tiny_random_model()


@pytest.fixture(scope='module')
def tiny_dir(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    save_model(tiny, folder)
    return folder


def full_size():
    """The configuration that the released weights are converted to, with the heads that a robot needs."""
    generator = WRISTWORLD_1_3B | {
        'text': 'stored',
        'anchor_encoder': CLIP_VIT_H | {'resize': 'bicubic'},
        'autoencoder': {'kind': 'wan', 'dim': 96, 'z_dim': 16},
    }
    return ModelConfig(
        name='full', stage1=VGGT_1B | {'heads': ['camera', 'wrist', 'points']}, generator=generator, anchor_width=518,
        wrist_hw=(480, 832), cloud=CloudSettings(render_size=(294, 518)), noise_share=0.0,
    )  # fmt: skip


def test_the_weights_are_counted_as_they_will_be_held(tiny):
    count = memory.parameter_count(tiny.config)
    held = sum(t.numel() for m in tiny.networks for t in m.state_dict().values())
    assert count.low_precision + count.float32 == held and count.float32 > 0
    full, half = (memory.estimate_memory(tiny.config, StreamSettings(), 2, param_bytes=n).weights for n in (4, 2))
    assert full == 4 * held and half == 4 * count.float32 + 2 * count.low_precision


def test_the_cache_that_is_told_is_the_one_that_is_made(tiny):
    for chunk, history in ((1, 4), (2, 0)):
        made = ChunkGenerator(tiny, StreamSettings(chunk=chunk, history=history)).cache.nbytes
        assert memory.cache_bytes(tiny.config, chunk, history) == made


def test_guidance_doubles_the_keys_and_values_and_half_precision_halves_them():
    plain, own, one, half = (
        memory.estimate_memory(full_size(), StreamSettings(guidance=g), 1, param_bytes=n).cache
        for g, n in ((1.0, 4), (None, 4), (5.0, 4), (1.0, 2))
    )
    assert own == one == 2 * plain == 4 * half


def test_the_tiny_decoder_keeps_less_state():
    full, small = (memory.estimate_memory(full_size(), StreamSettings(decoder=d), 1).working for d in ('full', 'tiny'))
    assert small < full


def test_more_anchors_bigger_images_and_longer_chunks_take_more(tiny):
    least = memory.working_bytes(tiny.config, 1, (240, 320), 1)
    for case in ((2, (240, 320), 1), (1, (480, 640), 1), (1, (240, 320), 4)):
        assert memory.working_bytes(tiny.config, *case) > least


def test_the_state_of_wans_autoencoder_is_as_large_as_estimated():
    config = replace(full_size(), wrist_hw=(64, 96))
    config.generator['autoencoder']['dim'] = 16
    autoencoder = WanAutoencoder(16).eval().requires_grad_(False)
    encoder = decoder = None
    with torch.inference_mode():
        for frames in (1, 4, 4):
            latents, encoder = autoencoder.encode_next(torch.zeros(1, 3, frames, 64, 96), encoder)
            _, decoder = autoencoder.decode_next(latents, decoder)
    held = sum(4 * t.numel() for state in (encoder, decoder) for t in state if torch.is_tensor(t))
    assert memory.autoencoder_bytes(config)[0] == pytest.approx(held, rel=0.05)


def test_the_full_size_is_estimated_without_its_memory_and_bfloat16_takes_less():
    full, half = (memory.estimate_memory(full_size(), StreamSettings(), 1, param_bytes=n) for n in (4, 2))
    assert 13 * GIB < full.weights < 15 * GIB and 7 * GIB < half.weights < 9 * GIB
    assert half.total < 0.65 * full.total and full.total < 40 * GIB


def test_what_cannot_be_is_refused_in_one_sentence_with_what_is_needed_and_free_and_what_to_change(
    tiny_dir, monkeypatch
):
    settings = StreamSettings(model=str(tiny_dir), device='cpu')
    needed = memory_check.estimate_for(settings, 2)[0].total
    monkeypatch.setattr(memory_check, 'free_ram', lambda: needed - 1)
    with pytest.raises(ModelError) as caught:
        memory_check.check_memory(settings, 2)
    text = str(caught.value)
    assert text.count('\n') == 0 and text.endswith('.')
    for words in ('MiB of RAM', 'are free', 'history', 'precision', 'anchors', 'chunk'):
        assert words in text
    monkeypatch.setattr(memory_check, 'free_ram', lambda: needed + 1)
    assert 'tight' in memory_check.check_memory(settings, 2)
    monkeypatch.setattr(memory_check, 'free_ram', lambda: 2 * needed)
    assert memory_check.check_memory(settings, 2) == ''
    monkeypatch.setattr(memory_check, 'free_ram', lambda: 0)  # the system does not say
    assert memory_check.check_memory(settings, 2) == ''


def test_free_ram_heeds_the_limit_of_a_container(tmp_path):
    meminfo = tmp_path / 'meminfo'
    meminfo.write_text('MemTotal: 9 kB\nMemAvailable:    2048 kB\n')
    assert machine.free_ram(meminfo, tmp_path) == 2048 * 1024
    (tmp_path / 'memory.current').write_text('1000\n')
    (tmp_path / 'memory.max').write_text('max\n')
    assert machine.free_ram(meminfo, tmp_path) == 2048 * 1024
    (tmp_path / 'memory.max').write_text('5000\n')
    assert machine.free_ram(meminfo, tmp_path) == 4000
    assert machine.free_ram(tmp_path / 'none', tmp_path) == 0


MEASURE = """
import json
import numpy as np
import torch
from wristworld_ros.settings import StreamSettings
from wristworld_ros.pipeline import VirtualWrist, load_model
from wristworld_ros.pipeline.memory_check import estimate_for
from wristworld_ros.types import AnchorSet

def status(key):
    return next(int(row.split()[1]) * 1024 for row in open('/proc/self/status') if row.startswith(key))

settings = StreamSettings(device='cpu', threads=1)
needed = estimate_for(settings, 2, (480, 640))[0].total
before = status('VmRSS')
model = load_model(settings.model, 'cpu')
model.configure_process(settings.threads)
wrist = VirtualWrist(model, settings)
images = np.random.default_rng(0).integers(0, 256, (2, 480, 640, 3), np.uint8)
for i in range(8):
    wrist.push(AnchorSet(i, ('a', 'b'), images))
print(json.dumps([needed, status('VmHWM') - before]))
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_the_shipped_model_takes_about_what_was_estimated():
    done = subprocess.run([sys.executable, '-c', MEASURE], capture_output=True, text=True, check=True, timeout=300)
    needed, taken = json.loads(done.stdout.splitlines()[-1])
    assert 0.6 < needed / taken < 1.8
