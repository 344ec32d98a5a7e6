"""Miniatures of Self-Forcing's and LongLive's published layout convert and stream; names and shapes are checked."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wristworld_ros.apps.convert.students import add_lora, student_tensors
from wristworld_ros.errors import UserError
from wristworld_ros.models.config import ModelConfig, ModelError
from wristworld_ros.models.wan import block_causal_predict, sample_chunks
from wristworld_ros.pipeline import VirtualWrist, load_model
from wristworld_ros.pipeline.model_directory import load_stage2
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet

PLAIN, VIDEO = 'BaseModel/diffusion_pytorch_model.safetensors', 'VideoModel/video_dit_lora.safetensors'
TIMESTEPS = pytest.approx([1000, 937.5, 833.3333, 625])


def wrapped(weights, wrapper='_fsdp_wrapped_module.'):
    """Wan's own names as a sharded training run leaves them."""
    return {f'model.{wrapper}{name}'.replace('blocks.1.', f'blocks.1.{wrapper}'): t for name, t in weights.items()}


@pytest.fixture
def self_forcing(own_release):
    """`checkpoints/self_forcing_dmd.pt`: the averaged weights under `generator_ema`, worse ones beside them."""
    wan = load_file(own_release / PLAIN)
    folder = own_release / 'checkpoints'
    folder.mkdir()
    worse = {name: torch.zeros_like(t) for name, t in wan.items()}
    torch.save({'generator': wrapped(worse), 'generator_ema': wrapped(wan)}, folder / 'self_forcing_dmd.pt')
    return own_release


def lora_of(wan, rank=4):
    """A LoRA over the layers that LongLive's has, in peft's names."""
    generator, lora = torch.Generator().manual_seed(0), {}
    for name, weight in wan.items():
        layer = name.removesuffix('.weight')
        if weight.ndim == 2 and layer.startswith('blocks.'):
            for half, shape in (('A', (rank, weight.shape[1])), ('B', (weight.shape[0], rank))):
                values = 0.1 * torch.randn(shape, generator=generator)
                lora[f'base_model.model.{layer}.lora_{half}.weight'] = values.bfloat16()
    return lora


@pytest.fixture
def longlive(own_release):
    """`models/longlive_base.pt` and `models/lora.pt`."""
    wan = load_file(own_release / PLAIN)
    folder = own_release / 'models'
    folder.mkdir()
    torch.save({'generator': {f'model.{name}': t for name, t in wan.items()}}, folder / 'longlive_base.pt')
    torch.save({'generator_lora': lora_of(wan)}, folder / 'lora.pt')
    return own_release


def student_config(out):
    return {
        key: ModelConfig.read(out / 'config.json').generator[key]
        for key in ('chunk_frames', 'history_chunks', 'sink_chunks')
    }


def converted(convert, release, tmp_path, name, **changes):
    return convert(release, tmp_path / 'out', parts='stage2', video=str(release / name), **changes)


@torch.no_grad()
def assert_streams_as_one_pass(out):
    """Chunks through the cache equal one block-causal pass of the last step over clean chunks, at the converted sizes."""
    _, gen, _ = load_stage2(str(out))
    assert gen.settings.renoise.timesteps == TIMESTEPS
    torch.manual_seed(0)
    noise, condition = torch.randn(1, 1, 16, 15, 4, 6), torch.randn(1, 16, 15, 4, 6)
    streamed = sample_chunks(gen, noise, condition, None, 4, steps=1)
    contexts = gen.context(None, None)[:, None].expand(1, 5, -1, -1)
    timestep = torch.tensor([1000.0])
    velocity = block_causal_predict(gen, noise[0], streamed, condition, timestep, contexts)
    assert (noise[0] - velocity - streamed).abs().max() < 1e-4 * streamed.abs().max()


def test_self_forcing_converts_and_streams(self_forcing, convert, tmp_path):
    out = converted(convert, self_forcing, tmp_path, 'checkpoints/self_forcing_dmd.pt')
    assert student_config(out) == {'chunk_frames': 3, 'history_chunks': 6, 'sink_chunks': 0}
    stored, wan = load_file(out / 'generator.safetensors'), load_file(self_forcing / PLAIN)
    assert torch.equal(stored['denoising_model.blocks.1.ffn.0.weight'], wan['blocks.1.ffn.0.weight']), (
        'the averaged ones'
    )
    assert not stored['denoising_model.patch_embedding.weight'][:, 16:].any(), 'the condition starts at zero'
    assert 'Self-Forcing' in (out / 'README.md').read_text()
    assert_streams_as_one_pass(out)


