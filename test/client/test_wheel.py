"""The client is a wheel of its own: pure Python, numpy alone beside it, for older Pythons too, in step with the node."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import wristworld_client
import wristworld_ros
from wristworld_ros.policy import wire
from wristworld_ros.policy.settings import BridgeSettings
from wristworld_ros.types import FrameStatus, Geometry

CLIENT = Path(__file__).parents[2] / 'client'
PROJECT = tomllib.loads((CLIENT / 'pyproject.toml').read_text())['project']
SOURCES = sorted((CLIENT / 'wristworld_client').glob('*.py'))


@pytest.mark.parametrize(
    ('ours', 'theirs'), [(FrameStatus, wristworld_client.FrameStatus), (Geometry, wristworld_client.Geometry)]
)
def test_the_codes_are_those_of_the_node(ours, theirs):
    assert {m.name: int(m) for m in ours} == {m.name: int(m) for m in theirs}


def test_versions_protocol_and_default_address_are_the_server_s():
    from wristworld_client import client

    assert PROJECT['version'] == wristworld_client.__version__ == wristworld_ros.__version__
    assert client.PROTOCOL == wire.PROTOCOL and client.MAX_WAIT_S == wire.MAX_WAIT_S
    assert BridgeSettings().address == client.DEFAULT_ADDRESS


def test_it_imports_numpy_and_the_standard_library_alone():
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition('.')[0])
    assert found - set(sys.stdlib_module_names) - {'wristworld_client'} == {'numpy'}
    assert PROJECT['dependencies'] == ['numpy']


def test_the_wheel_has_the_package_and_runs_alone(tmp_path):
    source = tmp_path / 'client'
    subprocess.run(['cp', '-r', CLIENT, source], check=True)  # building leaves files beside the sources
    build = [
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '--no-deps',
        '--no-build-isolation',
        '--no-index',
        '-q',
        '-w',
        tmp_path,
        source,
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob('*.whl')
    assert wheel.name == f'wristworld_client-{PROJECT["version"]}-py3-none-any.whl'
    names = zipfile.ZipFile(wheel).namelist()
    assert {f'wristworld_client/{path.name}' for path in SOURCES} | {'wristworld_client/py.typed'} <= set(names)
    assert any(name.endswith('licenses/LICENSE') for name in names)
    code = (
        f'import sys; sys.path[:0] = [{str(wheel)!r}]\nimport wristworld_client\n'
        f'assert wristworld_client.__file__.startswith({str(wheel)!r})\n'
        'assert not {"torch", "rclpy", "msgspec", "wristworld_ros"} & set(sys.modules)\n'
        'try: wristworld_client.WristClient("tcp:127.0.0.1:1").read_latest()\n'
        'except wristworld_client.ConnectionFailedError as error: print(error)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, env={})
    assert done.returncode == 0 and 'wristworld serve' in done.stdout, done.stderr
