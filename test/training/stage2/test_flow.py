"""The published training of stage 2: latents in shards, adapters, flow matching, and clips that are learnt by heart."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.metrics import psnr
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import WanAutoencoder, autoencoder_from_config
from wristworld_ros.models.wan.config import MINIATURE
from wristworld_ros.pipeline.generate import to_pixels
from wristworld_ros.training.checkpoint import read_tensors
from wristworld_ros.training.config import FlowLosses, GenerationConfig, GenerationModel
from wristworld_ros.training.config_reading import changed, default_config
from wristworld_ros.training.stage2.adapters import adapt, adapter_tensors, merged
from wristworld_ros.training.stage2.flow import FlowClips, flow_losses, sample_clip_video, train_flow
from wristworld_ros.training.stage2.latents import ClipEncoder, list_clips, prepare_clips, read_clip, shard_index

REAL = Path(__file__).parents[4] / 'shared/data/droid_real/videos'
CONFIG = changed(
    default_config(GenerationConfig), model={'network': 'miniature'},
    data={'width': 32, 'height': 16, 'frames': 3, 'clips': 2, 'condition': 'anchor'}, losses={'drop_anchors': 0.0},
    schedule={'steps': 4, 'batch': 2, 'workers': 0, 'precision': 'float32', 'checkpoint_every': 2, 'samples_every': 4, 'learning_rate': 1e-3},
)  # fmt: skip


def record(folder, seed, frames=6, hw=(16, 32)):
    """An episode of coloured noise."""
    rng = np.random.default_rng(seed)
    K, T = np.stack([np.eye(3)] * frames), np.stack([np.eye(4)] * frames)

    def track(name, role):
        small = rng.integers(0, 256, (frames, hw[0] // 8, hw[1] // 8, 3))
        return CameraTrack(name, role, small.repeat(8, 1).repeat(8, 2).astype(np.uint8), K, T, None)

    cameras = [track('front', 'anchor'), track('side', 'anchor'), track('wrist', 'wrist')]
    write_episode(
        folder, task='none', seed=seed, fps=10, success=True, stamps_ns=np.arange(frames) * 10**8, cameras=cameras
    )


@pytest.fixture(scope='module')
def episodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('episodes')
    for i in range(2):
        record(folder / f'{i:06d}', i)
    return folder


def encoder(data=CONFIG.data, weights='a'):
    torch.manual_seed(0)
    return ClipEncoder(
        WristGenerator.from_config(MINIATURE), autoencoder_from_config(MINIATURE['autoencoder']), data, weights, None
    )


def test_clips_are_encoded_once_under_their_content(episodes, tmp_path):
    clips = list_clips(episodes, CONFIG.data)
    assert [(c.index, c.start) for c in clips] == [(0, 0), (0, 3), (1, 0), (1, 3)]
    keys = prepare_clips(clips, encoder(), tmp_path)
    (shard,) = tmp_path.glob('*.safetensors')
    written = shard.stat().st_mtime_ns
    assert prepare_clips(clips, encoder(), tmp_path) == keys and shard.stat().st_mtime_ns == written
    assert not set(keys) & set(prepare_clips(clips[:1], encoder(weights='b'), tmp_path)), 'other weights, other latents'
    clip = read_clip(shard_index(tmp_path)[keys[3]], keys[3])
    images = to_pixels(autoencoder_from_config(MINIATURE['autoencoder']).decode(clip['latents'][None])).numpy()
    assert np.abs(images.astype(int) - open_data_set(episodes).episode(1).read('wrist', [3, 4, 5])).max() <= 1
    assert clip['features'].shape == (2, 3, 32) and clip['condition'].shape == clip['latents'].shape == (48, 3, 4, 8)


def test_shards_of_several_processes_hold_every_clip_once(episodes, tmp_path):
    clips = list_clips(episodes, CONFIG.data)
    keys = [prepare_clips(clips, encoder(), tmp_path, process, 2) for process in range(2)]
    assert (
        keys[0] == keys[1]
        and set(shard_index(tmp_path)) == set(keys[0])
        and len(list(tmp_path.glob('*.safetensors'))) == 2
    )
    (tmp_path / '.0.part.safetensors').write_bytes(b'')
    assert set(shard_index(tmp_path)) == set(keys[0]), 'a shard that another process is writing is none yet'


def test_latents_of_wans_own_autoencoder_are_what_it_encodes(episodes, tmp_path):
    torch.manual_seed(0)
    wan = WanAutoencoder(dim=8, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4).eval()
    data = changed(CONFIG, data={'frames': 5}).data
    made = ClipEncoder(WristGenerator.from_config(MINIATURE), wan, data, 'wan', None)
    (clip, *_) = list_clips(episodes, data)
    tensors = made(clip, open_data_set(episodes).episode(0))
    assert (
        tensors['latents'].shape == tensors['condition'].shape == (4, 2, 2, 4)
        and torch.isfinite(tensors['latents']).all()
    )


def test_a_sample_depends_on_its_place_alone(episodes, tmp_path):
    keys = prepare_clips(list_clips(episodes, CONFIG.data), encoder(), tmp_path)
    whole = FlowClips(tmp_path, keys, CONFIG.losses, 4, 3)[5]
    parts = [FlowClips(tmp_path, keys, CONFIG.losses, 2, 3, process, 2)[5] for process in range(2)]
    assert all(torch.equal(whole[name], torch.cat([part[name] for part in parts])) for name in whole)
    assert len({float(s) for s in whole['sigma']}) == 4


def test_timesteps_are_shifted_and_samples_lose_what_guidance_needs(episodes, tmp_path):
    keys = prepare_clips(list_clips(episodes, CONFIG.data), encoder(), tmp_path)
    losses = FlowLosses(shift=5.0, drop_anchors=0.25, condition_noise=0.2)
    clips = FlowClips(tmp_path, keys, losses, 50, 0)
    batches = [clips[i] for i in range(6)]
    sigma, kept, noise = (
        torch.cat([b[name] for b in batches]) for name in ('sigma', 'with_anchors', 'condition_sigma')
    )
    assert 0.78 < sigma.median() < 0.87, 'half shifted by 5 is 5/6'
    assert 0.15 < 1 - kept.mean() < 0.35 and noise.max() < 0.2 and noise.min() >= 0


def test_guidance_sees_what_was_left_out(episodes, tmp_path):
    torch.manual_seed(0)
    keys = prepare_clips(list_clips(episodes, CONFIG.data), encoder(), tmp_path)
    generator, batch = WristGenerator.from_config(MINIATURE), FlowClips(tmp_path, keys, CONFIG.losses, 2, 0)[0]
    torch.nn.init.normal_(generator.transformer.proj_out.weight, std=0.1)

    def total(**values):
        return float(flow_losses(generator, batch | values, 'cpu')['total'].detach())

    other = batch['features'] + 1
    dropped = {'with_anchors': torch.zeros(2)}
    assert total(features=other) != total() and total(**dropped, features=other) == total(**dropped)
    bare = {'with_condition': torch.zeros(2)}
    assert total(condition=other.new_zeros(batch['condition'].shape), **bare) == total(**bare) != total()


def test_merged_adapters_compute_what_the_adapted_network_did():
    pytest.importorskip('peft')
    torch.manual_seed(0)
    generator, plain = WristGenerator.from_config(MINIATURE), WristGenerator.from_config(MINIATURE)
    model = GenerationModel(network='miniature', rank=2, alpha=3.0)
    adapt(generator, model)
    for name, p in generator.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(p, std=0.1)
    trained = {name for name, p in generator.named_parameters() if p.requires_grad}
    # Two attentions of four layers and two of the feed-forward network, in four blocks, each up and down.
    assert len([name for name in trained if 'lora_' in name]) == 4 * 10 * 2
    assert {name.split('.')[0] for name in trained if 'lora_' not in name} == {
        'transformer',
        'ext_proj',
        'temporal_embed',
        'view_embed',
        'text_context',
    }
    state = generator.state_dict()
    plain.load_state_dict(merged(state, model))
    assert len(adapter_tensors(state)) == 80
    x, condition, t, context = (
        torch.randn(1, 48, 2, 4, 4),
        torch.randn(1, 48, 2, 4, 4),
        torch.tensor([500.0]),
        torch.randn(1, 72, 32),
    )
    with torch.no_grad():
        assert torch.allclose(
            generator.predict(x, condition, t, context), plain.predict(x, condition, t, context), atol=1e-5
        )


def test_a_run_leaves_merged_weights_adapters_pictures_and_a_log(episodes, tmp_path):
    pytest.importorskip('peft')
    train_flow(episodes, episodes, tmp_path, CONFIG, None, 'cpu')
    WristGenerator.from_config(json.loads((tmp_path / 'config.json').read_text())).load_state_dict(
        read_tensors(tmp_path)
    )
    assert len(read_tensors(tmp_path / 'adapter.safetensors')) == 80
    assert (tmp_path / 'samples/00000004.png').exists()
    log = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert [r['step'] for r in log] == [2, 4] and all(np.isfinite(r['val_total']) for r in log)


def test_a_condition_without_a_model_is_told(episodes, tmp_path):
    with pytest.raises(UserError, match=r'model\.model is none'):
        train_flow(episodes, None, tmp_path, changed(CONFIG, data={'condition': 'reconstruction'}), None, 'cpu')
    with pytest.raises(UserError, match=r'No episode of .* has 7 frames'):
        train_flow(episodes, None, tmp_path, changed(CONFIG, data={'frames': 7}), None, 'cpu')


def by_heart(episodes, out, steps, count):
    """PSNR of clips that a miniature was trained on alone, dB; sampled with 20 steps from other noise than it was trained with."""
    config = changed(
        CONFIG, model={'adapt': 'full'}, data={'clips': 1}, losses={'condition_noise': 0.0, 'shift': 3.0},
        schedule={'steps': steps, 'batch': count, 'optimizer': 'muon', 'learning_rate': 3e-3, 'beta2': 0.98, 'warm_up': 20, 'average': 0.9,
                  'checkpoint_every': 10_000, 'samples_every': None},
    )  # fmt: skip
    generator = train_flow(episodes, None, out, config, None, 'cpu').eval()
    autoencoder = autoencoder_from_config(MINIATURE['autoencoder'])
    clips = FlowClips(out / 'latents', list(shard_index(out / 'latents')), config.losses, 1, 0)
    assert len(clips) == count
    return [
        float(
            np.mean(
                psnr(
                    sample_clip_video(generator, autoencoder, clip, 20),
                    to_pixels(autoencoder.decode(clip['latents'])).numpy(),
                )
            )
        )
        for clip in (clips.clip(i) for i in range(count))
    ]


def test_made_clips_are_learnt(episodes, tmp_path):
    assert min(by_heart(episodes, tmp_path, 100, 2)) > 5
    log = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert log[-1]['total'] < 0.6 * log[0]['total'], 'means of the first 20 and of the last 20 of 100 steps'


@pytest.mark.slow
def test_four_real_clips_are_learnt_by_heart(tmp_path):
    if not REAL.exists():
        pytest.skip('the real clips (../shared/data/droid_real) are not here')
    cameras = {name: {'video': f'{{stem}}/{i}.mp4'} for i, name in enumerate(('exterior_1', 'exterior_2', 'wrist'))}
    mapping = {'cameras': cameras, 'episodes': '[0-3]', 'root': str(REAL / 'train')}
    (tmp_path / 'videos.yaml').write_text(yaml.safe_dump(mapping))
    # 72 seconds of one core; 34.2 to 36.4 dB. Nothing but the network limits it: latents of this miniature are the pixels themselves.
    assert min(by_heart(tmp_path / 'videos.yaml', tmp_path / 'out', 600, 4)) > 30