def test_longlive_converts_with_its_lora_and_streams_with_its_sink(longlive, convert, tmp_path):
    out = converted(convert, longlive, tmp_path, 'models/longlive_base.pt')
    assert student_config(out) == {'chunk_frames': 3, 'history_chunks': 3, 'sink_chunks': 1}
    stored, wan = load_file(out / 'generator.safetensors'), load_file(longlive / PLAIN)
    name, lora = 'blocks.0.self_attn.q', lora_of(wan)
    down, up = (lora[f'base_model.model.{name}.lora_{half}.weight'].float() for half in 'AB')
    wanted = (wan[f'{name}.weight'].float() + up @ down).bfloat16()
    assert torch.equal(stored[f'denoising_model.{name}.weight'], wanted)
    assert 'lora.pt' in (out / 'README.md').read_text()
    assert_streams_as_one_pass(out)


def test_a_plain_student_has_parts_to_train_and_a_wrist_student_is_a_whole_wrist_camera(own_release, convert, tmp_path):
    """A student distilled from a wrist model, saved in the layout: its anchor projection stands beside the transformer."""
    video = load_file(own_release / VIDEO)
    layout = {name.replace('denoising_model.', 'model.'): t for name, t in video.items()}
    (own_release / 'wrist_student.pt').write_bytes(b'')
    torch.save({'generator': layout}, own_release / 'wrist_student.pt')
    out = convert(own_release, tmp_path / 'out', video=str(own_release / 'wrist_student.pt'))
    model = load_model(str(out), 'cpu')
    assert not model.config.untrained and model.generator.settings.renoise.timesteps == TIMESTEPS
    for head in (model.stage1.camera_head, model.stage1.wrist_head):
        head.pose_branch.fc2.bias[7:] += 1.0
    settings = StreamSettings(steps=None, chunk=2, check_anchors=False, min_coverage=0.0, min_confidence=0.0)
    wrist, rng = VirtualWrist(model, settings), np.random.default_rng(0)
    sets = [AnchorSet(i, ('a', 'b'), rng.integers(0, 256, (2, 60, 80, 3), np.uint8)) for i in range(5)]
    assert len([frame for s in sets for frame in wrist.push(s)]) == 5


def test_wrappers_are_no_part_of_a_name():
    tensor = torch.zeros(1)
    names = (
        'model._fsdp_wrapped_module.head.modulation',
        'model._orig_mod.blocks.0._checkpoint_wrapped_module.modulation',
    )
    assert set(student_tensors(dict.fromkeys(names, tensor), 'file')) == {'head.modulation', 'blocks.0.modulation'}
    with pytest.raises(ModelError, match='there twice'):
        student_tensors({'model.a': tensor, 'model._orig_mod.a': tensor}, 'file')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda lora: lora.pop('base_model.model.a.lora_B.weight'), 'other half is missing'),
        (lambda lora: lora.update({'base_model.model.a.lora_A.weight': torch.zeros(2, 5)}), r'must be \[4, 3\]'),
        (lambda lora: lora.update({'a.weight': torch.zeros(2, 5)}), 'no half of a LoRA'),
    ],
)  # fmt: skip
def test_a_lora_that_does_not_fit_is_named(change, message):
    lora = {
        'base_model.model.a.lora_A.weight': torch.zeros(2, 3),
        'base_model.model.a.lora_B.weight': torch.zeros(4, 2),
    }
    weights = {'a.weight': torch.ones(4, 3)}
    assert torch.equal(add_lora(weights, lora, 1.0, 'lora.pt')['a.weight'], weights['a.weight'])
    change(lora)
    with pytest.raises(ModelError, match=message):
        add_lora(weights, lora, 1.0, 'lora.pt')
    with pytest.raises(ModelError, match='not part of the model'):
        add_lora({}, {**lora, 'base_model.model.a.lora_B.weight': torch.zeros(4, 2)} if 'a.weight' not in lora else {
            'a.lora_A.weight': torch.zeros(2, 3), 'a.lora_B.weight': torch.zeros(4, 2)}, 1.0, 'lora.pt')  # fmt: skip


def test_missing_and_foreign_keys_are_refused(self_forcing, convert, tmp_path):
    path = self_forcing / 'checkpoints/self_forcing_dmd.pt'
    weights = torch.load(path, weights_only=True)
    lost = weights['generator_ema'].pop('model._fsdp_wrapped_module.blocks.0.ffn.2.bias')
    torch.save(weights, path)
    with pytest.raises(UserError, match=r'blocks\.0\.ffn\.2\.bias is missing'):
        converted(convert, self_forcing, tmp_path, 'checkpoints/self_forcing_dmd.pt')
    weights['generator_ema'] |= {'model.blocks.0.ffn.2.bias': lost, 'model.img_emb.weight': lost}
    torch.save(weights, path)
    with pytest.raises(UserError, match='img_emb'):
        converted(convert, self_forcing, tmp_path, 'checkpoints/self_forcing_dmd.pt')


def test_a_lora_without_a_student_is_refused(longlive, convert, tmp_path):
    with pytest.raises(ModelError, match='no student'):
        converted(convert, longlive, tmp_path, PLAIN, lora=str(longlive / 'models/lora.pt'))
