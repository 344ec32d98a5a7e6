"""`wristworld convert`: a whole release in miniature becomes a model directory that runs; what is wrong is named."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from wristworld_ros import cli
from wristworld_ros.apps.convert.convert import convert_release
from wristworld_ros.models.config import ModelError
from wristworld_ros.models.wan.checkpoints import text_encoder_from_release
from wristworld_ros.pipeline import VirtualWrist, load_model, save_model
from wristworld_ros.pipeline.model_directory import load_stage1, load_stage2
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet

STAGE1, VIDEO = 'VGGT/checkpoint.pt', 'VideoModel/video_dit_lora.safetensors'
VAE, PLAIN = 'BaseModel/Wan2.1_VAE.pth', 'BaseModel/diffusion_pytorch_model.safetensors'
CLIP = 'BaseModel/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth'
TEXT, TOKENIZER = 'BaseModel/models_t5_umt5-xxl-enc-bf16.pth', 'google/umt5-xxl'


@pytest.fixture(scope='module')
def converted(release, tmp_path_factory, convert):
    return convert(release, tmp_path_factory.mktemp('out') / 'mini')


@pytest.fixture(scope='module')
def model(converted):
    torch.set_num_threads(1)
    return load_model(str(converted), 'cpu')


@pytest.fixture(scope='module')
def reconstructing(converted):
    """The converted model with fields of view: random heads predict none, which is a focal length of infinity."""
    model = load_model(str(converted), 'cpu')
    for head in (model.stage1.camera_head, model.stage1.wrist_head):
        head.pose_branch.fc2.bias[7:] += 1.0
    return model


def anchor_set(i, views=2):
    rng = np.random.default_rng(i)
    return AnchorSet(i, tuple(f'view{v}' for v in range(views)), rng.integers(0, 256, (views, 60, 80, 3), np.uint8))


def push_all(wrist, count, start=0):
    return [frame for i in range(start, start + count) for frame in wrist.push(anchor_set(i))]


# What comes out is what went in


def agrees(found, wanted, relative=1e-4):
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= relative * wanted.abs().max()


@torch.no_grad()
def test_stage1_computes_what_its_weights_computed_before(model, numbers):
    fixture = numbers('stage1_public')
    out = model.stage1(fixture['input.images'])
    for name in ('wrist_pose_enc', 'camera_pose_enc', 'world_points', 'depth'):
        agrees(getattr(out, name), fixture[f'output.{name}'])


@torch.no_grad()
def test_autoencoder_and_vision_tower_compute_what_their_weights_computed_before(model, numbers):
    vae, clip = numbers('wan_vae_public'), numbers('wan_clip_public')
    agrees(model.autoencoder.encode(vae['input.video']), vae['output.latents'])
    agrees(model.autoencoder.decode(vae['output.latents']), vae['output.decoded'])
    found = model.generator.anchor_encoder.features(clip['input.images'])
    agrees(found, clip['output.features'], 2e-3)  # the release stores this file in half precision


def test_the_transformers_weights_come_through_unchanged(model, release):
    own = model.generator.release_tensors()
    for name, tensor in load_file(release / VIDEO).items():
        assert torch.equal(own[name], tensor.float()), name


def test_every_tensor_keeps_its_precision_on_disk(converted):
    generator = load_file(converted / 'generator.safetensors')
    assert generator['denoising_model.patch_embedding.weight'].dtype == torch.bfloat16
    assert generator['anchor_encoder.tower.embeddings.class_embedding'].dtype == torch.float16
    assert load_file(converted / 'stage1.safetensors')['aggregator.camera_token'].dtype == torch.float32


@torch.no_grad()
def test_prompts_are_embedded_by_the_releases_tokenizer_and_encoder(model, numbers, converted):
    """The ids are written out by hand: words of the vocabulary, letters, the end token."""
    weights = {k[8:]: v for k, v in numbers('wan_t5_public').items() if k.startswith('weights.')}
    text = text_encoder_from_release(weights, {'vocab': 64, 'dim': 32, 'dim_ffn': 48, 'num_heads': 4, 'num_layers': 3})
    letters = {c: i + 5 for i, c in enumerate('abcdefghijklmnopqrstuvwxyz')}
    ids = torch.tensor([[32, 4, *(letters[c] for c in 'manipulation'), 33, 1]])
    wanted = text.context(ids, torch.ones_like(ids))[0]
    found = model.generator.own_text()[0]
    agrees(found[: len(wanted)], wanted, 0.05)  # the release computes it in bfloat16
    assert not found[len(wanted) :].any() and found.shape == (40, 32)
    assert not torch.equal(found, model.generator.own_text(negative=True)[0])


def test_a_loaded_model_can_be_saved_and_loaded_again(model, tmp_path):
    save_model(model, tmp_path / 'again', dtype=torch.float32)
    again = load_model(str(tmp_path / 'again'), 'cpu')
    for part in ('stage1', 'generator', 'autoencoder'):
        before, after = getattr(model, part).state_dict(), getattr(again, part).state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


# It runs


@pytest.mark.parametrize(('chunk', 'counts'), [(1, [1, 4, 4]), (2, [5, 8]), (3, [9, 12])])
def test_the_stream_gives_one_frame_for_every_anchor_set(reconstructing, chunk, counts):
    """Wan's autoencoder: 1 + 4 (c - 1) frames of the first chunk of c latent frames, 4 c of every other."""
    wrist, total, came = VirtualWrist(reconstructing, StreamSettings(chunk=chunk)), sum(counts), []
    frames = []
    for i in range(total):
        ready = wrist.push(anchor_set(i))
        frames += ready
        came += [len(ready)] if ready else []
    assert came == counts
    assert [f.stamp_ns for f in frames] == list(range(total))
    assert all(f.image.shape == (32, 48, 3) and f.condition.shape == (32, 48, 3) for f in frames)
    assert frames[-1].image.std() > 0 and not np.array_equal(frames[0].image, frames[-1].image)


