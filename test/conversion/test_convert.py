"""`wristworld convert`: a whole release in miniature becomes a model directory that runs; what is wrong is named."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from wristworld_ros import cli
from wristworld_ros.conversion import convert as module
from wristworld_ros.conversion.convert import convert_release
from wristworld_ros.conversion.settings import ConvertSettings
from wristworld_ros.generation.release import text_encoder_from_release
from wristworld_ros.settings import StreamSettings
from wristworld_ros.streaming import ModelError, VirtualWrist, load_model, load_stage1, load_stage2, save_model
from wristworld_ros.types import AnchorSet

STAGE1, VIDEO = 'VGGT/checkpoint.pt', 'VideoModel/video_dit_lora.safetensors'
VAE, PLAIN = 'BaseModel/Wan2.1_VAE.pth', 'BaseModel/diffusion_pytorch_model.safetensors'
CLIP = 'BaseModel/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth'
TEXT, TOKENIZER = 'BaseModel/models_t5_umt5-xxl-enc-bf16.pth', 'google/umt5-xxl'


def settings(release, out, **changes):
    tiny = ConvertSettings(
        out=str(out), sizes=str(release / 'sizes.json'), wrist_width=48, wrist_height=32, anchor_width=56
    )
    return replace(tiny, **changes)


def convert(release, out, **changes):
    return convert_release([release], settings(release, out, **changes), progress=False)


@pytest.fixture(scope='module')
def converted(release, tmp_path_factory):
    return convert(release, tmp_path_factory.mktemp('out') / 'mini')


@pytest.fixture(scope='module')
def model(converted):
    torch.set_num_threads(1)
    return load_model(str(converted), 'cpu')


@pytest.fixture(scope='module')
def looking(converted):
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
    save_model(model, tmp_path / 'again', half=False)
    again = load_model(str(tmp_path / 'again'), 'cpu')
    for part in ('stage1', 'generator', 'autoencoder'):
        before, after = getattr(model, part).state_dict(), getattr(again, part).state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


# It runs


@pytest.mark.parametrize(('chunk', 'counts'), [(1, [1, 4, 4]), (2, [5, 8]), (3, [9, 12])])
def test_the_stream_gives_one_frame_for_every_anchor_set(looking, chunk, counts):
    """Wan's autoencoder: 1 + 4 (c - 1) frames of the first chunk of c latent frames, 4 c of every other."""
    wrist, total, came = VirtualWrist(looking, StreamSettings(chunk=chunk)), sum(counts), []
    frames = []
    for i in range(total):
        ready = wrist.push(anchor_set(i))
        frames += ready
        came += [len(ready)] if ready else []
    assert came == counts
    assert [f.stamp_ns for f in frames] == list(range(total))
    assert all(f.image.shape == (32, 48, 3) and f.condition.shape == (32, 48, 3) for f in frames)
    assert frames[-1].image.std() > 0 and not np.array_equal(frames[0].image, frames[-1].image)


def test_a_stamp_that_goes_back_starts_with_a_single_frame_again(looking):
    wrist = VirtualWrist(looking, StreamSettings())
    assert len(push_all(wrist, 7, start=10)) == 5
    (again,) = wrist.push(anchor_set(3))
    (fresh,) = VirtualWrist(looking, StreamSettings()).push(anchor_set(3))
    assert np.array_equal(again.image, fresh.image)


def test_two_streams_of_a_model_do_not_meet_in_its_autoencoder(looking):
    alone = push_all(VirtualWrist(looking, StreamSettings()), 5)
    one, other = VirtualWrist(looking, StreamSettings()), VirtualWrist(looking, StreamSettings(seed=1))
    together = []
    for i in range(5):
        together += one.push(anchor_set(i))
        other.push(anchor_set(i + 50))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize('part', ['text_context', 'negative_text_context'])
def test_prompt_and_negative_prompt_both_steer_the_stream(looking, part):
    (before,) = VirtualWrist(looking, StreamSettings()).push(anchor_set(0))
    tensor = getattr(looking.generator, part)
    kept = tensor.clone()
    try:
        tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)))
        (after,) = VirtualWrist(looking, StreamSettings()).push(anchor_set(0))
    finally:
        tensor.copy_(kept)
    assert not np.array_equal(before.image, after.image)


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


