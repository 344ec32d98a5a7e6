"""The reconstruction model: the public fixture, the public names, and what must hold at any size."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from wristworld_ros.errors import UserError
from wristworld_ros.models.state_dict import cast_params
from wristworld_ros.models.vggt import VGGT_1B, ReconstructionConfig, ReconstructionModel, load_public_weights

DATA = Path(__file__).parents[2] / 'fixtures'
SMALL = {
    'img_size': 112,
    'embed_dim': 32,
    'depth': 3,
    'num_heads': 2,
    'patch_embed_depth': 1,
    'patch_embed_heads': 4,
    'camera_trunk_depth': 1,
    'camera_heads': 4,
    'dpt_layers': [0, 0, 1, 2],
    'dpt_features': 16,
    'dpt_out_channels': [8, 12, 16, 20],
    'track_features': 8,
    'track_iters': 2,
    'track_corr_levels': 2,
    'track_corr_radius': 3,
    'track_hidden': 24,
}
PER_VIEW = ('last_tokens', 'depth', 'depth_conf', 'world_points', 'world_points_conf', 'track_vis', 'track_conf')


def published(out):
    """The outputs of the published heads by name; scene coordinates have tests of their own."""
    return {name: value for name, value in vars(out).items() if name != 'scene_coordinates'}


def randomised(config, seed=0):
    """A model whose every weight matters: the starting values near zero would hide mistakes."""
    torch.manual_seed(seed)
    model = ReconstructionModel.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def images(batch, views, height, width, seed=0):
    return torch.rand(batch, views, 3, height, width, generator=torch.Generator().manual_seed(seed))


def queries(batch, count, height, width, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, count, 2, generator=generator) * torch.tensor([width - 1.0, height - 1.0])


def assert_close(found, wanted, relative=1e-4):
    for name, value in published(wanted).items():
        other = getattr(found, name)
        assert (value is None) == (other is None), name
        if value is not None:
            assert other.shape == value.shape, name
            assert (other - value).abs().max() <= relative * value.abs().max(), name


@pytest.fixture(scope='module')
def fixture():
    with safe_open(DATA / 'stage1_public.safetensors', 'pt') as file:
        data = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return data, json.loads(file.metadata()['config'])


def test_every_output_equals_the_public_fixture(fixture):
    data, config = fixture
    model = ReconstructionModel.from_config(config).eval()
    model.load_state_dict({key[8:]: value for key, value in data.items() if key.startswith('weights.')})
    with torch.no_grad():
        out = model(data['input.images'], query_points=data['input.query_points'])
    wanted = {key[7:]: value for key, value in data.items() if key.startswith('output.')}
    assert set(wanted) == set(published(out))
    for name, value in wanted.items():
        found = getattr(out, name)
        assert found.shape == value.shape, name
        error = float((found - value).abs().max() / value.abs().max())
        assert error < 1e-4, f'{name}: {error}'


def test_names_and_shapes_at_full_size_are_the_public_checkpoints():
    with torch.device('meta'):
        model = ReconstructionModel.from_config(VGGT_1B)
    public = {}
    for line in (DATA / 'vggt_1b_keys.txt').read_text().splitlines():
        name, shape = line.split(' ', 1)
        public[name] = ast.literal_eval(shape)
    own = {name: tuple(value.shape) for name, value in model.state_dict().items() if not name.startswith('wrist_head.')}
    assert len(public) == 1797
    assert own == public
    assert sum(p.numel() for p in model.wrist_head.parameters()) == pytest.approx(367e6, rel=0.005)


@pytest.mark.parametrize(
    ('batch', 'views', 'height', 'width'), [(1, 1, 112, 112), (1, 3, 42, 98), (2, 2, 84, 56), (1, 5, 56, 140)]
)
def test_any_views_and_sizes_run_with_the_stated_shapes(batch, views, height, width):
    model = randomised(SMALL)
    with torch.no_grad():
        out = model(images(batch, views, height, width), queries(batch, 7, height, width))
    tokens = 5 + height * width // 14**2
    wanted = {
        'last_tokens': (batch, views, tokens, 64),
        'camera_pose_enc': (4, batch, views, 9),
        'wrist_pose_enc': (4, batch, 1, 9),
        'depth': (batch, views, height, width, 1),
        'depth_conf': (batch, views, height, width),
        'world_points': (batch, views, height, width, 3),
        'world_points_conf': (batch, views, height, width),
        'track': (2, batch, views, 7, 2),
        'track_vis': (batch, views, 7),
        'track_conf': (batch, views, 7),
    }
    for name, shape in wanted.items():
        assert getattr(out, name).shape == shape, name
        assert getattr(out, name).isfinite().all(), name
    assert (out.depth > 0).all() and (out.depth_conf >= 1).all() and (out.camera_pose_enc[..., 7:] >= 0).all()
    torch.testing.assert_close(out.track[-1][:, 0], queries(batch, 7, height, width))


def test_permuting_the_views_after_the_first_permutes_their_outputs():
    model = randomised(SMALL)
    x, q, order = images(1, 4, 56, 84), queries(1, 6, 56, 84), [0, 3, 1, 2]
    with torch.no_grad():
        out, permuted = model(x, q), model(x[:, order], q)
    for name in PER_VIEW:
        torch.testing.assert_close(getattr(permuted, name), getattr(out, name)[:, order], atol=2e-4, rtol=2e-4)
    for name in ('camera_pose_enc', 'track'):
        torch.testing.assert_close(getattr(permuted, name), getattr(out, name)[:, :, order], atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(permuted.wrist_pose_enc, out.wrist_pose_enc, atol=2e-4, rtol=2e-4)


def test_a_batch_equals_its_scenes_one_by_one():
    model = randomised(SMALL)
    x, q = images(3, 2, 56, 70), queries(3, 5, 56, 70)
    with torch.no_grad():
        out = model(x, q)
        for i in range(3):
            one = model(x[i : i + 1], q[i : i + 1])
            for name, value in published(one).items():
                whole = getattr(out, name)
                same = (
                    whole[:, i : i + 1] if name in ('camera_pose_enc', 'wrist_pose_enc', 'track') else whole[i : i + 1]
                )
                torch.testing.assert_close(same, value, atol=2e-4, rtol=2e-4)


def test_more_views_than_the_dense_heads_take_at_once_equal_the_pass_with_gradient():
    model = randomised(SMALL)
    x = images(1, 11, 28, 42)
    with torch.no_grad():
        out = model(x, heads=('depth', 'points'))
    whole = model(x, heads=('depth', 'points'))
    torch.testing.assert_close(out.depth, whole.depth.detach())
    torch.testing.assert_close(out.world_points, whole.world_points.detach())


@pytest.mark.parametrize('heads', [('camera',), ('wrist',), ('depth',), ('points',), ('track',), ('wrist', 'points')])
def test_heads_on_demand_equal_the_full_run_and_the_others_stay_none(heads):
    model = randomised(SMALL)
    x, q = images(1, 2, 56, 70), queries(1, 5, 56, 70)
    fields = {
        'camera': ('camera_pose_enc',),
        'wrist': ('wrist_pose_enc',),
        'depth': ('depth', 'depth_conf'),
        'points': ('world_points', 'world_points_conf'),
        'track': ('track', 'track_vis', 'track_conf'),
    }
    with torch.no_grad():
        full, some = model(x, q), model(x, q, heads=heads)
    asked = {field for head in heads for field in fields[head]}
    for field in set().union(*fields.values()):
        if field in asked:
            assert torch.equal(getattr(some, field), getattr(full, field))
        else:
            assert getattr(some, field) is None


def test_only_the_layers_that_the_asked_heads_read_are_run():
    model = randomised(SMALL | {'dpt_layers': [0, 0, 1, 1]})
    calls = []
    for i, block in enumerate(model.aggregator.global_blocks):
        block.register_forward_hook(lambda *_, i=i: calls.append(i))
    with torch.no_grad():
        out = model(images(1, 2, 28, 28), heads=('points',))
    assert calls == [0, 1] and out.last_tokens is None


def test_a_model_built_with_some_heads_has_no_other_and_equals_the_full_one():
    full = randomised(SMALL)
    some = ReconstructionModel.from_config(SMALL | {'heads': ['wrist', 'points']}).eval()
    sentence = load_public_weights(some, full.state_dict())
    assert 'left out' in sentence
    prefixes = {name.split('.')[0] for name in some.state_dict()}
    assert prefixes == {'aggregator', 'wrist_head', 'point_head'}
    x = images(1, 2, 56, 70)
    with torch.no_grad():
        assert_close(some(x), full(x, heads=('wrist', 'points')), 1e-6)


def test_other_patch_sizes_run():
    model = randomised(SMALL | {'patch_size': 16, 'img_size': 64})
    with torch.no_grad():
        assert model(images(1, 2, 48, 80), queries(1, 3, 48, 80)).depth.shape == (1, 2, 48, 80, 1)


def test_wrist_head_reads_all_rows_of_the_last_layer_as_if_all_were_computed():
    model = randomised(SMALL)
    x = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    layer = model.wrist_head.token_aggregation_layers[0]
    with torch.no_grad():
        torch.testing.assert_close(layer(x, queries=1), layer(x)[:, :1])


def test_gradients_reach_every_weight_but_the_unused_mask_token():
    model = randomised(SMALL).train()
    out = model(images(1, 2, 56, 70), queries(1, 5, 56, 70))
    sum(value.square().mean() for value in published(out).values()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {'aggregator.patch_embed.mask_token'}
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_gradient_checkpointing_changes_no_gradient():
    grads = []
    for flag in (False, True):
        model = randomised(SMALL | {'gradient_checkpointing': flag}).train()
        model(images(1, 2, 28, 42), heads=('camera',)).camera_pose_enc.square().sum().backward()
        grads.append(model.aggregator.frame_blocks[0].mlp.fc1.weight.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_the_previous_pose_gives_no_gradient_between_rounds():
    model = randomised(SMALL)
    first = model(images(1, 2, 28, 42), heads=('wrist',)).wrist_pose_enc
    grad = torch.autograd.grad(first[1, ..., :7].sum(), model.wrist_head.pose_branch.fc2.bias)[0]
    torch.testing.assert_close(grad[:7], torch.ones(7))  # two without detaching


def test_a_fresh_model_starts_at_unit_depth_and_near_the_identity():
    torch.manual_seed(0)
    model = ReconstructionModel.from_config(SMALL | {'layerscale_init': 0.5}).eval()
    assert float(model.aggregator.frame_blocks[0].ls1.gamma[0].detach()) == 0.5
    with torch.no_grad():
        out = model(images(1, 2, 56, 70))
    assert (out.depth - 1).abs().max() < 0.2 and out.world_points.abs().max() < 0.2
    assert (out.wrist_pose_enc[-1, ..., 6:] - 1).abs().max() < 0.2
    assert out.wrist_pose_enc[-1, ..., :6].abs().max() < 0.2


def test_a_small_model_learns_one_scene():
    torch.manual_seed(0)
    model = ReconstructionModel.from_config(SMALL | {'heads': ['wrist', 'depth'], 'layerscale_init': 0.5}).train()
    x = images(1, 2, 28, 42)
    target = torch.tensor([0.3, -0.2, 0.5, 0.1, 0.2, 0.0, 0.97, 0.9, 1.1])
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    for _ in range(30):
        out = model(x)
        loss = (out.wrist_pose_enc - target).abs().mean() + (out.depth.log() - 0.7).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_low_precision_aggregator_leaves_the_heads_in_float32():
    model = randomised(SMALL)
    x = images(1, 2, 56, 70)
    with torch.no_grad():
        wanted = model(x)
        with torch.autocast('cpu', torch.bfloat16):
            automatic = model(x)
        cast_params(model, lambda name: model.param_dtype(name, torch.bfloat16))
        cast = model(x)
    for out in (automatic, cast):
        assert out.depth.dtype == out.wrist_pose_enc.dtype == torch.float32
        assert (out.depth.log() - wanted.depth.log()).abs().mean() < 0.2
    assert model.depth_head.norm.weight.dtype == torch.float32
    assert model.aggregator.camera_token.dtype == torch.bfloat16


def test_heads_under_autocast_still_report_float32_when_the_config_lets_them_run_in_low_precision():
    model = randomised(SMALL | {'float32_heads': False, 'layerscale_init': 0.3}).train()
    with torch.autocast('cpu', torch.bfloat16):
        out = model(images(1, 2, 56, 70))
    outputs = {name: value for name, value in vars(out).items() if value is not None and name != 'last_tokens'}
    assert len(outputs) == 6 and all(value.dtype == torch.float32 for value in outputs.values())
    sum(value.square().mean() for value in outputs.values()).backward()


def test_caches_made_in_inference_mode_serve_training():
    model = randomised(SMALL)
    x = images(1, 2, 70, 42)
    with torch.inference_mode():
        model(x, queries(1, 3, 70, 42))
    model.train()(x, queries(1, 3, 70, 42)).depth.sum().backward()


def test_caches_are_bounded_and_not_in_the_state_dict():
    from wristworld_ros.models.vggt.dense_head import uv_embedding
    from wristworld_ros.models.vggt.layers import rotary_tables

    assert uv_embedding.cache_info().maxsize and rotary_tables.cache_info().maxsize
    model = ReconstructionModel.from_config(SMALL)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda m: m(torch.zeros(1, 2, 3, 56, 60)), 'multiples of 14'),
        (lambda m: m(torch.zeros(2, 3, 56, 56)), 'B, V, 3, H, W'),
        (lambda m: m(torch.zeros(1, 2, 3, 56, 56, dtype=torch.uint8)), 'float'),
        (lambda m: m(torch.zeros(1, 0, 3, 56, 56)), 'at least one view'),
        (lambda m: m(torch.zeros(1, 2, 3, 56, 56), torch.zeros(2, 4, 2)), 'query_points'),
        (lambda m: m(torch.zeros(1, 2, 3, 56, 56), heads=('dept',)), 'this model has'),
        (lambda m: m(torch.zeros(1, 2, 3, 56, 56), heads=('track',)), 'query_points'),
        (lambda m: m(torch.zeros(1, 2, 3, 56, 56), heads=()), 'this model has'),
    ],
)
def test_a_wrong_input_is_reported_in_one_sentence(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call(ReconstructionModel.from_config(SMALL))
    assert '\n' not in str(error.value)


def test_too_small_an_image_for_the_trackers_pyramid_is_reported_in_one_sentence():
    model = ReconstructionModel.from_config(SMALL | {'track_corr_levels': 6})
    with pytest.raises(ValueError, match='at least 64 pixels'):
        model(torch.zeros(1, 2, 3, 28, 28), torch.zeros(1, 4, 2))


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'embed_dims': 3}, 'unknown keys embed_dims'),
        ({'patch_embed_heads': 5}, 'embed_dim 32; make it a multiple of patch_embed_heads, which is 5'),
        ({'num_heads': 3}, 'num_heads'),
        ({'dpt_layers': [0, 1, 2, 3]}, 'dpt_layers'),
        ({'heads': ['wrists']}, 'heads'),
    ],
)
def test_a_wrong_config_is_reported_in_one_sentence(change, words):
    with pytest.raises(UserError, match=words):
        ReconstructionModel.from_config(SMALL | change)
    with pytest.raises(UserError, match='lacks'):
        ReconstructionModel.from_config({'depth': 2})


def test_a_config_survives_json():
    config = ReconstructionConfig.from_dict({'img_size': 56, 'embed_dim': 32, 'depth': 4, 'num_heads': 2})
    assert ReconstructionConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.dpt_layers == (0, 1, 2, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_cuda_equals_cpu():
    model = randomised(SMALL)
    x, q = images(1, 3, 56, 70), queries(1, 5, 56, 70)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        wanted = model(x, q)
        found = model.cuda()(x.cuda(), q.cuda())
        with torch.autocast('cuda', torch.bfloat16):
            low = model(x.cuda(), q.cuda())
    assert low.depth.dtype == torch.float32
    for name, value in published(wanted).items():
        torch.testing.assert_close(getattr(found, name).cpu(), value, atol=1e-3, rtol=1e-3)
