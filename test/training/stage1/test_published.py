"""The published training of stage 1: matches, their cache, its losses, and a run from beginning to end."""

import json

import numpy as np
import pytest
import torch
import yaml

from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.errors import UserError
from wristworld_ros.geometry import decode_pose, project, shift_principal_point, unproject_depth
from wristworld_ros.models.vggt.losses import sample_points
from wristworld_ros.training.checkpoint import read_tensors
from wristworld_ros.training.config_reading import changed, default_config
from wristworld_ros.training.config_stage1 import ReconstructionConfig, ReconstructionData, SpcLosses
from wristworld_ros.training.stage1.matches import LoftrMatcher, TrackMatcher, TruthMatcher, prepare_matches
from wristworld_ros.training.stage1.published import build, load, published_losses, train_published
from wristworld_ros.training.stage1.scenes import SceneBatches, Scenes, collate_scenes
from wristworld_ros.training.stage1.study import (
    Figures,
    HeldOut,
    Remembered,
    configuration,
    headless_weights,
    run,
    table,
)

HW = (56, 84)
CONFIG = changed(
    default_config(ReconstructionConfig), model={'network': 'miniature', 'train': ['wrist', 'camera'], 'wrist_rate': 1e-3},
    data={'width': 84}, losses={'matches': 'truth', 'grid': 8, 'margin': 6.0},
    schedule={'steps': 4, 'batch': 2, 'workers': 0, 'precision': 'float32', 'checkpoint_every': 2, 'samples_every': 2},
)  # fmt: skip


def camera(name, role, position, rng, frames=3):
    """Looks down onto the table plane z = 0, whose texture follows from where it is."""
    K = np.array([[70.0, 0, (HW[1] - 1) / 2], [0, 70.0, (HW[0] - 1) / 2], [0, 0, 1]])
    down = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = down, -down @ np.array(position)
    column, row = np.meshgrid(np.arange(HW[1]), np.arange(HW[0]))
    x = position[0] + (column - K[0, 2]) / K[0, 0] * position[2]
    y = position[1] - (row - K[1, 2]) / K[1, 1] * position[2]
    image = np.stack([np.sin(20 * x), np.sin(20 * y), np.sin(13 * (x + y))], -1) * 127 + 128
    depth = np.full((frames, *HW), position[2], np.float32)
    return CameraTrack(
        name, role, np.stack([image.astype(np.uint8)] * frames), np.stack([K] * frames), np.stack([T] * frames), depth
    )