def test_stage1_alone_needs_stage1s_file_alone(release, tmp_path):
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


def test_stage2_alone_needs_no_stage1(own_release, tmp_path):
    (own_release / STAGE1).unlink()
    out = convert(own_release, tmp_path / 'out', parts='stage2')
    _, generator, autoencoder = load_stage2(str(out))
    assert generator.own_text().shape == (1, 40, 32) and autoencoder.temporal_stride == 4


def test_unwanted_heads_are_left_out(release, tmp_path):
    out = convert(release, tmp_path / 'out', parts='stage1', heads=['camera', 'wrist', 'points'])
    names = {name.split('.')[0] for name in load_file(out / 'stage1.safetensors')}
    assert names == {'aggregator', 'camera_head', 'wrist_head', 'point_head'}
    load_stage1(str(out))


def test_plain_vggt_and_wan_become_a_start_for_training_that_does_not_pretend_to_run(release, tmp_path, numbers):
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


# Bad files


class Runs:
    """What a malicious checkpoint does when it is unpickled: here it makes a folder beside itself."""

    def __init__(self, beside):
        self.mark = str(beside.with_name('ran'))

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def edit(path, change):
    tensors = load_file(path) if path.suffix == '.safetensors' else torch.load(path, weights_only=True)
    save = save_file if path.suffix == '.safetensors' else torch.save
    tensors = tensors.get('model', tensors)
    change(tensors)
    save(tensors, path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-2000])


def without(key):
    return lambda path: edit(path, lambda tensors: tensors.pop(key))


def reshaped(key):
    return lambda path: edit(path, lambda tensors: tensors.update({key: torch.zeros(3, 5)}))


def added(key):
    return lambda path: edit(path, lambda tensors: tensors.update({key: torch.zeros(3, 5)}))


BAD = [
    (STAGE1, cut, 'checkpoint.pt cannot be read as a torch file'),
    (VIDEO, cut, 'video_dit_lora.safetensors cannot be read as safetensors'),
    (TEXT, cut, 'bf16.pth cannot be read as a torch file'),
    (VAE, lambda p: p.write_bytes(b''), 'Wan2.1_VAE.pth cannot be read as a torch file'),
    (CLIP, lambda p: p.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid x'), 'pointer of Git LFS'),
    (STAGE1, lambda p: torch.save({'model': Runs(p)}, p), 'holds more than tensors'),
    (STAGE1, without('aggregator.camera_token'), 'checkpoint.pt: key aggregator.camera_token is missing'),
    (STAGE1, without('wrist_head.token_query'), 'checkpoint.pt: key wrist_head.token_query is missing (wanted shape [1, 1, 64])'),
    (STAGE1, reshaped('aggregator.register_token'), 'register_token has shape [3, 5], wanted [1, 2, 4, 32]'),
    (STAGE1, added('adapter.weight'), 'checkpoint.pt: key adapter.weight (shape [3, 5]) is not part'),
    (VIDEO, without('ext_proj.3.bias'), 'video_dit_lora.safetensors: key ext_proj.3.bias is missing (wanted shape [32])'),
    (VIDEO, reshaped('denoising_model.blocks.1.ffn.0.weight'), 'ffn.0.weight has shape [3, 5], wanted [64, 48]'),
    (VIDEO, reshaped('denoising_model.patch_embedding.weight'), 'patch_embedding.weight has shape [3, 5], wanted 5'),
    (VAE, reshaped('decoder.head.2.weight'), 'Wan2.1_VAE.pth: key decoder.head.2.weight has shape [3, 5], wanted'),
    (VAE, without('encoder.conv1.bias'), 'Wan2.1_VAE.pth: key'),
    (CLIP, reshaped('visual.transformer.1.attn.to_qkv.weight'), 'to_qkv.weight has shape [3, 5], wanted [96, 32]'),
    (CLIP, without('visual.cls_embedding'), 'vit-huge-14.pth: key visual.cls_embedding is missing'),
    (TEXT, without('blocks.1.ffn.fc2.weight'), 'bf16.pth: key blocks.1.ffn.fc2.weight is missing (wanted shape [32, 48])'),
    (TEXT, lambda p: edit(p, lambda t: t.update({'token_embedding.weight': t['token_embedding.weight'][:20]})), 'has 20'),
    (f'{TOKENIZER}/tokenizer.json', lambda p: p.unlink(), 'umt5-xxl holds no tokenizer'),
    (f'{TOKENIZER}/tokenizer.json', lambda p: p.write_text('{'), 'umt5-xxl cannot be read as a tokenizer'),
    *((name, lambda p: p.rename(p.with_name('renamed')), f'{name} (') for name in (STAGE1, VIDEO, VAE, CLIP, TEXT)),
]  # fmt: skip


@pytest.mark.parametrize(('name', 'spoil', 'said'), BAD, ids=[f'{i}-{bad[2][:40]}' for i, bad in enumerate(BAD)])
def test_a_bad_file_is_one_sentence_and_leaves_nothing(own_release, tmp_path, name, spoil, said, capsys):
    spoil(own_release / name)
    out = tmp_path / 'out'
    status = cli.main(
        [
            'convert',
            str(own_release),
            '--out',
            str(out),
            '--sizes',
            str(own_release / 'sizes.json'),
            '--wrist-width',
            '48',
        ]
    )
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith('wristworld convert: ')]
    assert status == 2 and len(error) == 1 and said in error[0]
    assert os.listdir(tmp_path) == ['release']


