"""A complete miniature of the published release: the same files, formats and key names, tiny sizes.

Stage 1, the video autoencoder, the vision tower and the text encoder are the models of the numeric fixtures in `test/fixtures`,
so that what is converted can be held against the outputs in there. The video transformer has the published key list with
every dimension shrunk.
"""

import ast
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from wristworld_ros.apps.convert.convert import convert_release
from wristworld_ros.apps.convert.settings import ConvertSettings

DATA = Path(__file__).parents[2] / 'fixtures'
VIDEO, STAGE1 = 'VideoModel/video_dit_lora.safetensors', 'VGGT/checkpoint.pt'
VAE, PLAIN = 'BaseModel/Wan2.1_VAE.pth', 'BaseModel/diffusion_pytorch_model.safetensors'
CLIP = 'BaseModel/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth'
TEXT, TOKENIZER = 'BaseModel/models_t5_umt5-xxl-enc-bf16.pth', 'google/umt5-xxl'
# Published dimension -> miniature dimension; clip and text are the fixtures'.
SHRUNK = {1536: 48, 8960: 64, 9216: 288, 4096: 32, 256: 16, 1280: 32, 2048: 24}
# What shapes do not tell and is not as published.
SIZES = {'generator': {'num_heads': 4, 'context_length': 40, 'sampling_steps': 2}, 'anchor_encoder': {'num_heads': 4}}


def published_keys(name):
    lines = (DATA / f'{name}.txt').read_text().splitlines()
    return {key: tuple(ast.literal_eval(shape)) for key, shape in (line.split(' ', 1) for line in lines)}


def fixture_parts(name):
    """Weights and the rest of a numeric fixture."""
    with safe_open(DATA / f'{name}.safetensors', 'pt') as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    weights = {key.removeprefix('weights.'): t for key, t in tensors.items() if key.startswith('weights.')}
    return weights, tensors


def video_weights(blocks=2):
    """The released video checkpoint's names, two of its thirty blocks, random and small."""
    generator, weights = torch.Generator().manual_seed(0), {}
    for name, shape in published_keys('wristworld_video_keys').items():
        parts = name.split('.')
        if parts[1] == 'blocks' and int(parts[2]) >= blocks:
            continue
        shape = tuple(SHRUNK.get(n, n) for n in shape)
        weights[name] = (0.2 * torch.randn(shape, generator=generator)).to(torch.bfloat16)
    return weights


def write_tokenizer(folder, vocabulary=64):
    """A Unigram tokenizer of letters in the release's files."""
    folder.mkdir(parents=True)
    pieces = ['<pad>', '</s>', '<s>', '<unk>', *'▁abcdefghijklmnopqrstuvwxyz,', '▁robotic', '▁scene']
    assert len(pieces) <= vocabulary
    tokenizer = Tokenizer(models.Unigram([(p, -float(len(pieces) - len(p))) for p in pieces], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single='$A </s>', special_tokens=[('</s>', 1)])
    tokenizer.save(str(folder / 'tokenizer.json'))
    config = {'tokenizer_class': 'T5Tokenizer', 'pad_token': '<pad>', 'eos_token': '</s>', 'unk_token': '<unk>'}
    (folder / 'tokenizer_config.json').write_text(json.dumps(config | {'extra_ids': 0}))


def write_release(folder):
    """All of the release's files under the names of its repository."""
    for name in ('VGGT', 'VideoModel', 'BaseModel'):
        (folder / name).mkdir(parents=True)
    torch.save({'model': fixture_parts('stage1_public')[0], 'epoch': 7}, folder / STAGE1)
    video = video_weights()
    save_file(video, folder / VIDEO)
    wan = {n.removeprefix('denoising_model.'): t for n, t in video.items() if n.startswith('denoising_model.')}
    wan['patch_embedding.weight'] = wan['patch_embedding.weight'][:, :16].contiguous()
    save_file(wan, folder / PLAIN)
    torch.save(fixture_parts('wan_vae_public')[0], folder / VAE)
    clip = {name: t.half() for name, t in fixture_parts('wan_clip_public')[0].items()}
    torch.save(
        clip | {'textual.token_embedding.weight': torch.zeros(3, 2), 'log_scale': torch.zeros(())}, folder / CLIP
    )
    torch.save({name: t.bfloat16() for name, t in fixture_parts('wan_t5_public')[0].items()}, folder / TEXT)
    write_tokenizer(folder / TOKENIZER)
    (folder / 'sizes.json').write_text(json.dumps(SIZES))
    return folder


@pytest.fixture(scope='session')
def release(tmp_path_factory):
    """The miniature release, not to be changed (`own_release` is a copy that may be)."""
    return write_release(tmp_path_factory.mktemp('release'))


@pytest.fixture
def own_release(release, tmp_path):
    return Path(shutil.copytree(release, tmp_path / 'release'))


@pytest.fixture(scope='session')
def numbers():
    """The numeric fixture of a name: every tensor by its key, weights too."""
    return lambda name: fixture_parts(name)[1]


@pytest.fixture(scope='session')
def keys():
    """Names and shapes of a published checkpoint."""
    return published_keys


@pytest.fixture(scope='session')
def settings():
    """Settings of a conversion of the miniature: (release, out, changes)."""

    def make(release, out, **changes):
        tiny = ConvertSettings(
            out=str(out), sizes=str(release / 'sizes.json'), wrist_width=48, wrist_height=32, anchor_width=56
        )
        return replace(tiny, **changes)

    return make


@pytest.fixture(scope='session')
def convert(settings):
    """Convert a release: (release, out, changes of the settings) -> the model directory."""

    def run(release, out, **changes):
        return convert_release([release], settings(release, out, **changes), progress=False)

    return run