@pytest.fixture(scope='module')
def episodes(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp('episodes'), np.random.default_rng(0)
    for i in range(2):
        cameras = [camera('front', 'anchor', (0.5, 0.0, 1.0), rng), camera('side', 'anchor', (0.4, 0.1, 0.9), rng)]
        cameras.append(camera('wrist', 'wrist', (0.45 + 0.05 * i, 0.05, 0.4), rng))
        write_episode(
            folder / f'{i:06d}', task='none', seed=i, fps=10, success=True, stamps_ns=np.arange(3) * 10**8, cameras=cameras,
        )  # fmt: skip
    return folder


def test_true_matches_show_the_same_point(episodes):
    scene = Scenes(episodes, CONFIG.data, 14)[0]
    matches = TruthMatcher(CONFIG.losses)(scene)
    assert len(matches.wrist_uv) > 40 and set(matches.anchor_view.tolist()) == {0, 1}
    T, K = decode_pose(scene.cameras, HW)
    points = unproject_depth(scene.depth, shift_principal_point(K, -0.5), T)
    X = sample_points(points, matches.anchor_uv, matches.anchor_view)
    T_wrist, _ = decode_pose(scene.wrist_pose, HW)
    uv, _ = project(X, scene.wrist_K, T_wrist)
    assert (uv - matches.wrist_uv).abs().max() < 0.2


def test_matches_are_found_once_for_each_content(episodes, tmp_path):
    class Counting(TruthMatcher):
        calls = 0

        def __call__(self, scene):
            Counting.calls += 1
            return super().__call__(scene)

    scenes = Scenes(episodes, CONFIG.data, 14)
    key = prepare_matches(scenes, Counting(CONFIG.losses), tmp_path)
    contents = len({scenes[i].content for i in range(len(scenes))})
    assert Counting.calls == contents, 'frames that are alike to the pixel share their matches'
    assert prepare_matches(scenes, Counting(CONFIG.losses), tmp_path) == key and Counting.calls == contents
    other = SpcLosses(matches='truth', grid=4, margin=6.0)
    assert prepare_matches(scenes, Counting(other), tmp_path) != key and Counting.calls == 2 * contents
    batch = SceneBatches(scenes, tmp_path, key, 2, 0, 0, 1)[0]
    assert len(batch['matches']) == 2 and len(batch['matches'][0].wrist_uv) > 40


def test_two_processes_share_out_what_one_takes(episodes):
    scenes = Scenes(episodes, CONFIG.data, 14)
    whole = SceneBatches(scenes, None, '', 4, 7, 0, 1)[3]['images']
    parts = [SceneBatches(scenes, None, '', 2, 7, process, 2)[3]['images'] for process in range(2)]
    assert torch.equal(whole, torch.cat(parts))


def test_tracks_of_the_models_own_head_are_matches_without_gradient(episodes):
    torch.manual_seed(0)
    module = build(CONFIG)
    losses = SpcLosses(grid=5, margin=6.0, match_visibility=0.0, match_confidence=0.0)
    matches = TrackMatcher(module, losses, 'cpu')(Scenes(episodes, CONFIG.data, 14)[0])
    assert len(matches.wrist_uv) == 2 * 25 and not matches.anchor_uv.requires_grad
    assert TrackMatcher(module, losses, 'cpu').identity() == TrackMatcher(module, losses, 'cpu').identity()
    with torch.no_grad():
        module.track_head.tracker.query_ref_token.add_(1)
    changed_one = TrackMatcher(module, losses, 'cpu').identity()
    with torch.no_grad():
        module.track_head.tracker.query_ref_token.sub_(1)
    assert changed_one != TrackMatcher(module, losses, 'cpu').identity()


def test_loftr_matches_with_weights_of_this_machine(episodes, tmp_path):
    feature = pytest.importorskip('kornia.feature')
    torch.manual_seed(0)
    torch.save(feature.LoFTR(pretrained=None).state_dict(), tmp_path / 'loftr.pt')
    losses = SpcLosses(matches='loftr', matcher_weights=str(tmp_path / 'loftr.pt'), match_confidence=0.0)
    matches = LoftrMatcher(tmp_path / 'loftr.pt', losses, 'cpu')(Scenes(episodes, CONFIG.data, 14)[0])
    assert matches.wrist_uv.shape == matches.anchor_uv.shape and len(matches.anchor_view) == len(matches.confidence)
    torch.save({'a': torch.zeros(1)}, tmp_path / 'other.pt')
    with pytest.raises(UserError, match=r'other\.pt does not hold the weights of LoFTR'):
        LoftrMatcher(tmp_path / 'other.pt', losses, 'cpu')


@pytest.mark.parametrize(
    ('pose', 'terms'),
    [
        ('spc', {'fov', 'cameras', 'spc'}),
        ('direct', {'fov', 'cameras', 'direct'}),
        ('direct_nearest', {'fov', 'cameras', 'direct'}),
        ('both', {'fov', 'cameras', 'direct', 'spc'}),
    ],
)
def test_only_the_trained_heads_get_a_gradient(episodes, pose, terms):
    torch.manual_seed(0)
    config = changed(CONFIG, losses={'pose': pose})
    module, scene = build(config), Scenes(episodes, config.data, 14)[0]
    batch = collate_scenes([scene], [TruthMatcher(config.losses)(scene)])
    found = published_losses(module, batch, config.losses, 'cpu')
    found['total'].backward()
    assert set(found) == {'total', 'spc_px', *terms} and torch.isfinite(found['total'])
    moved = {name.split('.')[0] for name, p in module.named_parameters() if p.grad is not None}
    assert moved == {'wrist_head', 'camera_head'}


def test_a_run_leaves_weights_matches_pictures_and_a_log(episodes, tmp_path):
    train_published(episodes, episodes, tmp_path, CONFIG, None, 'cpu')
    log = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert [r['step'] for r in log] == [2, 4] and all(np.isfinite(r['val_spc_px']) for r in log)
    scenes = Scenes(episodes, CONFIG.data, 14)
    found = {p.name.partition('-')[0] for p in (tmp_path / 'matches').glob('*.safetensors')}
    assert found == {scenes[i].content for i in range(len(scenes))}
    assert sorted(p.name for p in (tmp_path / 'samples').iterdir()) == ['00000002.png', '00000004.png']
    module = build(CONFIG)
    load(module, str(tmp_path))
    own = module.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in read_tensors(tmp_path).items())