def test_code_in_a_checkpoint_does_not_run(own_release, tmp_path):
    path = own_release / STAGE1
    torch.save({'model': Runs(path)}, path)
    with pytest.raises(ModelError, match='could run code'):
        convert(own_release, tmp_path / 'out')
    assert not (path.parent / 'ran').exists()
    torch.load(path, weights_only=False)
    assert (path.parent / 'ran').exists(), 'the trap itself works'


def test_a_number_of_heads_that_shapes_do_not_tell_is_asked_for(release, tmp_path):
    for section in ('generator', 'anchor_encoder'):
        told = json.loads((release / 'sizes.json').read_text())
        del told[section]['num_heads']
        (tmp_path / 'sizes.json').write_text(json.dumps(told))
        with pytest.raises(ModelError, match=f'say num_heads under {section}'):
            convert(release, tmp_path / 'out', sizes=str(tmp_path / 'sizes.json'))


def test_files_of_two_models_do_not_go_together(own_release, tmp_path, numbers):
    edit(own_release / VIDEO, lambda t: t.update({'ext_proj.0.weight': torch.zeros(24, 16)}))
    with pytest.raises(ModelError, match=r'visual\.cls_embedding has 32 channels, wanted 16 \(ext_proj'):
        convert(own_release, tmp_path / 'out')


def test_a_number_that_is_not_finite_is_named(own_release, tmp_path):
    edit(own_release / VIDEO, lambda t: t['denoising_model.blocks.0.modulation'].fill_(1e30))
    with pytest.raises(ValueError, match=r'blocks\.0\.modulation is not finite as torch\.float16'):
        convert(own_release, tmp_path / 'out', dtype='float16')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('option', ['--stage1', '--clip'])
def test_a_file_of_another_name_is_taken_when_it_is_given(own_release, tmp_path, option):
    name = {'--stage1': STAGE1, '--clip': CLIP}[option]
    other = (own_release / name).rename(tmp_path / 'mine.pth')
    arguments = ['--sizes', str(own_release / 'sizes.json'), '--wrist-height', '32', option, str(other)]
    assert cli.main(['convert', str(own_release), '--out', str(tmp_path / 'out'), *arguments]) == 0
    assert (tmp_path / 'out' / 'generator.safetensors').exists()


# All or nothing


