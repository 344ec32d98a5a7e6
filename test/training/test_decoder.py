"""A tiny decoder learns a model's own autoencoder, goes into its directory and streams from there."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from wristworld_ros import cli
from wristworld_ros.apps.convert.convert import convert_release
from wristworld_ros.apps.convert.settings import ConvertSettings
from wristworld_ros.apps.doctor.weights import weight_findings
from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.data.video import write_video
from wristworld_ros.errors import UserError
from wristworld_ros.models.config import ModelError
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder
from wristworld_ros.pipeline import VirtualWrist, load_model, save_model
from wristworld_ros.pipeline.model_directory import load_autoencoder
from wristworld_ros.pipeline.offline import encode_video, generate_video
from wristworld_ros.settings import StreamSettings, WindowSettings
from wristworld_ros.training.decoder.data import ClipSettings, DecoderData, DecoderRecording, prepare_clips, split
from wristworld_ros.training.decoder.install import make_tiny_decoder, with_section
from wristworld_ros.training.decoder.train import DecoderTraining, train_tiny_decoder
from wristworld_ros.training.trainer import TrainerConfig
from wristworld_ros.types import AnchorSet

FEW = TrainerConfig(steps=20, warm_up=5, average=0.9, learning_rate=3e-3, checkpoint_every=10)
RUN = DecoderTraining(width=4, blocks=1, batch=1, workers=0, config=FEW)


def smooth_images(seed, hw, frames=9):
    """Drifting waves, uint8 [frames, h, w, 3]."""
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    phase = np.arange(frames)[:, None, None] * 0.3 + seed
    waves = [np.sin(columns / 7 + phase), np.sin(rows / 5 - phase), np.sin((rows + columns) / 9 + 2 * phase)]
    return (128 + 100 * np.stack(waves, -1)).astype(np.uint8)


@pytest.fixture(scope='module')
def episodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('recorded')
    K, T = np.stack([np.eye(3)] * 9), np.stack([np.eye(4)] * 9)
    for i in range(2):
        cameras = [
            CameraTrack('wrist', 'wrist', smooth_images(i, (32, 48)), K, T),
            CameraTrack('left', 'anchor', smooth_images(i + 7, (48, 64)), K, T),
        ]
        write_episode(
            folder / f'{i:06d}', task='none', seed=i, fps=10, success=True, stamps_ns=np.arange(9), cameras=cameras
        )
    return folder


@pytest.fixture(scope='module')
def converted(release, tmp_path_factory):
    settings = ConvertSettings(
        out=str(tmp_path_factory.mktemp('out') / 'mini'), sizes=str(release / 'sizes.json'), wrist_width=48,
        wrist_height=32, anchor_width=56,
    )  # fmt: skip
    return convert_release([release], settings, progress=False)


@pytest.fixture
def data(episodes):
    return DecoderData(episodes, frames=9)


@pytest.fixture(scope='module')
def trained(converted, episodes, tmp_path_factory):
    """The converted miniature with a tiny decoder, its run's folder and its result."""
    torch.set_num_threads(2)
    folder = shutil.copytree(converted, tmp_path_factory.mktemp('trained') / 'mini')
    out = tmp_path_factory.mktemp('run')
    _, result = make_tiny_decoder(str(folder), DecoderData(episodes, frames=9), out, RUN, 'cpu')
    return folder, out, result


@pytest.fixture
def own(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / 'mini')


# What a run comes to


def test_the_held_out_loss_falls_and_the_card_tells_it(trained):
    folder, _, result = trained
    assert result.loss['total'] < result.start['total'] and result.loss['l1'] < result.start['l1']
    assert (result.clips, result.held_out, result.steps) == (2, 2, 20)
    assert result.cost.operations_ratio > 10
    card = (folder / 'README.md').read_text()
    assert card.count('## Tiny decoder') == 1 and '## Sources' in card
    assert f'| L1 | {result.start["l1"]:.4f} | {result.loss["l1"]:.4f} |' in card
    assert f'{result.psnr["tiny_full"]:.2f}' in card and f'{result.psnr["full_original"]:.2f}' in card
    assert f'ratio {result.cost.operations_ratio:.1f}' in card and f'ratio {result.cost.time_ratio:.1f}' in card
    assert json.loads((folder / 'config.json').read_text())['tiny_decoder'] == {'width': 4, 'blocks': 1}
    assert not [path.name for path in folder.iterdir() if path.name.startswith('.')]


