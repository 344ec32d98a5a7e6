"""The training loop: it learns, it goes on where it stopped, and several processes agree."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from wristworld_ros.training.trainer import FilterMuon, TrainerConfig, make_optimisers, train


def batches(seed=0):
    generator = torch.Generator().manual_seed(seed)
    while True:
        x = torch.randn(16, 4, generator=generator)
        yield x, x @ torch.tensor([[1.0], [2.0], [-1.0], [0.5]])


def losses(module, batch, progress):
    x, y = batch
    return {'total': (module(x) - y).square().mean()}


def test_it_learns_and_writes_what_it_did(tmp_path):
    torch.manual_seed(0)
    steps = TrainerConfig(steps=300, learning_rate=0.05, warm_up=10, checkpoint_every=100, bf16=False)
    average = train(nn.Linear(4, 1), batches(), losses, steps, tmp_path, lambda m: {'val_bias': float(m.bias)})
    assert float(losses(average, next(batches(1)), 1)['total']) < 1e-2
    log = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert [r['step'] for r in log] == list(range(20, 301, 20))
    assert [r['step'] for r in log if 'val_bias' in r] == [100, 200, 300]


def test_a_stopped_run_goes_on_at_its_checkpoint(tmp_path):
    short = TrainerConfig(steps=40, learning_rate=0.01, checkpoint_every=20, bf16=False)
    train(nn.Linear(4, 1), batches(), losses, short, tmp_path)
    state = torch.load(tmp_path / 'last.pt', weights_only=True)
    assert state['step'] == 40
    longer = TrainerConfig(steps=60, learning_rate=0.01, checkpoint_every=20, bf16=False)
    train(nn.Linear(4, 1), batches(), losses, longer, tmp_path)
    assert torch.load(tmp_path / 'last.pt', weights_only=True)['step'] == 60
    assert json.loads((tmp_path / 'log.jsonl').read_text().splitlines()[-1])['step'] == 60


def test_a_gradient_that_is_not_finite_is_left_out(tmp_path):
    def poisoned(module, batch, progress):
        bad = next(calls) == 3
        return {'total': losses(module, batch, progress)['total'] * (float('nan') if bad else 1.0)}

    calls = iter(range(1000))
    average = train(nn.Linear(4, 1), batches(), poisoned, TrainerConfig(steps=20, bf16=False), tmp_path)
    assert torch.isfinite(average.weight).all()


@pytest.mark.parametrize('memory', [torch.contiguous_format, torch.channels_last])
def test_filters_are_updated_as_orthogonal_matrices_in_their_own_memory(memory):
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 64, 3).to(memory_format=memory)
    before, place = conv.weight.detach().clone(), conv.weight.data_ptr()
    adam, muon = make_optimisers(conv, TrainerConfig(learning_rate=1e-3, weight_decay=0.0))
    assert isinstance(muon, FilterMuon) and [p.shape for g in adam.param_groups for p in g['params']] == [(64,)]
    conv(torch.randn(2, 32, 8, 8).to(memory_format=memory)).square().sum().backward()
    muon.step()
    change = (conv.weight - before).detach().flatten(1)
    assert conv.weight.data_ptr() == place and change.abs().max() > 0
    values = torch.linalg.svdvals(change)
    assert values.min() > 0.5 * values.max()  # every direction moves alike


SCRIPT = """
import sys
from pathlib import Path
import torch
from torch import nn
from wristworld_ros.training.parallel import average_gradients, from_first, rank, run_parallel

def gradient(folder):
    module = nn.Linear(3, 1, bias=False)
    nn.init.ones_(module.weight)
    module(torch.full((1, 3), float(rank() + 1))).sum().backward()
    average_gradients(module)
    torch.save((module.weight.grad, from_first(10.0 + rank())), folder / f'{rank()}.pt')

if __name__ == '__main__':
    run_parallel(2, 1, gradient, Path(sys.argv[1]))
"""


def test_two_processes_share_one_mean_gradient_and_the_first_ones_clock(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    repository = Path(__file__).parents[2]
    subprocess.run([sys.executable, script, tmp_path], check=True, env=os.environ | {'PYTHONPATH': str(repository)})
    (one, clock), (two, other) = (torch.load(tmp_path / f'{i}.pt', weights_only=True) for i in range(2))
    assert torch.equal(one, two) and torch.allclose(one, torch.full((1, 3), 1.5))
    assert clock == other == 10.0
