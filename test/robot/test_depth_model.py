"""Depth-estimation models of transformers, from a folder."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    ViTConfig,
    ViTModel,
)

from wristworld_ros.errors import UserError
from wristworld_ros.robot.depth_fit import fit_depth
from wristworld_ros.robot.depth_model import DepthModel

PROCESSOR = {
    'image_processor_type': 'DPTImageProcessor', 'do_resize': True, 'size': {'height': 56, 'width': 56}, 'keep_aspect_ratio': True,
    'ensure_multiple_of': 14, 'resample': 3, 'do_rescale': True, 'rescale_factor': 1 / 255, 'do_normalize': True,
    'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225], 'do_pad': False,
}  # fmt: skip


def depth_anything():
    backbone = Dinov2Config(
        image_size=56, patch_size=14, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        out_features=['stage1', 'stage2', 'stage3', 'stage4'], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[4, 8, 16, 16],
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    return DepthAnythingForDepthEstimation(config)


def dpt():
    config = DPTConfig(
        image_size=56, patch_size=14, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[4, 8, 16, 16], fusion_hidden_size=8,
    )  # fmt: skip
    return DPTForDepthEstimation(config)


def vit():
    return ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))


def saved(folder, make=depth_anything, **processor):
    torch.manual_seed(0)
    make().save_pretrained(folder)
    (folder / 'preprocessor_config.json').write_text(json.dumps(PROCESSOR | processor))
    return folder


def images(views=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (views, 48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize('make, keeps_aspect', [(depth_anything, True), (dpt, False)])
def test_a_small_random_model_gives_depth_at_image_size(tmp_path, make, keeps_aspect):
    model = DepthModel.load(saved(tmp_path, make, keep_aspect_ratio=keeps_aspect))
    depth = model(images())
    assert depth.dtype == np.float32 and depth.shape == (2, 48, 64)
    assert np.isfinite(depth).all() and depth.std() > 0
    np.testing.assert_array_equal(depth, model(images()))
    np.testing.assert_allclose(depth[1], model(images()[1:])[0], atol=1e-5)


class Stub(torch.nn.Module):
    """Returns true depth under an affine map, at half the size."""

    def __init__(self, depth, inverse):
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.depth, self.inverse = torch.from_numpy(depth), inverse

    def forward(self, pixel_values):
        value = 1 / self.depth if self.inverse else self.depth
        return SimpleNamespace(predicted_depth=(3 * value - 0.7)[None].expand(len(pixel_values), -1, -1))


@pytest.mark.parametrize('inverse', [False, True])
def test_true_depth_under_an_unknown_affine_map_becomes_metres(inverse):
    rows, columns = np.mgrid[:24, :32].astype(np.float32)
    depth = 0.8 + 0.01 * rows + 0.02 * columns
    model = DepthModel(Stub(depth, inverse), lambda images, **_: {'pixel_values': torch.zeros(len(images), 3, 24, 32)})
    relative = model(images(1))[0]
    true = torch.nn.functional.interpolate(torch.from_numpy(depth)[None, None], (48, 64), mode='bilinear')[0, 0].numpy()
    known = np.where(np.random.default_rng(0).random(true.shape) < 0.1, true, 0)
    fit = fit_depth(relative, known)
    assert fit.inverse == inverse
    np.testing.assert_allclose(fit.apply(relative), true, atol=2e-3)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match='There is no folder'):
        DepthModel.load(tmp_path / 'none')
    with pytest.raises(UserError, match=r'has no config\.json'):
        DepthModel.load(tmp_path)
    (saved(tmp_path) / 'preprocessor_config.json').unlink()
    with pytest.raises(UserError, match=r'has no preprocessor_config\.json'):
        DepthModel.load(tmp_path)


def test_weights_other_than_safetensors_are_refused(tmp_path):
    torch.save({}, saved(tmp_path) / 'pytorch_model.bin')
    (tmp_path / 'model.safetensors').unlink()
    with pytest.raises(UserError, match='no weights in safetensors'):
        DepthModel.load(tmp_path)


def test_weights_that_lack_tensors_are_refused(tmp_path):
    path = saved(tmp_path) / 'model.safetensors'
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    path.unlink()
    save_file(tensors, path, metadata={'format': 'pt'})
    with pytest.raises(UserError, match='lack 1 tensors'):
        DepthModel.load(tmp_path)


def test_broken_weights_are_refused(tmp_path):
    (saved(tmp_path) / 'model.safetensors').write_bytes(b'not weights')
    with pytest.raises(UserError, match='cannot be loaded'):
        DepthModel.load(tmp_path)


def test_another_kind_of_model_is_refused(tmp_path):
    with pytest.raises(UserError, match='type vit, which estimates no depth'):
        DepthModel.load(saved(tmp_path, vit))


def test_images_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match='uint8'):
        DepthModel.load(saved(tmp_path))(images().astype(np.float32))
