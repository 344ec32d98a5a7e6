"""`config.json`: what is written is what is read, and a file that cannot be used is named."""

import json

import pytest

from wristworld_ros.errors import UserError
from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.models.config import PRETRAINED, ModelConfig, ModelError

CONFIG = ModelConfig(
    name='a model',
    stage1={'depth': 2},
    generator={},
    anchor_width=128,
    wrist_hw=(96, 128),
    cloud=CloudSettings(upsample=2, render_size=(48, 64)),
    untrained=('wrist_head',),
)


@pytest.fixture
def path(tmp_path):
    CONFIG.write(tmp_path / 'config.json')
    return tmp_path / 'config.json'


def test_what_is_written_is_what_is_read(path):
    assert ModelConfig.read(path) == CONFIG


def test_models_that_ship_with_the_package_can_be_read():
    paths = sorted(PRETRAINED.glob('*/config.json'))
    assert paths and [ModelConfig.read(p).name for p in paths] == [p.parent.name for p in paths]


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda c: c | {'format': 2}, 'not of format 1'),
        (lambda c: {k: v for k, v in c.items() if k != 'wrist_hw'}, r'missing required field `wrist_hw`'),
        (lambda c: {k: v for k, v in c.items() if k != 'name'}, r'missing required field `name`'),
        (lambda c: c | {'size': 3}, r'has the unknown key size'),
        (lambda c: c | {'cloud': {'radius': -1}}, 'radius is -1; give 0 to 64'),
        (lambda c: [c], 'expected `object`, got `array`'),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(path, change, words):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ModelError, match=words) as error:
        ModelConfig.read(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)
    assert isinstance(error.value, UserError) and error.value.fix


def test_a_file_that_is_missing_or_not_json_is_named(path, tmp_path):
    path.write_bytes(b'\xff{')
    with pytest.raises(ModelError, match=r'config\.json is not JSON'):
        ModelConfig.read(path)
    with pytest.raises(ModelError, match=r'config\.json is missing'):
        ModelConfig.read(tmp_path / 'nothing' / 'config.json')
    with pytest.raises(ModelError, match=r'config\.json cannot be read'):
        ModelConfig.read(path / 'config.json')
    with pytest.raises(ModelError, match=r'config\.json cannot be written'):
        CONFIG.write(tmp_path / 'nothing' / 'config.json')