def test_a_second_run_replaces_weights_and_section(trained, own, data, tmp_path):
    before = (own / 'README.md').read_text()
    wider = replace(RUN, width=6, config=replace(FEW, steps=2))
    make_tiny_decoder(str(own), data, tmp_path / 'run', wider, 'cpu')
    card = (own / 'README.md').read_text()
    hashes = [re.search(r'`tiny_decoder.safetensors` \|.*`([0-9a-f]{64})`', text)[1] for text in (before, card)]
    assert hashes[0] != hashes[1] and hashes[0] not in card
    assert card.count('## Tiny decoder') == 1 and 'width 6' in card and 'width 4' not in card
    load_model(str(own), 'cpu', decoder='tiny')


def test_a_finished_run_called_again_trains_no_further(trained, own, data):
    _, out, result = trained
    _, again = make_tiny_decoder(str(own), data, out, RUN, 'cpu')
    assert again.steps == result.steps and again.loss == result.loss


def test_a_section_in_the_middle_of_a_card_leaves_the_rest():
    card = '# m\n\n## Tiny decoder\n\nold\n\n## Files\n\nrest\n'
    assert with_section(card, '## Tiny decoder\n\nnew\n') == '# m\n\n## Tiny decoder\n\nnew\n\n## Files\n\nrest\n'


# What it learns from


def test_clips_are_the_output_of_the_full_decoder(converted, episodes, tmp_path):
    config, vae = load_autoencoder(str(converted))
    settings = ClipSettings(config.wrist_hw, frames=5, per_camera=1)
    weights = converted / 'autoencoder.safetensors'
    paths = prepare_clips([DecoderRecording(episodes / '000000')], tmp_path, vae, weights, settings, 'cpu')
    assert len(paths) == 2, 'a clip of the wrist camera and one of the anchor'
    with np.load(paths[0]) as f:
        assert f['original'].shape == (5, 32, 48, 3) and f['target'].shape == (3, 5, 32, 48)
        video = torch.from_numpy(f['original']).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        latents, target = torch.from_numpy(f['latents'])[None], torch.from_numpy(f['target'].astype(np.float32))[None]
    with torch.no_grad():
        assert torch.allclose(vae.encode(video), latents, atol=1e-5)
        assert torch.allclose(vae.decode(latents), target, atol=1e-3)


def test_clips_of_other_settings_or_another_recording_are_not_taken(converted, episodes, tmp_path):
    config, vae = load_autoencoder(str(converted))
    settings = ClipSettings(config.wrist_hw, frames=5, per_camera=1)
    recording = shutil.copytree(episodes / '000000', tmp_path / 'recorded')

    def clips(settings):
        return prepare_clips(
            [DecoderRecording(recording)],
            tmp_path / 'clips',
            vae,
            converted / 'autoencoder.safetensors',
            settings,
            'cpu',
        )

    before = clips(settings)
    assert clips(settings) == before
    assert not set(before) & set(clips(replace(settings, frames=9)))
    shutil.rmtree(recording)
    shutil.copytree(episodes / '000001', recording)
    assert not set(before) & set(clips(settings))


def test_videos_give_clips_too(own, tmp_path):
    paths = [tmp_path / f'{i}.mp4' for i in range(2)]
    for i, path in enumerate(paths):
        write_video(path, iter(smooth_images(i, (32, 48))), 10)
    data = DecoderData(videos=tuple(map(str, paths)), frames=9)
    _, result = make_tiny_decoder(str(own), data, tmp_path / 'run', replace(RUN, config=replace(FEW, steps=1)), 'cpu')
    assert (result.clips, result.held_out) == (1, 1)
    assert '2 videos' in (own / 'README.md').read_text()


# The stream


def test_a_model_with_its_tiny_decoder_streams(trained):
    folder = trained[0]
    full, tiny = load_model(str(folder), 'cpu'), load_model(str(folder), 'cpu', decoder='tiny')
    assert isinstance(tiny.autoencoder, TinyAutoencoder)
    assert tiny.autoencoder.full.vae.decoder is None, "the full decoder's weights take no memory"
    frames = {}
    for name, model in (('full', full), ('tiny', tiny)):
        for head in (model.stage1.camera_head, model.stage1.wrist_head):
            head.pose_branch.fc2.bias[7:] += 1.0  # random heads predict no field of view
        wrist = VirtualWrist(model, StreamSettings(decoder=name, min_coverage=0.0, min_confidence=0.0))
        rng = np.random.default_rng(0)
        frames[name] = []
        for stamp in range(9):
            images = rng.integers(0, 256, (2, 60, 80, 3), np.uint8)
            frames[name] += wrist.push(AnchorSet(stamp, ('left', 'right'), images))
    assert [f.stamp_ns for f in frames['tiny']] == [f.stamp_ns for f in frames['full']] == list(range(9))
    assert all(f.valid and f.image.shape == (32, 48, 3) for f in frames['tiny'])
    assert any((a.image != b.image).any() for a, b in zip(frames['tiny'], frames['full'], strict=True))
    with pytest.raises(ValueError, match='load it with decoder full'):
        save_model(tiny, folder.parent / 'saved')


