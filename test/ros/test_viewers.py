"""Files for rviz and Foxglove show topics that exist, and rviz gets the frame of the images."""

import json
import re
from pathlib import Path

import pytest
import yaml

from wristworld_ros.ros import rviz_starter

ROOT = Path(__file__).resolve().parents[2]
TOPICS = {
    '/anchor_left/image_raw', '/anchor_right/image_raw', '/wrist/image_raw', '/wrist/camera_info', '/wrist/condition/image_raw',
    '/wrist/points', '/wrist/pose', '/wrist/view', '/virtual_wrist/status', '/diagnostics', '/robot_description',
}  # fmt: skip


def rviz():
    return yaml.safe_load((ROOT / 'config/virtual_wrist.rviz').read_text())


def topics_of(displays):
    return [d['Topic']['Value'] for d in displays if 'Topic' in d]


def test_rviz_shows_both_anchors_the_wrist_with_the_scene_over_it_and_the_robot():
    displays = rviz()['Visualization Manager']['Displays']
    assert set(topics_of(displays)) <= TOPICS
    assert topics_of(displays)[:2] == ['/anchor_left/image_raw', '/anchor_right/image_raw']
    assert {'Camera', 'RobotModel', 'PointCloud2', 'TF'} <= {d['Class'].split('/')[1] for d in displays}


def test_foxglove_shows_topics_that_exist_and_every_panel_of_its_layout():
    layout = json.loads((ROOT / 'config/foxglove_layout.json').read_text())
    text = json.dumps(layout)
    shown = set(re.findall(r'"(/[a-z_]+(?:/[a-z_]+)*)', text))
    assert shown <= TOPICS and '/wrist/image_raw' in shown
    assert set(re.findall(r'"[A-Z3][A-Za-z0-9]*![a-z_]+"', json.dumps(layout['layout']))) == {
        f'"{panel}"' for panel in layout['configById']
    }


def test_rviz_gets_the_frame_of_the_images_a_display_for_each_anchor_and_the_namespace():
    topics = {'a': '/cam_1/image_raw', 'b': '/cam_2/image_raw', 'c': '/cam_3/image_raw/compressed'}
    tree = rviz_starter.configured(rviz(), 'cam_1_optical', topics, lambda t: f'/robot/{t.lstrip("/")}')
    manager = tree['Visualization Manager']
    assert manager['Global Options']['Fixed Frame'] == 'cam_1_optical'
    assert topics_of(manager['Displays'])[:4] == [*topics.values(), '/robot/wrist/image_raw']
    assert not any(t.startswith(('/anchor_', '/wrist/')) for t in topics_of(manager['Displays']))
    (model,) = [d for d in manager['Displays'] if 'RobotModel' in d['Class']]
    assert model['Description Topic']['Value'] == '/robot/robot_description'


def test_without_rviz_it_says_so_and_is_content(monkeypatch, capsys):
    monkeypatch.setattr(rviz_starter.shutil, 'which', lambda name: None)
    assert rviz_starter.main(['rviz_starter', '--anchors', 'left']) == 0
    said = capsys.readouterr().out
    assert 'rviz2 is not installed' in said and said.count('\n') == 1


@pytest.mark.parametrize('name', ['two_arms.yaml', 'diagnostics_aggregator.yaml'])
def test_files_that_ship_are_yaml(name):
    assert yaml.safe_load((ROOT / 'config' / name).read_text())
