"""At full size, on the meta device: published names and shapes give the published configurations, and all of it fits."""

import json

import pytest
import torch

from wristworld_ros.apps.convert import stages as module
from wristworld_ros.apps.convert.settings import ConvertSettings
from wristworld_ros.apps.convert.sources import PARTS, read_overrides
from wristworld_ros.models.config import ModelError
from wristworld_ros.models.vggt import VGGT_1B, ReconstructionConfig, ReconstructionModel
from wristworld_ros.models.wan import WRISTWORLD_1_3B, WristGenerator
from wristworld_ros.models.wan.checkpoints import CLIP_VIT_H, UMT5_XXL, WAN_VAE


def on_meta(keys):
    return {name: torch.empty(shape, device='meta') for name, shape in keys.items()}


@pytest.fixture
def full_size(keys, tmp_path, monkeypatch):
    """The release at full size without its numbers: paths, and a reader that gives meta tensors for them."""
    with torch.device('meta'):
        wrist = ReconstructionModel.from_config(VGGT_1B).wrist_head.state_dict()
    files = {
        'stage1': on_meta(keys('vggt_1b_keys')) | {f'wrist_head.{name}': t for name, t in wrist.items()},
        'video': on_meta(keys('wristworld_video_keys')),
        'vae': on_meta(keys('wan_vae_keys')),
        'clip': on_meta(keys('wan_clip_visual_keys')),
        'text_encoder': on_meta(keys('wan_t5_keys')),
    }
    paths = {part: tmp_path / PARTS[part].names[0] for part in PARTS if part != 'lora'}  # which students alone have
    monkeypatch.setattr(module, 'read_tensors', {paths[part]: tensors for part, tensors in files.items()}.__getitem__)

    def embeddings(prompts, tokenizer, weights, config, length, *rest):
        assert {k: v for k, v in config.items() if k != 'dim_attn'} == UMT5_XXL and config['dim_attn'] == 4096
        return [torch.empty(length, config['dim'], device='meta')] * 2

    monkeypatch.setattr(module, 'prompt_embeddings', embeddings)
    return files, paths


def test_stage1_at_full_size_is_vggt_1b_with_a_wrist_head_of_367_million_parameters(full_size):
    _, paths = full_size
    stage = module.convert_stage1(paths['stage1'], ConvertSettings(), {})
    assert ReconstructionConfig.from_dict(stage.config) == ReconstructionConfig.from_dict(VGGT_1B)
    tensors = stage.files['stage1.safetensors']
    wrist = {name: t for name, t in tensors.items() if name.startswith('wrist_head.')}
    assert len(tensors) - len(wrist) == 1797
    assert sum(t.numel() for t in wrist.values()) == pytest.approx(367e6, rel=0.005)
    assert stage.untrained == []


def test_stage2_at_full_size_is_wan_with_32_channels_its_autoencoder_and_the_vit_h_tower(full_size):
    files, paths = full_size
    stage = module.convert_stage2(paths, [], ConvertSettings(), {}, progress=False)
    config = stage.config
    assert {name: config[name] for name in WRISTWORLD_1_3B} == WRISTWORLD_1_3B
    assert config['in_channels'] == 32 and config['anchor_encoder']['resize'] == 'bicubic'
    assert {name: config['anchor_encoder'][name] for name in CLIP_VIT_H} == CLIP_VIT_H
    assert config['autoencoder'] == {'kind': 'wan'} | WAN_VAE
    json.dumps(config)
    generator, autoencoder = stage.files['generator.safetensors'], stage.files['autoencoder.safetensors']
    assert len(autoencoder) == len(files['vae']) == 194
    assert set(files['video']) <= set(generator)
    assert generator['text_context'].shape == generator['negative_text_context'].shape == (512, 4096)
    with torch.device('meta'):
        own = WristGenerator.from_config(config).release_tensors()
    assert {name: t.shape for name, t in generator.items()} == {name: t.shape for name, t in own.items()}


def test_plain_wan_at_full_size_gets_a_second_set_of_input_channels(full_size, monkeypatch):
    files, paths = full_size
    plain = {k.removeprefix('denoising_model.'): t for k, t in files['video'].items() if k.startswith('denoising')}
    plain['patch_embedding.weight'] = plain['patch_embedding.weight'][:, :16]
    read = module.read_tensors
    monkeypatch.setattr(module, 'read_tensors', lambda path: plain if path == paths['video'] else read(path))
    without_clip = {part: path for part, path in paths.items() if part != 'clip'}
    stage = module.convert_stage2(without_clip, [], ConvertSettings(), {}, progress=False)
    assert {name: stage.config[name] for name in WRISTWORLD_1_3B} == WRISTWORLD_1_3B
    assert len(stage.untrained) == 2 and not stage.use_anchor_tokens


@pytest.mark.parametrize(
    ('text', 'said'),
    [('{', 'not JSON'), ('[]', 'expected `object`'), ('{"vae": {}}', 'something else'), ('{"generator": {"head": 1}}', 'no setting head')],
)  # fmt: skip
def test_a_file_of_sizes_that_says_something_else_is_refused(tmp_path, text, said):
    (tmp_path / 'sizes.json').write_text(text)
    with pytest.raises(ModelError, match=said):
        read_overrides(str(tmp_path / 'sizes.json'))