def test_windows_are_decoded_by_it_too(trained):
    tiny = load_model(str(trained[0]), 'cpu', decoder='tiny')
    for head in (tiny.stage1.camera_head, tiny.stage1.wrist_head):
        head.pose_branch.fc2.bias[7:] += 1.0
    images = smooth_images(3, (60, 80))
    encoded = encode_video(tiny, (AnchorSet(i, ('left',), images[i][None]) for i in range(7)))
    images = list(generate_video(tiny, encoded, WindowSettings(steps=1)))
    assert len(images) == 7 and images[0].shape == (32, 48, 3)


def test_the_doctor_holds_its_weights_against_the_card(own):
    findings, _ = weight_findings(str(own))
    (finding,) = [f for f in findings if 'tiny_decoder.safetensors' in f.what]
    assert 'as its card says' in finding.what
    (own / 'tiny_decoder.safetensors').unlink()
    findings, _ = weight_findings(str(own))
    assert any('tiny_decoder.safetensors is missing' in f.what for f in findings)


def test_a_saved_model_leaves_the_tiny_decoder_behind(trained, tmp_path):
    save_model(load_model(str(trained[0]), 'cpu'), tmp_path / 'saved')
    with pytest.raises(ModelError, match=r'has no tiny_decoder\.safetensors'):
        load_model(str(tmp_path / 'saved'), 'cpu', decoder='tiny')


# What cannot be


def test_a_tiny_decoder_that_is_not_there_is_refused(converted, own):
    with pytest.raises(ModelError, match=r'no tiny_decoder\.safetensors; make it with `wristworld train tiny-decoder'):
        load_model(str(converted), 'cpu', decoder='tiny')
    with pytest.raises(ModelError, match=r'sim_tiny has no video autoencoder .* set decoder to full'):
        load_model('sim_tiny', 'cpu', decoder='tiny')
    with pytest.raises(ModelError, match="'lite'"):
        load_model(str(converted), 'cpu', decoder='lite')
    (own / 'tiny_decoder.safetensors').unlink()
    with pytest.raises(ModelError, match=r'tiny_decoder\.safetensors is missing'):
        load_model(str(own), 'cpu', decoder='tiny')
    config = json.loads((own / 'config.json').read_text())
    (own / 'config.json').write_text(json.dumps(config | {'tiny_decoder': {'depth': 3}}))
    with pytest.raises(ModelError, match='tiny_decoder has the unknown key depth'):
        load_model(str(own), 'cpu', decoder='tiny')


def test_what_cannot_be_learned_from_is_refused(converted, episodes, trained, tmp_path):
    model, out = str(converted), tmp_path / 'run'
    with pytest.raises(ModelError, match='sim_tiny has no video autoencoder'):
        make_tiny_decoder('sim_tiny', DecoderData(episodes), out, RUN, 'cpu')
    with pytest.raises(ValueError, match='There are 1 recordings'):
        split([DecoderRecording(episodes)])
    with pytest.raises(UserError, match=r'none\.mp4 does not exist'):
        make_tiny_decoder(model, DecoderData(videos=('none.mp4',)), out, RUN, 'cpu')
    with pytest.raises(ValueError, match='No recording has 21 frames'):
        make_tiny_decoder(model, DecoderData(episodes, frames=21), out, RUN, 'cpu')
    with pytest.raises(ValueError, match='8 frames, and this autoencoder takes 1'):
        make_tiny_decoder(model, DecoderData(episodes, frames=8), out, RUN, 'cpu')
    _, vae = load_autoencoder(model)
    with pytest.raises(ValueError, match='of width 4 and 1 blocks, not of 9 and 1'):
        train_tiny_decoder([], [], trained[1], replace(RUN, width=9), vae)


def test_the_command_asks_for_what_it_needs(episodes, capsys):
    assert cli.main(['train', 'tiny-decoder', str(episodes)]) == 2
    assert 'needs --model' in capsys.readouterr().err
    assert cli.main(['train', 'tiny-decoder', '--model', 'somewhere']) == 2
    assert 'needs the folder of episodes' in capsys.readouterr().err