def test_what_recordings_do_not_say_is_told_before_training(episodes, tmp_path):
    blind = tmp_path / 'videos.yaml'
    cameras = {name: {'video': f'{{stem}}/{name}.mp4'} for name in ('front', 'wrist')}
    blind.write_text(yaml.safe_dump({'cameras': cameras, 'episodes': '0*', 'root': str(episodes)}))
    with pytest.raises(UserError, match=r'does not say where front is.*losses\.cameras to 0'):
        train_published(blind, None, tmp_path / 'out', CONFIG, None, 'cpu')
    unknown = changed(CONFIG, losses={'cameras': 0.0})
    with pytest.raises(UserError, match=r'intrinsics of its wrist camera.*data\.wrist_fov'):
        train_published(blind, None, tmp_path / 'out', unknown, None, 'cpu')
    known = changed(unknown, data={'wrist_fov': 70.0})
    with pytest.raises(UserError, match='no depth or no camera poses; give track'):
        train_published(blind, None, tmp_path / 'out', known, None, 'cpu')
    assert Scenes(blind, ReconstructionData(width=84, wrist_fov=70.0), 14)[0].wrist_K[0, 0] == pytest.approx(
        42 / np.tan(np.radians(35)), rel=1e-4
    )


@pytest.mark.parametrize(('pose', 'least'), [('direct', 1.0), ('direct_nearest', 0.0)])
def test_the_other_sign_of_the_true_quaternion_costs_nothing_where_both_are_asked_for(episodes, pose, least):
    config = configuration(pose, 0, 'none', 1, 1e-3, 1)
    module, scene = build(config), Scenes(episodes, config.data, 16)[0]
    other = scene.wrist_pose.clone()
    other[3:7] *= -1
    module.wrist_head = Knowing(other[None].expand(1, 9))
    found = published_losses(module, collate_scenes([scene], [None]), config.losses, 'cpu')['direct']
    assert least <= float(found) < least + 5, 'the head of one round that knows the pose'
    assert pose == 'direct' or float(found) < 1e-5


class Knowing(torch.nn.Module):
    """In place of a wrist head: it knows the pose."""

    def __init__(self, pose):
        super().__init__()
        self.embed_pose, self.pose = torch.nn.Linear(1, 1), pose

    def forward(self, tokens):
        return self.pose[None, :, None]


def test_the_studys_figures_are_zero_for_the_true_pose_and_grow_with_its_error(episodes, tmp_path):
    config = configuration('spc', 0, headless_weights('sim_tiny', tmp_path), 1, 1e-3, 2)
    module, scenes = build(config), Scenes(episodes, config.data, 16)
    held, pose = HeldOut(episodes, config, 16), torch.stack([scenes[i].wrist_pose for i in range(len(scenes))])
    module.wrist_head = Knowing(pose)
    found = held.figures(module)
    assert held.best(module) == found
    assert found.true_px < 0.3 and found.degrees < 0.1 and found.cm < 0.01 and found.own_px > found.true_px
    moved = pose.clone()
    moved[:, 0] += 0.02
    module.wrist_head = Knowing(moved)
    # Two centimetres at 0.4 metres: 70 pixels of focal length on 84, here 128 of them.
    wanted = held.figures(module)
    assert wanted.cm == pytest.approx(2.0, abs=0.01) and wanted.true_px == pytest.approx(
        0.02 / 0.4 * 70 * 128 / 84, abs=0.5
    )


def test_the_study_trains_the_heads_alone_and_keeps_what_was_finished(episodes, tmp_path):
    config = configuration('spc', 0, headless_weights('sim_tiny', tmp_path), 2, 1e-3, 2)
    held = HeldOut(episodes, config, 16)
    before, after = run(episodes, held, tmp_path / 'one', config)
    assert before != after and np.isfinite([after.own_px, after.true_px, after.degrees, after.cm]).all()
    assert run(tmp_path / 'gone', held, tmp_path / 'one', config) == (before, after)


def test_what_is_remembered_is_what_the_network_computes():
    calls = []

    class Network(torch.nn.Module):
        def forward(self, x, factor):
            calls.append(len(x))
            return {'double': factor * x}

    remembered, x = Remembered(Network()), torch.arange(6.0).view(3, 2)
    assert torch.equal(remembered(x[:2], 2)['double'], 2 * x[:2])
    assert torch.equal(remembered(x[[2, 0]], 2)['double'], 2 * x[[2, 0]]) and calls == [2, 1]
    assert torch.equal(remembered(x[:1], 3)['double'], 3 * x[:1]) and calls == [2, 1, 1]


def test_what_spc_gains_is_paired_by_seed():
    def pair(px):
        return Figures(40.0, 41.0, 42.0, 90.0, 50.0), Figures(px, 2 * px, 5.0, 3.0, 4.0)

    text = table({'spc': [pair(5.0), pair(9.0)], 'direct': [pair(6.0), pair(10.0)]}, pair(1.0)[1])
    assert '| the true pose | 1.00 | 2.00 |' in text
    assert '| before | 40.00 ± 0.00 | 41.00 ± 0.00 |' in text and '| SPC | 7.00 ± 2.00 | 14.00 ± 4.00 |' in text
    assert '| SPC less w/o SPC, paired | -1.00 ± 0.00 | -2.00 ± 0.00 | +0.00 ± 0.00 |' in text
