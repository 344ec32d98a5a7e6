"""The training loop: it learns, it goes on where it stopped, and several processes agree."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from wristworld_ros.errors import UserError
from wristworld_ros.training.optimizers import FilterMuon, OptimizerConfig, make_optimizers
from wristworld_ros.training.run_state import last_checkpoint, read_counts
from wristworld_ros.training.trainer import TrainerConfig, train


class Batches(torch.utils.data.Dataset):
    def __init__(self, seed=0):
        self.seed = seed

    def __getitem__(self, number):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1000 * self.seed + number))
        return x, x @ torch.tensor([[1.0], [2.0], [-1.0], [0.5]])


def losses(module, batch, step):
    x, y = batch
    return {'total': (module(x) - y).square().mean()}


def test_it_learns_and_writes_what_it_did(tmp_path):
    torch.manual_seed(0)
    steps = TrainerConfig(steps=300, learning_rate=0.05, warm_up=10, checkpoint_every=100, bf16=False)
    average = train(nn.Linear(4, 1), Batches(), losses, steps, tmp_path, validate=lambda m: {'val_bias': float(m.bias)})
    assert float(losses(average, Batches(1)[0], None)['total'].detach()) < 1e-2
    log = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert [r['step'] for r in log] == list(range(20, 301, 20))
    assert [r['step'] for r in log if 'val_bias' in r] == [100, 200, 300]


def test_a_stopped_run_goes_on_at_its_checkpoint(tmp_path):
    short = TrainerConfig(steps=40, learning_rate=0.01, checkpoint_every=20, bf16=False)
    train(nn.Linear(4, 1), Batches(), losses, short, tmp_path)
    assert read_counts(tmp_path).step == 40
    longer = TrainerConfig(steps=60, learning_rate=0.01, checkpoint_every=20, bf16=False)
    train(nn.Linear(4, 1), Batches(), losses, longer, tmp_path)
    assert read_counts(tmp_path).step == 60
    assert sorted(os.listdir(tmp_path / 'checkpoints')) == ['00000040', '00000060'], 'the newest two are kept'
    assert json.loads((tmp_path / 'log.jsonl').read_text().splitlines()[-1])['step'] == 60


def test_a_run_starts_from_the_weights_of_a_model_directory(tmp_path):
    weights = {'weight': torch.full((1, 4), 0.5, dtype=torch.float16), 'bias': torch.ones(1, dtype=torch.float16)}
    save_file(weights, tmp_path / 'hand.safetensors')
    none = TrainerConfig(steps=1, learning_rate=0.0, checkpoint_every=1, bf16=False)
    average = train(nn.Linear(4, 1), Batches(), losses, none, tmp_path / 'run', start=tmp_path / 'hand.safetensors')
    assert torch.equal(average.weight, weights['weight'].float()) and float(average.bias) == 1.0


def test_a_start_that_is_no_safetensors_file_is_one_sentence(tmp_path):
    (tmp_path / 'hand.safetensors').write_bytes(b'no')
    with pytest.raises(UserError, match=r'hand\.safetensors cannot be read as safetensors'):
        train(nn.Linear(4, 1), Batches(), losses, TrainerConfig(steps=1), tmp_path, start=tmp_path / 'hand.safetensors')


class Interrupted(Exception):
    pass


def stored(folder):
    """Every tensor of a run's newest checkpoint."""
    return {k: v for path in last_checkpoint(folder).glob('*.safetensors') for k, v in sorted(load_file(path).items())}


@pytest.mark.parametrize('workers', [0, 2])
def test_a_run_with_an_interruption_equals_one_without_to_the_bit(tmp_path, workers):
    """Random numbers in the losses, momentum in the optimizers, a skipped batch, and a batch order to come back to."""

    def noisy(module, batch, step):
        x, y = batch
        if step.number == 7:
            x = x * float('nan')
        return {'total': (module(x) * torch.rand(16, 1) - y).square().mean()}

    def interrupted(module, batch, step):
        if step.number == 31 and not (tmp_path / 'stopped').exists():
            (tmp_path / 'stopped').touch()
            raise Interrupted
        return noisy(module, batch, step)

    def module():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.2), nn.Linear(64, 64), nn.Linear(64, 1))

    config = TrainerConfig(steps=50, checkpoint_every=20, bf16=False)
    whole = train(module(), Batches(), noisy, config, tmp_path / 'whole', seed=3, workers=workers)
    with pytest.raises(Interrupted):
        train(module(), Batches(), interrupted, config, tmp_path / 'parts', seed=3, workers=workers)
    torch.rand(5)  # whatever the process has done before it continues
    parts = train(module(), Batches(), interrupted, config, tmp_path / 'parts', seed=3, workers=workers)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    one, two = (stored(tmp_path / name) for name in ('whole', 'parts'))
    assert list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)
    assert {name.split('.')[0] for name in one} == {'model', 'average', 'optimizer'}
    one, two = (read_counts(tmp_path / name) for name in ('whole', 'parts'))
    assert (one.batches, one.skipped) == (two.batches, two.skipped) == (51, 1)
    logs = [
        [json.loads(line) for line in (tmp_path / name / 'log.jsonl').read_text().splitlines()]
        for name in ('whole', 'parts')
    ]
    assert [(r['step'], r['total']) for r in logs[0]] == [(r['step'], r['total']) for r in logs[1]]


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(tmp_path):
    def poisoned(module, batch, step):
        return {'total': losses(module, batch, step)['total'] * (float('nan') if step.number == 3 else 1.0)}

    average = train(nn.Linear(4, 1), Batches(), poisoned, TrainerConfig(steps=20, bf16=False), tmp_path)
    assert torch.isfinite(average.weight).all()
    assert json.loads((tmp_path / 'log.jsonl').read_text().splitlines()[-1])['skipped'] == 1


