"""Checkpoints: whole or not there, and nothing in a file from elsewhere is executed."""

import os
import pickle
import resource
import signal

import pytest
import torch
from torch import nn

from wristworld_ros.errors import UserError
from wristworld_ros.training.checkpoint import read_checkpoint, read_weights, write_checkpoint


class Dangerous:
    def __reduce__(self):
        return os.mkdir, ('executed',)


def test_what_is_written_is_what_is_read(tmp_path):
    module, other = nn.Linear(3, 2), nn.Linear(3, 2)
    write_checkpoint(tmp_path / 'model.pt', module.state_dict())
    read_weights(other, tmp_path / 'model.pt')
    assert torch.equal(module.weight, other.weight) and os.listdir(tmp_path) == ['model.pt']


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / 'last.pt'
    write_checkpoint(path, {'step': 1})
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r'last\.pt cannot be written \(File too large\)'):
            write_checkpoint(path, {'weights': torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert read_checkpoint(path) == {'step': 1} and os.listdir(tmp_path) == ['last.pt']


def test_files_that_are_no_checkpoints_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'model.pt'
    write_checkpoint(path, nn.Linear(3, 2).state_dict())
    whole = path.read_bytes()
    torch.save([1], tmp_path / 'list.pt')
    torch.save({'a': Dangerous()}, tmp_path / 'dangerous.pt')
    contents = [b'', b'nonsense', whole[: len(whole) // 2], pickle.dumps(Dangerous())]
    contents += [(tmp_path / name).read_bytes() for name in ('list.pt', 'dangerous.pt')]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r'model\.pt') as error:
            read_checkpoint(path)
        assert '\n' not in str(error.value)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match='a named pipe'):
        read_checkpoint(path)
    assert not (tmp_path / 'executed').exists()


def test_weights_of_another_model_are_named(tmp_path):
    write_checkpoint(tmp_path / 'model.pt', nn.Linear(3, 3).state_dict())
    with pytest.raises(UserError, match=r'model\.pt: key weight has shape \[3, 3\], wanted \[2, 3\]'):
        read_weights(nn.Linear(3, 2), tmp_path / 'model.pt')
    write_checkpoint(tmp_path / 'model.pt', {'weight': 'x'})
    with pytest.raises(UserError, match='more than tensors'):
        read_weights(nn.Linear(3, 2), tmp_path / 'model.pt')
