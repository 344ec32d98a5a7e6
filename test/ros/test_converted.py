"""The published system in miniature, converted and run as a node: Wan's autoencoder makes four frames of one latent frame."""

import importlib.util
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from sensor_msgs.msg import Image

from wristworld_ros.apps.convert.convert import convert_release
from wristworld_ros.apps.convert.settings import ConvertSettings
from wristworld_ros.msg import WristView
from wristworld_ros.ros.conversions import to_ns


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """A model directory. Random heads predict a field of view of zero, an infinite focal length; these predict some."""
    spec = importlib.util.spec_from_file_location(
        'miniature', Path(__file__).parents[1] / 'apps/convert' / 'conftest.py'
    )
    miniature = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(miniature)
    release = miniature.write_release(tmp_path_factory.mktemp('release'))
    settings = ConvertSettings(
        out=str(tmp_path_factory.mktemp('out') / 'mini'), sizes=str(release / 'sizes.json'), wrist_width=48,
        wrist_height=32, anchor_width=56,
    )  # fmt: skip
    folder = convert_release([release], settings, progress=False)
    weights = load_file(folder / 'stage1.safetensors')
    for head in ('camera_head', 'wrist_head'):
        weights[f'{head}.pose_branch.fc2.bias'][7:] += 1.0
    save_file(weights, folder / 'stage1.safetensors')
    return folder


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_a_converted_release_streams_over_topics(stage, converted, precision):
    s = stage(model=str(converted), precision=precision, steps=2, history=1, reanchor=3).camera('left', 'right')
    images, views = s.listen(Image, 'wrist/image_raw'), s.listen(WristView, 'wrist/view')
    s.activate()
    sent = s.send_until(lambda: len(images) >= 1 + 4 * 4 and len(views) == len(images))
    stamps = [to_ns(m.header.stamp) for m in images]
    assert stamps == sorted(set(stamps)) and set(stamps) <= set(sent)
    assert {(m.width, m.height) for m in images} == {(48, 32)}
    assert all(v.status == WristView.VALID for v in views) and s.node.status().model_errors == 0
    assert len({bytes(m.data) for m in images}) > 10, 'the images change'
