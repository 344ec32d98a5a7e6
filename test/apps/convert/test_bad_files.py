"""Files that are wrong, truncated, renamed or malicious: one sentence names file, key and shapes, and nothing is left."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from wristworld_ros import cli
from wristworld_ros.errors import UserError
from wristworld_ros.models.config import ModelError

STAGE1, VIDEO = 'VGGT/checkpoint.pt', 'VideoModel/video_dit_lora.safetensors'
VAE = 'BaseModel/Wan2.1_VAE.pth'
CLIP = 'BaseModel/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth'
TEXT, TOKENIZER = 'BaseModel/models_t5_umt5-xxl-enc-bf16.pth', 'google/umt5-xxl'


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


def test_code_in_a_checkpoint_does_not_run(own_release, tmp_path, convert):
    path = own_release / STAGE1
    torch.save({'model': Runs(path)}, path)
    with pytest.raises(ModelError, match='could run code'):
        convert(own_release, tmp_path / 'out')
    assert not (path.parent / 'ran').exists()
    torch.load(path, weights_only=False)
    assert (path.parent / 'ran').exists(), 'the trap itself works'


def test_a_number_of_heads_that_shapes_do_not_say_is_asked_for(release, tmp_path, convert):
    for section in ('generator', 'anchor_encoder'):
        told = json.loads((release / 'sizes.json').read_text())
        del told[section]['num_heads']
        (tmp_path / 'sizes.json').write_text(json.dumps(told))
        with pytest.raises(ModelError, match=f'state num_heads under {section}'):
            convert(release, tmp_path / 'out', sizes=str(tmp_path / 'sizes.json'))


def test_files_of_two_models_do_not_go_together(own_release, tmp_path, numbers, convert):
    edit(own_release / VIDEO, lambda t: t.update({'ext_proj.0.weight': torch.zeros(24, 16)}))
    with pytest.raises(ModelError, match=r'visual\.cls_embedding has 32 channels, wanted 16 \(ext_proj'):
        convert(own_release, tmp_path / 'out')


def test_a_number_that_is_not_finite_is_named(own_release, tmp_path, convert):
    edit(own_release / VIDEO, lambda t: t['denoising_model.blocks.0.modulation'].fill_(1e30))
    with pytest.raises(UserError, match=r'blocks\.0\.modulation is not finite as torch\.float16'):
        convert(own_release, tmp_path / 'out', dtype='float16')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('option', ['--stage1', '--clip'])
def test_a_file_of_another_name_is_taken_when_it_is_given(own_release, tmp_path, option):
    name = {'--stage1': STAGE1, '--clip': CLIP}[option]
    other = (own_release / name).rename(tmp_path / 'mine.pth')
    arguments = ['--sizes', str(own_release / 'sizes.json'), '--wrist-height', '32', option, str(other)]
    assert cli.main(['convert', str(own_release), '--out', str(tmp_path / 'out'), *arguments]) == 0
    assert (tmp_path / 'out' / 'generator.safetensors').exists()
