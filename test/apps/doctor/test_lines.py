"""Findings about GPU, memory, versions, ROS and big images, from plain inputs."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from wristworld_ros.apps.doctor import gpu, memory, ros, transport, versions
from wristworld_ros.apps.doctor.finding import Finding, error, exit_status, from_error, ok, warning
from wristworld_ros.runtime.memory_estimate import MemoryEstimate

ROOT = Path(__file__).resolve().parents[3]
GIB = 2**30
CARD = gpu.Gpu('NVIDIA H100', '550.54', 80 * GIB, 79 * GIB)
CPU_BUILD = gpu.Torch('2.6.0+cpu')
CUDA_BUILD = gpu.Torch('2.6.0', '12.4')
SEEING = gpu.Torch('2.6.0', '12.4', ('sm_80', 'sm_90'), (('NVIDIA H100', (9, 0)),))
WHEEL = ros.Ros('/env/rclpy', '9.1.2', True, ('rmw_fastrtps_cpp',), {})


def only(lines):
    (line,) = lines
    return line


# Lines


def test_a_line_is_one_sentence_with_its_fix_and_the_worst_decides_the_status():
    bad = error('No GPU', 'buy one')
    assert str(bad) == 'error   No GPU; buy one.' and str(ok('Fine')) == 'OK      Fine.'
    assert [exit_status(x) for x in ([], [ok('a')], [ok('a'), warning('b', 'c')], [bad, warning('b', 'c')])] == [
        0,
        0,
        1,
        2,
    ]


@pytest.mark.parametrize('arguments', [('bad', 'x', 'y'), ('ok', 'x', 'y'), ('error', 'x', '')])
def test_a_line_without_a_known_state_or_a_fix_is_refused(arguments):
    with pytest.raises(ValueError):
        Finding(*arguments)


def test_an_error_of_the_package_is_cut_into_what_and_fix():
    assert from_error(ValueError('f is missing; copy it.')) == error('f is missing', 'copy it')
    assert from_error(ValueError('f is odd.')).what == 'f is odd'


# GPU


@pytest.mark.parametrize(
    ('device', 'driver', 'torch', 'card', 'state', 'words'),
    [
        ('auto', (), CPU_BUILD, False, 'ok', 'No GPU'),
        ('auto', (CARD,), SEEING, True, 'ok', '80.0 GiB, driver 550.54, compute capability 9.0'),
        ('auto', (), SEEING, False, 'ok', 'NVIDIA H100, compute'),
        ('cpu', (CARD,), CPU_BUILD, True, 'ok', 'as the setting device says'),
        ('auto', (CARD,), CPU_BUILD, True, 'warning', 'build for the CPU'),
        ('cuda', (CARD,), CPU_BUILD, True, 'error', 'build for the CPU'),
        ('auto', (CARD,), CUDA_BUILD, True, 'warning', 'does not see'),
        ('auto', (), CUDA_BUILD, True, 'warning', 'no driver answers'),
        ('auto', (), CUDA_BUILD, False, 'warning', 'no NVIDIA GPU here, while'),
        ('cuda', (), CUDA_BUILD, False, 'error', 'device is cuda'),
    ],
)
def test_gpu_driver_and_torch_must_fit(device, driver, torch, card, state, words):
    line = only(gpu.gpu_lines(device, driver, torch, card))
    assert line.state == state and words in line.what


def test_a_torch_without_code_for_the_gpu_is_an_error_that_names_the_code():
    line = only(gpu.gpu_lines('auto', (CARD,), replace(SEEING, architectures=('sm_50', 'sm_80')), True))
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
    assert gpu.runs_on(capability, architectures) == runs


def test_nvidia_smi_rows_are_read_even_with_commas_and_unknown_figures():
    found = gpu.parse_driver('NVIDIA H100, 550.54, 81559, 81000\nGrace, odd, 535.1, [N/A], [N/A]\n')
    assert found == (
        gpu.Gpu('NVIDIA H100', '550.54', 81559 * 2**20, 81000 * 2**20),
        gpu.Gpu('Grace, odd', '535.1', 0, 0),
    )


def test_a_card_without_a_driver_is_found_on_the_bus(tmp_path):
    for name, vendor, kind in (('a', '0x8086', '0x030000'), ('b', '0x10de', '0x040300')):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'vendor').write_text(vendor + '\n')
        (tmp_path / name / 'class').write_text(kind + '\n')
    assert not gpu.card_on_bus(tmp_path)
    (tmp_path / 'b' / 'class').write_text('0x030200\n')
    assert gpu.card_on_bus(tmp_path)


# Memory


@pytest.mark.parametrize(('free', 'state'), [(0.9, 'error'), (1.1, 'warning'), (1.5, 'ok')])
def test_free_memory_is_held_against_the_need_and_both_are_told(free, state):
    need = MemoryEstimate(weights=4 * GIB, cache=GIB, working=GIB)
    total = memory.PROCESS + need.total
    line = only(memory.memory_lines(need, 'cpu', round(free * total), 0, ('history',)))
    assert line.state == state and f'{total / GIB:.1f} GiB needed' in line.what and 'free' in line.what
    assert ('would give up, in this order: history' in line.what) == (state == 'warning')
    on_gpu = memory.CUDA_CONTEXT + need.total
    of_gpu, of_ram = memory.memory_lines(need, 'cuda', 100 * GIB, round(free * on_gpu))
    assert of_gpu.state == state and of_ram.state == 'ok' and 'offload' not in of_ram.what
    _, of_ram = memory.memory_lines(need, 'cuda', 5 * GIB, 100 * GIB, ('offload',))
    assert of_ram.state == 'error' and 'the weights with offload' in of_ram.what


def test_the_rungs_that_would_be_taken_are_those_that_the_device_and_the_model_have():
    names = ['graphs', 'history', 'tiny_decoder', 'offload']
    assert memory.applicable(names, 'cpu', True, 4, False) == ('history',)
    assert memory.applicable(names, 'cuda', True, 1, True) == ('graphs', 'tiny_decoder', 'offload')
    assert memory.applicable(['offload', 'history'], 'cuda', False, 2, False) == ('offload', 'history')


# Versions


def test_the_least_versions_are_those_of_the_project():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    wanted = {d for d in project['dependencies'] if not d.startswith('ros-')}
    assert {f'{name}>={least}' if least else name for name, least in versions.LEAST.items()} == wanted
    assert project['requires-python'] == f'>={versions.PYTHON}'


def test_old_and_missing_packages_are_errors_with_the_command():
    found = dict.fromkeys(versions.LEAST, '9.9') | {'torch': '2.13.0+cpu'}
    assert only(versions.version_lines('3.11.2', found)).state == 'ok'
    lines = versions.version_lines('3.10.12', found | {'torch': '2.3.1+cu121', 'av': None})
    assert [line.state for line in lines] == ['error'] * 3
    assert "pip install 'torch>=2.4'" in lines[1].fix and "pip install 'av'" in lines[2].fix


def test_the_versions_of_this_environment_are_found():
    assert all(versions.read_versions().values())


# ROS


def test_without_ros_one_error_says_how_to_get_it():
    line = only(ros.ros_lines(replace(WHEEL, rclpy='')))
    assert line.state == 'error' and 'not installed' in line.what and 'ros-rclpy' in line.fix
    assert 'jazzy is sourced' in only(ros.ros_lines(replace(WHEEL, rclpy='', env={'ROS_DISTRO': 'jazzy'}))).what


@pytest.mark.parametrize(
    ('env', 'changes', 'state', 'words'),
    [
        ({}, {}, 'ok', 'ROS kilted'),
        ({'ROS_DISTRO': 'jazzy'}, {'wheel': ''}, 'ok', 'an installed ROS'),
        ({'ROS_DISTRO': 'humble'}, {'wheel': ''}, 'warning', 'older'),
        ({'ROS_DISTRO': 'jazzy'}, {}, 'warning', 'do not mix'),
        ({'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'}, {}, 'error', 'rmw_cyclonedds_cpp'),
        ({}, {'messages': False}, 'error', 'messages'),
        ({'ROS_DOMAIN_ID': '7'}, {}, 'ok', 'ROS_DOMAIN_ID 7'),
        ({'ROS_DOMAIN_ID': 'x'}, {}, 'error', "'x'"),
        ({'ROS_DOMAIN_ID': '233'}, {}, 'error', "'233'"),
        ({'ROS_DOMAIN_ID': '150'}, {}, 'warning', 'ports'),
        ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF'}, {}, 'warning', 'no node finds'),
    ],
)
def test_distribution_middleware_messages_and_network(env, changes, state, words):
    lines = ros.ros_lines(replace(WHEEL, env=env, **changes))
    assert any(line.state == state and words in line.what for line in lines)
    assert state != 'ok' or exit_status(lines) == 0


def test_the_ros_of_this_environment_is_found_without_importing_it():
    found = ros.read_ros()
    assert found.rclpy and found.messages and found.distribution
    assert exit_status(ros.ros_lines(replace(found, env={}))) == 0


# Big images


def test_the_profile_of_the_package_has_room_and_fast_ddss_own_has_not(tmp_path):
    image = 640 * 480 * 3
    ours = ROOT / transport.PROFILE
    assert transport.read_profile(ours) == ([32 * 2**20], False)
    assert transport.profile_line(str(ours), image).state == 'ok'
    assert transport.profile_line(str(ours), 4 * 2**22).state == 'warning'
    assert transport.profile_line('', image).state == 'warning'
    plain = tmp_path / 'plain.xml'
    plain.write_text('<dds><profiles/></dds>')
    assert '512 MiB' not in transport.profile_line(str(plain), image).what
    assert transport.profile_line(str(plain), image).state == 'warning'
    plain.write_text(ours.read_text().replace('SHM', 'UDPv4'))
    assert 'no shared memory' in transport.profile_line(str(plain), image).what
    plain.write_text('<dds>')
    assert transport.profile_line(str(plain), image).state == 'error'
    assert transport.profile_line(str(tmp_path / 'none.xml'), image).state == 'error'


@pytest.mark.parametrize(
    ('rmw', 'rmem', 'local', 'states'),
    [
        ('rmw_fastrtps_cpp', 212_992, True, ['ok']),
        ('rmw_fastrtps_cpp', 212_992, False, ['ok', 'warning']),
        ('rmw_fastrtps_cpp', 2**23, False, ['ok', 'ok']),
        ('rmw_cyclonedds_cpp', 212_992, True, ['warning']),
        ('rmw_zenoh_cpp', 212_992, False, []),
        ('rmw_fastrtps_cpp', 0, False, ['ok', 'ok']),
    ],
)
def test_socket_buffers_matter_where_images_come_through_sockets(rmw, rmem, local, states):
    lines = transport.transport_lines(rmw, str(ROOT / transport.PROFILE), rmem, 640 * 480 * 3, 2, local)
    assert [line.state for line in lines] == states
    if 'warning' in states:
        assert 'sysctl -w net.core.rmem_max=8388608' in lines[-1].fix
