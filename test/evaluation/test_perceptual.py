"""LPIPS and FVD: networks of our own, weights under published names, and nothing of a file is ever run.

The weights are random: what is tested are names, shapes, the order of operations and what a distance must be.
"""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from wristworld_ros.errors import UserError
from wristworld_ros.evaluation import metrics
from wristworld_ros.evaluation.foreign_weights import read_weights
from wristworld_ros.evaluation.i3d import I3d
from wristworld_ros.evaluation.lpips import Lpips

ALEXNET = {
    'features.0': (64, 3, 11, 11), 'features.3': (192, 64, 5, 5), 'features.6': (384, 192, 3, 3),
    'features.8': (256, 384, 3, 3), 'features.10': (256, 256, 3, 3),
}  # fmt: skip
CLASSIFIER = {'classifier.1': (16, 9216), 'classifier.4': (16, 16), 'classifier.6': (10, 16)}
WIDTHS = (64, 192, 384, 256, 256)


def layers(shapes, generator):
    tensors = {}
    for name, shape in shapes.items():
        fan = torch.tensor(shape[1:]).prod()
        tensors[f'{name}.weight'] = torch.randn(shape, generator=generator) * (2 / fan).sqrt()
        tensors[f'{name}.bias'] = 0.1 * torch.randn(shape[0], generator=generator)
    return tensors


def alexnet():
    return layers(ALEXNET | CLASSIFIER, torch.Generator().manual_seed(0))


def linear():
    g = torch.Generator().manual_seed(1)
    return {f'lin{i}.model.1.weight': torch.rand(1, width, 1, 1, generator=g) for i, width in enumerate(WIDTHS)}


def i3d_weights():
    torch.manual_seed(0)
    weights = dict(I3d().state_dict())
    for name, tensor in weights.items():  # outputs of a random network that differ enough between videos
        if 'conv3d.weight' in name:
            torch.nn.init.kaiming_normal_(tensor)
    return weights


def images(count=3, side=64, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (count, side // 8, side // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


@pytest.fixture(scope='module')
def lpips(tmp_path_factory):
    """Two files as they are published: AlexNet by torchvision as a torch file, the linear weights beside it."""
    folder = tmp_path_factory.mktemp('lpips')
    torch.save(alexnet(), folder / 'alexnet-owt.pth')
    torch.save(linear(), folder / 'alex.pth', _use_new_zipfile_serialization=False)
    return metrics.lpips_from(f'{folder}/alexnet-owt.pth, {folder}/alex.pth')


def test_lpips_is_zero_for_equal_images_symmetric_and_grows_with_noise(lpips):
    truth = images()
    assert lpips(truth, truth).tolist() == [0, 0, 0]
    noise = np.random.default_rng(1).normal(0, 1, truth.shape)
    noisy = [np.clip(truth + level * noise, 0, 255).astype(np.uint8) for level in (5, 20, 60)]
    distances = [lpips(x, truth) for x in noisy]
    assert (distances[0] > 0).all() and (distances[1] > distances[0]).all() and (distances[2] > distances[1]).all()
    assert lpips(truth, noisy[2]) == pytest.approx(distances[2], rel=1e-5)


def test_lpips_is_the_papers_formula(lpips):
    """Worked out with torch's functions layer by layer, on images -1 to 1 with the scaling that the weights were made for."""
    F, weights = torch.nn.functional, alexnet() | linear()
    one, two = images(seed=2), images(seed=3)
    distance = torch.zeros(3)

    def activations(x):
        x = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = (x - torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).view(
            1, 3, 1, 1
        )
        for i, (stride, padding) in zip((0, 3, 6, 8, 10), ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))):
            x = F.relu(F.conv2d(x, weights[f'features.{i}.weight'], weights[f'features.{i}.bias'], stride, padding))
            yield F.normalize(x, dim=1)
            if i < 6:
                x = F.max_pool2d(x, 3, 2)

    for k, (a, b) in enumerate(zip(activations(one), activations(two))):
        distance += F.conv2d((a - b) ** 2, weights[f'lin{k}.model.1.weight']).mean((1, 2, 3))
    assert lpips(one, two) == pytest.approx(distance.numpy(), rel=1e-4)


def test_lpips_takes_the_state_dict_of_an_lpips_module_in_one_file(tmp_path, lpips):
    slices = {'features.0': 1, 'features.3': 2, 'features.6': 3, 'features.8': 4, 'features.10': 5}
    state = {'scaling_layer.shift': torch.zeros(1, 3, 1, 1), 'scaling_layer.scale': torch.ones(1, 3, 1, 1)}
    for name, tensor in alexnet().items():
        layer, kind = name.rsplit('.', 1)
        if layer in slices:
            state[f'net.slice{slices[layer]}.{layer.partition(".")[2]}.{kind}'] = tensor
    for name, tensor in linear().items():
        state[name] = tensor
        state[name.replace('lin', 'lins.', 1)] = tensor.clone()
    save_file(state, str(tmp_path / 'lpips.safetensors'))
    found = metrics.lpips_from(str(tmp_path / 'lpips.safetensors'))(images(seed=2), images(seed=3))
    assert found.tolist() == lpips(images(seed=2), images(seed=3)).tolist()


def test_i3d_has_the_size_of_the_paper_and_names_of_the_published_conversion():
    network = I3d()
    assert 12.3e6 < sum(p.numel() for p in network.parameters()) < 12.8e6
    names = set(network.state_dict())
    assert {'Conv3d_1a_7x7.conv3d.weight', 'Mixed_3b.b1a.bn.running_var', 'Mixed_5c.b3b.conv3d.weight'} <= names
    assert network.state_dict()['logits.conv3d.bias'].shape == (400,)