def test_a_run_that_diverged_ends_with_what_to_do(tmp_path):
    def diverged(module, batch, step):
        return {'total': losses(module, batch, step)['total'] * (float('nan') if step.number >= 5 else 1.0)}

    config = TrainerConfig(steps=20, max_skipped=3, bf16=False)
    with pytest.raises(
        UserError, match=r'4 gradients in a row were NaN or infinite after step 5.*lower --learning-rate'
    ):
        train(nn.Linear(4, 1), Batches(), diverged, config, tmp_path)


def test_pictures_and_event_files_are_written(tmp_path):
    pytest.importorskip('tensorboard')
    config = TrainerConfig(steps=4, checkpoint_every=2, samples_every=2, tensorboard=True, bf16=False)
    train(nn.Linear(4, 1), Batches(), losses, config, tmp_path, picture=lambda m: np.full((4, 6, 3), 7, np.uint8))
    assert sorted(p.name for p in (tmp_path / 'samples').iterdir()) == ['00000002.png', '00000004.png']
    (events,) = (tmp_path / 'tensorboard').iterdir()
    assert b'total' in events.read_bytes() and b'samples' in events.read_bytes()


def test_parts_learn_at_rates_of_their_own(tmp_path):
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    before = [p.detach().clone() for p in module.parameters()]
    config = TrainerConfig(
        steps=3, optimizer='adamw', rates={'0.': 0.0}, learning_rate=0.1, weight_decay=0.0, average=0.0, bf16=False
    )
    train(module, Batches(), losses, config, tmp_path)
    moved = [not torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True)]
    assert moved == [False, False, True, True]
    with pytest.raises(UserError, match=r"begins with 'nose'.*give 0, 1"):
        make_optimizers(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), OptimizerConfig(rates={'nose': 1.0}))


def test_a_torch_without_muon_is_told(monkeypatch):
    monkeypatch.delattr(torch.optim, 'Muon')
    with pytest.raises(UserError, match=r'torch 2\.9 or newer'):
        make_optimizers(nn.Linear(64, 64), OptimizerConfig())


@pytest.mark.parametrize('memory', [torch.contiguous_format, torch.channels_last])
def test_filters_are_updated_as_orthogonal_matrices_in_their_own_memory(memory):
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 64, 3).to(memory_format=memory)
    before, place = conv.weight.detach().clone(), conv.weight.data_ptr()
    adam, muon = make_optimizers(conv, OptimizerConfig(learning_rate=1e-3, weight_decay=0.0))
    assert isinstance(muon, FilterMuon) and [p.shape for g in adam.param_groups for p in g['params']] == [(64,)]
    conv(torch.randn(2, 32, 8, 8).to(memory_format=memory)).square().sum().backward()
    muon.step()
    change = (conv.weight - before).detach().flatten(1)
    assert conv.weight.data_ptr() == place and change.abs().max() > 0
    values = torch.linalg.svdvals(change)
    assert values.min() > 0.5 * values.max()  # every direction moves alike


FAILING = """
from wristworld_ros.errors import UserError
from wristworld_ros.training.parallel import rank, run_parallel

def fail():
    raise UserError('something is wrong', 'fix it')

if __name__ == '__main__':
    try:
        run_parallel(2, 1, fail)
    except UserError as error:
        print(error, end='')
"""


def test_a_user_error_of_one_process_reaches_the_caller(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(FAILING)
    repository = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, script],
        check=True,
        env=os.environ | {'PYTHONPATH': str(repository)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == 'something is wrong; fix it.'