def test_a_stamp_that_goes_back_starts_with_a_single_frame_again(reconstructing):
    wrist = VirtualWrist(reconstructing, StreamSettings())
    assert len(push_all(wrist, 7, start=10)) == 5
    (again,) = wrist.push(anchor_set(3))
    (new,) = VirtualWrist(reconstructing, StreamSettings()).push(anchor_set(3))
    assert np.array_equal(again.image, new.image)


def test_two_streams_of_a_model_do_not_share_state_in_its_autoencoder(reconstructing):
    alone = push_all(VirtualWrist(reconstructing, StreamSettings()), 5)
    one, other = VirtualWrist(reconstructing, StreamSettings()), VirtualWrist(reconstructing, StreamSettings(seed=1))
    together = []
    for i in range(5):
        together += one.push(anchor_set(i))
        other.push(anchor_set(i + 50))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize(
    ('part', 'guidance', 'steers'),
    [('text_context', 1.0, True), ('negative_text_context', None, True), ('negative_text_context', 1.0, False)],
)
def test_the_prompt_steers_the_stream_and_the_negative_one_does_under_guidance(reconstructing, part, guidance, steers):
    settings = StreamSettings(guidance=guidance)
    (before,) = VirtualWrist(reconstructing, settings).push(anchor_set(0))
    tensor = getattr(reconstructing.generator, part)
    kept = tensor.clone()
    try:
        tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)))
        (after,) = VirtualWrist(reconstructing, settings).push(anchor_set(0))
    finally:
        tensor.copy_(kept)
    assert np.array_equal(before.image, after.image) != steers


# Parts, and plain VGGT and Wan


def plain_vggt(release, folder):
    folder.mkdir()
    weights = torch.load(release / STAGE1, weights_only=True)['model']
    public = {name: t for name, t in weights.items() if not name.startswith('wrist_head.')}
    save_file(public, folder / 'model.safetensors')
    return folder


def plain_wan(release, folder):
    folder.mkdir()
    for name in (VAE, PLAIN, TEXT):
        shutil.copy(release / name, folder)
    shutil.copytree(release / TOKENIZER, folder / TOKENIZER)
    return folder