def test_an_existing_target_is_kept_unless_forced_and_then_wholly_replaced(release, tmp_path):
    out = convert(release, tmp_path / 'out', parts='stage1')
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(ModelError, match='--force'):
        convert(release, out)
    assert before == {p.name: p.read_bytes() for p in out.iterdir()}
    (out / 'left over').write_text('of the old model')
    convert(release, out, force=True)
    assert sorted(os.listdir(out)) == [
        'README.md', 'autoencoder.safetensors', 'config.json', 'generator.safetensors', 'stage1.safetensors'
    ]  # fmt: skip
    assert os.listdir(tmp_path) == ['out']


def test_force_replaces_no_directory_that_is_not_a_model(release, tmp_path):
    precious = tmp_path / 'home' / 'thesis.txt'
    precious.parent.mkdir()
    precious.write_text('everything')
    with pytest.raises(ModelError, match='no model directory'):
        convert(release, precious.parent, force=True)
    assert precious.read_text() == 'everything'


def test_a_target_that_holds_the_sources_is_refused(own_release):
    (own_release / 'config.json').write_text('{}')
    with pytest.raises(ModelError, match='would replace'):
        convert(own_release, own_release, force=True)
    assert (own_release / STAGE1).exists()


@pytest.mark.parametrize('error', [OSError('No space left on device'), KeyboardInterrupt()])
@pytest.mark.parametrize('force', [False, True])
def test_an_end_in_the_middle_leaves_the_target_as_it_was(release, tmp_path, monkeypatch, error, force):
    out, real = tmp_path / 'out', module.write_tensors
    if force:
        convert(release, out, parts='stage1')
    before = {p.name: p.read_bytes() for p in out.iterdir()} if force else None

    def dies(path, *args):
        if path.name == 'generator.safetensors':
            path.write_bytes(b'half of it')
            raise error
        return real(path, *args)

    monkeypatch.setattr(module, 'write_tensors', dies)
    with pytest.raises(type(error)):
        convert(release, out, force=force)
    assert os.listdir(tmp_path) == (['out'] if force else [])
    if force:
        assert before == {p.name: p.read_bytes() for p in out.iterdir()}


def test_what_a_killed_run_left_is_cleared_by_the_next(release, tmp_path):
    """A child process dies while it writes, without any of Python's cleaning up."""

    def killed(path, *args):
        path.write_bytes(b'half of it')
        os._exit(9)

    pid = os.fork()
    if pid == 0:
        try:
            module.write_tensors = killed
            convert(release, tmp_path / 'out', parts='stage1')
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    (left,) = os.listdir(tmp_path)
    assert left != 'out' and os.listdir(tmp_path / left) == ['stage1.safetensors']
    out = convert(release, tmp_path / 'out', parts='stage1')
    assert os.listdir(tmp_path) == ['out']
    load_stage1(str(out))


def test_a_run_killed_while_it_swaps_directories_gives_the_old_model_back(release, tmp_path):
    out = convert(release, tmp_path / 'out', parts='stage1')
    out.rename(tmp_path / '.out.replaced')
    with pytest.raises(ModelError, match='there already'):
        convert(release, out, parts='stage1')
    load_stage1(str(out))


def test_two_runs_do_not_write_one_target(release, tmp_path, monkeypatch):
    real = module.write_tensors

    def second(*args):
        monkeypatch.setattr(module, 'write_tensors', real)
        with pytest.raises(ModelError, match='another conversion'):
            convert(release, tmp_path / 'out', parts='stage1')
        return real(*args)

    monkeypatch.setattr(module, 'write_tensors', second)
    load_stage1(str(convert(release, tmp_path / 'out', parts='stage1')))


def test_the_command_says_where_the_model_lies_and_its_licences(release, tmp_path, capsys):
    arguments = ['--parts', 'stage1', '--dtype', 'bfloat16', '--sizes', str(release / 'sizes.json'), '--name', 'mine']
    assert cli.main(['convert', str(release), '--out', str(tmp_path / 'out'), *arguments]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / 'out') in said and 'non-commercial' in said
    assert load_file(tmp_path / 'out' / 'stage1.safetensors')['aggregator.camera_token'].dtype == torch.bfloat16
    assert json.loads((tmp_path / 'out' / 'config.json').read_text())['name'] == 'mine'
