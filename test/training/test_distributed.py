"""Several processes train as one would, however parameters are divided among them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wristworld_ros.training.checkpoint import read_tensors

# Run once with two processes and once with one: what it trains depends on neither.
SCRIPT = '''
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from wristworld_ros.training.checkpoint import write_weights
from wristworld_ros.training.parallel import process_count, rank, run_parallel
from wristworld_ros.training.trainer import TrainerConfig, full_state_dict, train

CONFIG = TrainerConfig(
    steps=6, optimizer='adamw', learning_rate=1e-2, warm_up=2, clip=0.5, average=0.5, accumulate=2, bf16=False, checkpoint_every=3,
)


class Network(nn.Module):
    """Layers in a list, which are sharded one by one, a frozen one, and parameters beside them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 7)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 7)) for _ in range(3))
        self.layers[1].requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(7))

    def predict(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = x + layer(x)
        return (x * self.scale).sum(-1)


class Batches(torch.utils.data.Dataset):
    """Eight samples a number, shared out evenly."""

    def __getitem__(self, number):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
        return x.chunk(process_count())[rank()]


class Interrupted(Exception):
    pass


def losses(network, x, step):
    return {'total': (network.predict(x) - x.prod(-1)).square().mean()}


def interrupted(network, x, step):
    if step.number == 9:
        raise Interrupted
    return losses(network, x, step)


def run(folder, name, config, function=losses):
    network = train(
        Network(), Batches(), function, config, folder / name, workers=0,
        validate=lambda network: {'val_scale': float(network.predict(torch.ones(1, 3)))},
    )
    weights = full_state_dict(network)
    if rank() == 0:
        write_weights(folder / name / 'model.safetensors', weights)


def main(folder):
    run(folder, f'{process_count()}-none', CONFIG)
    if process_count() == 1:
        return
    sharded = replace(CONFIG, sharding='full')
    run(folder, '2-full', sharded)
    for config, name in ((CONFIG, 'continued-none'), (sharded, 'continued-full'), (sharded, 'continued-by-one')):
        try:
            run(folder, name, config, interrupted)
        except Interrupted:
            pass
        if name != 'continued-by-one':
            run(folder, name, config)


if __name__ == '__main__':
    if sys.argv[2] == 'spawn':
        run_parallel(2, 1, main, Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]))
        if sys.argv[2] == 'one':
            run(Path(sys.argv[1]), 'continued-by-one', CONFIG)
'''


def weights(folder):
    return read_tensors(folder)


def call(*command):
    environment = os.environ | {'PYTHONPATH': str(Path(__file__).parents[2]), 'OMP_NUM_THREADS': '1'}
    subprocess.run([sys.executable, *command], check=True, env=environment)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    script = folder / 'script.py'
    script.write_text(SCRIPT)
    call(script, folder, 'spawn')
    call(script, folder, 'one')
    return folder


def apart(one, two):
    """The largest difference between two runs' weights."""
    assert list(one) == list(two)
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def test_two_processes_equal_one_with_twice_the_batch(runs):
    assert apart(weights(runs / '1-none'), weights(runs / '2-none')) < 1e-6


def test_sharded_parameters_train_as_whole_ones(runs):
    assert apart(weights(runs / '2-none'), weights(runs / '2-full')) < 1e-6
    parts = sorted(p.name for p in (runs / '2-full/checkpoints/00000006').glob('*.safetensors'))
    assert len(parts) == 2, 'each process wrote its own part'


@pytest.mark.parametrize('sharding', ['none', 'full'])
def test_processes_that_were_interrupted_continue_to_the_bit(runs, sharding):
    assert apart(weights(runs / f'continued-{sharding}'), weights(runs / f'2-{sharding}')) == 0


def test_one_process_continues_what_two_had_sharded(runs):
    assert apart(weights(runs / 'continued-by-one'), weights(runs / '1-none')) < 1e-6


def test_frozen_parameters_stay(runs):
    trained = weights(runs / '2-full')
    one, two = trained['layers.1.0.weight'], weights(runs / '1-none')['layers.1.0.weight']
    assert torch.equal(one, two)


def test_torchrun_starts_the_same_training(runs, tmp_path):
    call(
        '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--standalone', runs / 'script.py', tmp_path, 'torchrun'
    )
    assert apart(weights(tmp_path / '2-full'), weights(runs / '2-full')) == 0