def test_stage1_alone_needs_stage1s_file_alone(release, tmp_path, settings):
    (tmp_path / 'VGGT').mkdir()
    shutil.copy(release / STAGE1, tmp_path / 'VGGT')
    out = convert_release([tmp_path], settings(release, tmp_path / 'out', parts='stage1'), progress=False)
    assert sorted(os.listdir(out)) == ['README.md', 'config.json', 'stage1.safetensors']
    config, stage1 = load_stage1(str(out))
    assert stage1.config.depth == 4 and not config.generator
    with pytest.raises(ModelError, match='stage 1 alone'):
        load_model(str(out), 'cpu')
    with pytest.raises(ModelError, match='no stage 2'):
        load_stage2(str(out))


def test_stage2_alone_needs_no_stage1(own_release, tmp_path, convert):
    (own_release / STAGE1).unlink()
    out = convert(own_release, tmp_path / 'out', parts='stage2')
    _, generator, autoencoder = load_stage2(str(out))
    assert generator.own_text().shape == (1, 40, 32) and autoencoder.temporal_stride == 4


def test_unwanted_heads_are_left_out(release, tmp_path, convert):
    out = convert(release, tmp_path / 'out', parts='stage1', heads=['camera', 'wrist', 'points'])
    names = {name.split('.')[0] for name in load_file(out / 'stage1.safetensors')}
    assert names == {'aggregator', 'camera_head', 'wrist_head', 'point_head'}
    load_stage1(str(out))


def test_plain_vggt_and_wan_become_a_start_for_training_that_does_not_pretend_to_run(
    release, tmp_path, numbers, settings
):
    vggt, wan = plain_vggt(release, tmp_path / 'vggt'), plain_wan(release, tmp_path / 'wan')
    out = convert_release([vggt, wan], settings(release, tmp_path / 'out'), progress=False)
    with pytest.raises(ModelError, match='never trained: the wrist head'):
        load_model(str(out), 'cpu')
    _, stage1 = load_stage1(str(out))
    assert 'wrist' not in stage1.config.heads
    config, generator, _ = load_stage2(str(out))
    assert not config.use_anchor_tokens
    patch = generator.transformer.patch_embedding.weight
    wanted = load_file(release / PLAIN)['patch_embedding.weight'].float()
    assert torch.equal(patch[:, :16], wanted) and not patch[:, 16:].any()
    text = (out / 'README.md').read_text()
    assert 'VGGT-1B: non-commercial' in text and 'WristWorld' not in text and 'Not a wrist camera yet' in text


# The card


def test_the_card_names_every_file_with_its_licence_and_hash(release, converted):
    lines = (converted / 'README.md').read_text().splitlines()
    licences = {
        STAGE1: 'none stated by WristWorld; made from VGGT-1B: non-commercial',
        VIDEO: 'none stated by WristWorld; made from Apache-2.0 (Wan2.1)',
        VAE: 'Apache-2.0 (Wan2.1)', CLIP: 'Apache-2.0 (Wan2.1)', TEXT: 'Apache-2.0 (Wan2.1)',
        f'{TOKENIZER}/tokenizer.json': 'Apache-2.0 (Wan2.1)',
    }  # fmt: skip
    for name, licence in licences.items():
        (line,) = [line for line in lines if f'{"/".join(name.split("/")[-2:])}`' in line]
        assert licence in line and hashlib.sha256((release / name).read_bytes()).hexdigest() in line
    for name in ('stage1.safetensors', 'generator.safetensors', 'autoencoder.safetensors'):
        (line,) = [line for line in lines if f'`{name}`' in line]
        assert hashlib.sha256((converted / name).read_bytes()).hexdigest() in line
    assert str(release) not in '\n'.join(lines), 'a card travels; paths of a machine do not'


def test_the_command_says_where_the_model_lies_and_its_licences(release, tmp_path, capsys):
    arguments = ['--parts', 'stage1', '--dtype', 'bfloat16', '--sizes', str(release / 'sizes.json'), '--name', 'mine']
    assert cli.main(['convert', str(release), '--out', str(tmp_path / 'out'), *arguments]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / 'out') in said and 'non-commercial' in said
    assert load_file(tmp_path / 'out' / 'stage1.safetensors')['aggregator.camera_token'].dtype == torch.bfloat16
    assert json.loads((tmp_path / 'out' / 'config.json').read_text())['name'] == 'mine'
