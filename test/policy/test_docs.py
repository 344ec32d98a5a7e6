"""docs/policies.md: every example runs, against a node's topics and a server, and the tables say what the adapters have."""

import re
import warnings
from pathlib import Path

import pytest

from wristworld_client import errors as client_errors
from wristworld_ros.policy import errors, lerobot, octo, openpi, wire
from wristworld_ros.policy.bridge import FrameServer
from wristworld_ros.policy.settings import BridgeSettings
from wristworld_ros.policy.wrist_camera import WristCamera

PAGE = (Path(__file__).parents[2] / 'docs/policies.md').read_text()
EXAMPLES = re.findall(r'^```python\n(.*?)^```', PAGE, re.S | re.M)
ADDRESS = 'tcp:127.0.0.1:5650'


@pytest.mark.parametrize('module', [lerobot, octo, openpi])
def test_every_key_of_an_adapter_is_in_its_table(module):
    for key in module.make_example():
        if key != 'observation.images.left':
            assert f'`{key}`' in PAGE, key


def test_every_error_call_and_kind_is_on_the_page():
    names = {name for module in (errors, client_errors) for name in vars(module) if name.endswith('Error')}
    for word in {*names, *wire.CALLS, *wire.KINDS.values()} - {'UserError'}:
        assert f'`{word}' in PAGE or f'{word}`' in PAGE, word


def test_the_default_address_of_the_examples_is_the_command_s():
    assert BridgeSettings().address == ADDRESS and ADDRESS in PAGE


def test_all_examples_run(view_publisher, capsys):
    """One after the other, on slow machines too: limits of age are raised."""
    assert len(EXAMPLES) == 9
    publisher = view_publisher()
    with (
        WristCamera(max_age=100.0) as camera,
        FrameServer(camera, BridgeSettings('tcp:127.0.0.1:0', max_age=100.0)) as server,
    ):
        publisher.wait_for_reader()
        publisher.keep_sending()
        camera.read(timeout=50)
        for example in EXAMPLES:
            code = example.replace('WristCamera()', 'WristCamera(max_age=100.0)').replace(ADDRESS, server.address)
            code = re.sub(r'(max_age=|timeout=)(0\.5|1\.0|5\.0)', r'\g<1>20.0', code).replace(
                'max_age_ms=500', 'max_age_ms=100000'
            )
            with warnings.catch_warnings():
                warnings.simplefilter('error')
                exec(compile(code, 'docs/policies.md', 'exec'), {})
    said = capsys.readouterr().out
    assert said.count('(48, 64, 3) uint8') == 3 and 'None' not in said
