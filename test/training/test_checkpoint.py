"""Weights of runs: whole or not there, and nothing in a file from elsewhere is executed."""

import os
import pickle
import resource
import signal

import pytest
import torch
from torch import nn

from wristworld_ros.errors import UserError
from wristworld_ros.training.checkpoint import read_tensors, read_weights, weights_file, write_weights


class Dangerous:
    def __reduce__(self):
        return os.mkdir, ('executed',)


def test_what_is_written_is_what_is_read(tmp_path):
    module, other = nn.Linear(3, 2), nn.Linear(3, 2)
    write_weights(tmp_path / 'model.safetensors', module.state_dict())
    read_weights(other, tmp_path)
    assert torch.equal(module.weight, other.weight) and os.listdir(tmp_path) == ['model.safetensors']


def test_a_full_disk_leaves_the_old_weights(tmp_path):
    path = tmp_path / 'model.safetensors'
    write_weights(path, {'a': torch.ones(1)})
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r'model\.safetensors cannot be written'):
            write_weights(path, {'weights': torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(read_tensors(path)) == ['a'] and os.listdir(tmp_path) == ['model.safetensors']


def test_runs_of_earlier_versions_are_read(tmp_path):
    torch.save({'module': {'a': torch.zeros(1)}, 'average': {'a': torch.ones(1)}, 'step': 3}, tmp_path / 'last.pt')
    assert read_tensors(tmp_path) == {'a': torch.ones(1)} and not weights_file(tmp_path).exists(), 'not finished'
    torch.save({'a': torch.ones(1)}, tmp_path / 'model.pt')
    assert read_tensors(tmp_path / 'last.pt') == read_tensors(tmp_path) == {'a': torch.ones(1)}
    write_weights(tmp_path / 'model.safetensors', {'a': torch.zeros(1)})
    assert weights_file(tmp_path).name == 'model.safetensors'


def test_files_that_are_no_weights_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / 'whole.pt')
    write_weights(tmp_path / 'whole.safetensors', nn.Linear(3, 2).state_dict())
    torch.save([1], tmp_path / 'list.pt')
    torch.save({'a': Dangerous()}, tmp_path / 'dangerous.pt')
    torch.save({'a': 'x'}, tmp_path / 'text.pt')
    contents = [b'', b'nonsense', pickle.dumps(Dangerous())]
    contents += [(tmp_path / name).read_bytes() for name in ('list.pt', 'dangerous.pt', 'text.pt')]
    for name in ('model.pt', 'model.safetensors'):
        whole = (tmp_path / name.replace('model', 'whole')).read_bytes()
        for content in [*contents, whole[: len(whole) // 2]]:
            path = tmp_path / name
            path.write_bytes(content)
            with pytest.raises(UserError, match=name) as error:
                read_tensors(path)
            assert '\n' not in str(error.value)
            path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match='a named pipe'):
        read_tensors(path)
    assert not (tmp_path / 'executed').exists()


def test_weights_of_another_model_are_named(tmp_path):
    write_weights(tmp_path / 'model.safetensors', nn.Linear(3, 3).state_dict())
    with pytest.raises(UserError, match=r'key weight has shape \[3, 3\], wanted \[2, 3\]'):
        read_weights(nn.Linear(3, 2), tmp_path)
