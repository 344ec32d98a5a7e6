"""The doctor's findings about GPU, memory and versions, and findings themselves, from plain inputs."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from wristworld_ros.apps.doctor import machine
from wristworld_ros.apps.doctor.finding import Finding, error, exit_status, from_error, ok, warning
from wristworld_ros.errors import UserError
from wristworld_ros.runtime.memory_estimate import MemoryEstimate

ROOT = Path(__file__).resolve().parents[3]
GIB = 2**30
CARD = machine.Gpu('NVIDIA H100', '550.54', 80 * GIB, 79 * GIB)
CPU_BUILD = machine.Torch('2.6.0+cpu')
CUDA_BUILD = machine.Torch('2.6.0', '12.4')
SEEING = machine.Torch('2.6.0', '12.4', ('sm_80', 'sm_90'), (('NVIDIA H100', (9, 0)),))


def only(findings):
    (finding,) = findings
    return finding


# Findings


def test_a_finding_is_one_sentence_with_its_fix_and_the_worst_decides_the_status():
    bad = error('No GPU', 'buy one')
    assert str(bad) == 'error   No GPU; buy one.' and str(ok('Fine')) == 'OK      Fine.'
    assert [exit_status(x) for x in ([], [ok('a')], [ok('a'), warning('b', 'c')], [bad, warning('b', 'c')])] == [
        0,
        0,
        1,
        2,
    ]


@pytest.mark.parametrize('arguments', [('bad', 'x', 'y'), ('ok', 'x', 'y'), ('error', 'x', '')])
def test_a_finding_without_a_known_state_or_a_fix_is_refused(arguments):
    with pytest.raises(ValueError):
        Finding(*arguments)


def test_an_error_of_the_package_becomes_a_finding_with_its_two_halves():
    assert from_error(UserError('f is missing; g too', 'copy them')) == error('f is missing; g too', 'copy them')


# GPU


@pytest.mark.parametrize(
    ('device', 'driver', 'torch', 'card', 'state', 'words'),
    [
        ('auto', (), CPU_BUILD, False, 'ok', 'No GPU'),
        ('auto', (CARD,), SEEING, True, 'ok', '80.0 GiB, driver 550.54, compute capability 9.0'),
        ('auto', (), SEEING, False, 'ok', 'NVIDIA H100, compute'),
        ('cpu', (CARD,), CPU_BUILD, True, 'ok', 'as the setting device says'),
        ('auto', (CARD,), CPU_BUILD, True, 'warning', 'CPU build'),
        ('cuda', (CARD,), CPU_BUILD, True, 'error', 'CPU build'),
        ('auto', (CARD,), CUDA_BUILD, True, 'warning', 'does not see'),
        ('auto', (), CUDA_BUILD, True, 'warning', 'no driver answers'),
        ('auto', (), CUDA_BUILD, False, 'warning', 'no NVIDIA GPU here, while'),
        ('cuda', (), CUDA_BUILD, False, 'error', 'device is cuda'),
    ],
)
def test_gpu_driver_and_torch_must_match(device, driver, torch, card, state, words):
    line = only(machine.gpu_findings(device, driver, torch, card))
    assert line.state == state and words in line.what


def test_a_torch_without_code_for_the_gpu_is_an_error_that_names_the_code():
    line = only(machine.gpu_findings('auto', (CARD,), replace(SEEING, architectures=('sm_50', 'sm_80')), True))
    assert line.state == 'error' and 'sm_90' in line.fix


@pytest.mark.parametrize(
    ('capability', 'architectures', 'runs'),
    [
        ((8, 6), ('sm_80',), True),
        ((9, 0), ('sm_80',), False),
        ((9, 0), ('compute_80',), True),
        ((7, 5), ('sm_80', 'compute_80'), False),
        ((12, 0), ('sm_90a', 'sm_120'), True),
    ],
)
def test_which_code_runs_where(capability, architectures, runs):
    assert machine.runs_on(capability, architectures) == runs


def test_nvidia_smi_rows_are_read_even_with_commas_and_unknown_figures():
    found = machine.parse_driver('NVIDIA H100, 550.54, 81559, 81000\nGrace, odd, 535.1, [N/A], [N/A]\n')
    assert found == (
        machine.Gpu('NVIDIA H100', '550.54', 81559 * 2**20, 81000 * 2**20),
        machine.Gpu('Grace, odd', '535.1', 0, 0),
    )


def test_a_card_without_a_driver_is_found_on_the_bus(tmp_path):
    for name, vendor, kind in (('a', '0x8086', '0x030000'), ('b', '0x10de', '0x040300')):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'vendor').write_text(vendor + '\n')
        (tmp_path / name / 'class').write_text(kind + '\n')
    assert not machine.card_on_bus(tmp_path)
    (tmp_path / 'b' / 'class').write_text('0x030200\n')
    assert machine.card_on_bus(tmp_path)


# Memory


@pytest.mark.parametrize(('free', 'state'), [(0.9, 'error'), (1.1, 'warning'), (1.5, 'ok')])
def test_free_memory_is_compared_with_the_estimate_and_both_are_reported(free, state):
    need = MemoryEstimate(weights=4 * GIB, cache=GIB, working=GIB)
    total = machine.PROCESS + need.total
    line = only(machine.memory_findings(need, 'cpu', round(free * total), 0, ('history',)))
    assert line.state == state and f'{total / GIB:.1f} GiB needed' in line.what and 'free' in line.what
    assert ('would give up, in this order: history' in line.what) == (state == 'warning')
    on_gpu = machine.CUDA_CONTEXT + need.total
    of_gpu, of_ram = machine.memory_findings(need, 'cuda', 100 * GIB, round(free * on_gpu))
    assert of_gpu.state == state and of_ram.state == 'ok' and 'offload' not in of_ram.what
    _, of_ram = machine.memory_findings(need, 'cuda', 5 * GIB, 100 * GIB, ('offload',))
    assert of_ram.state == 'error' and 'the weights with offload' in of_ram.what


def test_the_fallback_steps_that_apply_are_those_that_the_device_and_the_model_have():
    names = ['graphs', 'history', 'tiny_decoder', 'offload']
    assert machine.applicable_steps(names, 'cpu', True, 4, False) == ('history',)
    assert machine.applicable_steps(names, 'cuda', True, 1, True) == ('graphs', 'tiny_decoder', 'offload')
    assert machine.applicable_steps(['offload', 'history'], 'cuda', False, 2, False) == ('offload', 'history')


# Versions


def test_the_minimum_versions_are_those_of_the_project():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    wanted = {d for d in project['dependencies'] if not d.startswith('ros-')}
    assert {f'{name}>={least}' if least else name for name, least in machine.MIN_VERSIONS.items()} == wanted
    assert project['requires-python'] == f'>={machine.MIN_PYTHON}'


def test_old_and_missing_packages_are_errors_with_the_command():
    found = dict.fromkeys(machine.MIN_VERSIONS, '9.9') | {'torch': '2.13.0+cpu'}
    assert only(machine.version_findings('3.11.2', found)).state == 'ok'
    lines = machine.version_findings('3.10.12', found | {'torch': '2.3.1+cu121', 'av': None})
    assert [line.state for line in lines] == ['error'] * 3
    assert "pip install 'torch>=2.4'" in lines[1].fix and "pip install 'av'" in lines[2].fix


def test_the_versions_of_this_environment_are_found():
    python, found = machine.read_versions()
    assert python and all(found.values())