def test_the_maps_of_i3d_have_the_sizes_of_the_paper():
    """For 16 frames of 224x224: strides of 2 in space five times, in time three times."""
    with torch.inference_mode():
        shapes = {name: list(x.shape) for name, x in I3d().maps(torch.zeros(1, 3, 16, 224, 224)).items()}
    assert shapes['Conv3d_1a_7x7'] == [1, 64, 8, 112, 112]
    assert shapes['Conv3d_2b_1x1'] == [1, 64, 8, 56, 56]
    assert shapes['Conv3d_2c_3x3'] == [1, 192, 8, 56, 56]
    assert shapes['Mixed_3b'] == [1, 256, 8, 28, 28] and shapes['Mixed_3c'] == [1, 480, 8, 28, 28]
    assert shapes['Mixed_4b'] == [1, 512, 4, 14, 14] and shapes['Mixed_4f'] == [1, 832, 4, 14, 14]
    assert shapes['Mixed_5b'] == [1, 832, 2, 7, 7] and shapes['Mixed_5c'] == [1, 1024, 2, 7, 7]


def test_fvd_is_zero_for_equal_videos_symmetric_and_positive_for_others(tmp_path):
    weights = i3d_weights()
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith('num_batches_tracked')}
    save_file(weights, str(tmp_path / 'i3d.safetensors'))
    fvd = metrics.fvd_from(str(tmp_path / 'i3d.safetensors'), frames=9)
    one = [images(9, 32, seed) for seed in range(2)]
    two = [images(9, 32, seed) // 4 for seed in range(2)]
    scale = fvd(one, two)
    assert scale > 0 and abs(fvd(one, one)) < 1e-3 * scale
    assert fvd(two, one) == pytest.approx(scale, rel=1e-3)
    with pytest.raises(UserError, match='FVD needs two clips of 9 frames'):
        fvd(one[:1], two[:1])


def test_batch_counters_of_a_foreign_file_are_ignored(tmp_path):
    torch.save(i3d_weights(), tmp_path / 'rgb_imagenet.pt')
    metrics.fvd_from(str(tmp_path / 'rgb_imagenet.pt'))


class Overwrites(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Touch:
    """What a pickle would do to a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_a_program_is_refused_unopened_in_one_sentence(tmp_path, monkeypatch):
    torch.jit.script(Overwrites()).save(str(tmp_path / 'program.pt'))
    monkeypatch.setattr(torch.jit, 'load', lambda *a, **k: pytest.fail('a program was loaded'))
    for take in (metrics.lpips_from, metrics.fvd_from):
        with pytest.raises(UserError, match='is TorchScript, a program') as error:
            take(str(tmp_path / 'program.pt'))
        assert '\n' not in str(error.value) and 'docs/evaluation.md' in str(error.value)


@pytest.mark.parametrize('zipped', [True, False])
def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(tmp_path, zipped):
    victim, path = tmp_path / 'victim', tmp_path / 'weights.pth'
    if zipped:
        torch.save({'lin0.model.1.weight': Touch(victim)}, path)
    else:
        path.write_bytes(pickle.dumps({'lin0.model.1.weight': Touch(victim)}))
    with pytest.raises(UserError, match='nothing of it was run') as error:
        read_weights(str(path), 'LPIPS')
    assert '\n' not in str(error.value) and not victim.exists()


def test_files_that_are_no_weights_are_told_in_one_sentence(tmp_path):
    (tmp_path / 'text.pt').write_text('no weights')
    os.mkfifo(tmp_path / 'fifo')
    torch.save([torch.zeros(3)], tmp_path / 'list.pt')
    torch.save({'a': torch.zeros(3, dtype=torch.int8)}, tmp_path / 'int8.pt')
    save_file({'a': torch.tensor([1.0, float('nan')])}, str(tmp_path / 'nan.safetensors'))
    with zipfile.ZipFile(tmp_path / 'empty.zip', 'w'):
        pass
    for name, words in {
        'none.pt': 'No such file', 'text.pt': 'neither safetensors nor', 'fifo': 'is not a file', 'list.pt': 'more than tensors',
        'int8.pt': 'is torch.int8', 'nan.safetensors': 'NaN or infinity', 'empty.zip': 'neither safetensors nor',
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=words) as error:
            read_weights(str(tmp_path / name), 'LPIPS')
        assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='is not a file'):
        read_weights('/dev/zero', 'LPIPS')


def test_weights_that_are_missing_doubled_or_of_another_network_are_named(tmp_path):
    torch.save(alexnet(), tmp_path / 'alexnet.pth')
    torch.save(linear(), tmp_path / 'alex.pth')
    with pytest.raises(UserError, match=r'lin0\.model\.1\.weight is missing'):
        metrics.lpips_from(str(tmp_path / 'alexnet.pth'))
    with pytest.raises(UserError, match='give every weight once'):
        metrics.lpips_from(f'{tmp_path}/alex.pth,{tmp_path}/alex.pth')
    with pytest.raises(UserError, match=r'Conv3d_1a_7x7\.conv3d\.weight is missing'):
        metrics.fvd_from(str(tmp_path / 'alex.pth'))
    other = alexnet() | {'features.0.weight': torch.zeros(96, 3, 11, 11)}
    torch.save(other | linear(), tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'features\.0\.weight has shape \[96, 3, 11, 11\], wanted \[64'):
        Lpips().load(read_weights(str(tmp_path / 'other.pth'), 'LPIPS'), 'other.pth')
