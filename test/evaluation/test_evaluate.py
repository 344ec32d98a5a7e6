"""The evaluation from start to end on small made-up episodes and a tiny model with random weights."""

import json
import math
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from wristworld_ros.data.formats.lerobot.writer import write_lerobot
from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.data.formats.videos_writer import write_videos
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.data.video import write_video
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation import baselines
from wristworld_ros.evaluation.evaluate import COPY, LATE, MEAN, TRUTH, _labels, evaluate, filled_name, generated_name
from wristworld_ros.evaluation.knowledge import LEVELS
from wristworld_ros.evaluation.page import side_by_side
from wristworld_ros.evaluation.settings import EvaluationSettings
from wristworld_ros.pipeline import VirtualWrist, tiny_random_model
from wristworld_ros.settings import StreamSettings

FRAMES = 6
RGB, EXACT = LEVELS['rgb'], LEVELS['exact']


def track(name, role, rng, size=48, offset=0.0):
    """A camera that looks at a wall half a metre away."""
    coarse = rng.integers(0, 256, (FRAMES, size // 8, size // 8, 3), dtype=np.uint8)
    K = np.tile(np.array([[size, 0, size / 2 - 0.5], [0, size, size / 2 - 0.5], [0, 0, 1.0]]), (FRAMES, 1, 1))
    T = np.tile(np.eye(4), (FRAMES, 1, 1))
    T[:, 0, 3] = offset + (0.01 * np.arange(FRAMES) if role == 'wrist' else 0)
    depth = np.full((FRAMES, size, size), 0.5, np.float32)
    return CameraTrack(name, role, coarse.repeat(8, 1).repeat(8, 2), K, T, depth)


@pytest.fixture(scope='module')
def episodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('episodes')
    for seed in range(2):
        rng = np.random.default_rng(seed)
        cameras = [
            track('left', 'anchor', rng),
            track('right', 'anchor', rng, offset=0.2),
            track('wrist', 'wrist', rng, 32),
        ]
        write_episode(
            folder / f'{seed:06d}', task='none', seed=seed, fps=10, success=True,
            stamps_ns=np.arange(1, FRAMES + 1) * 10**8, cameras=cameras,
        )  # fmt: skip
    return folder


@pytest.fixture(scope='module')
def model():
    return tiny_random_model()


def test_every_row_is_measured_on_the_same_frames(episodes, model, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / 'mean.png'), np.full((32, 32, 3), 99, np.uint8))
    table = evaluate(
        model, episodes, StreamSettings(chunk=4), EvaluationSettings(row_steps='1,2', knowledge='rgb,exact', mean_image=str(tmp_path / 'mean.png')),
        {'no SPC': model}, tmp_path, progress=False,
    )  # fmt: skip
    assert list(table.rows) == [
        TRUTH,
        LATE,
        MEAN,
        COPY,
        generated_name(RGB, 1),
        filled_name(RGB),
        generated_name(RGB, 2),
        generated_name(EXACT, 1),
        filled_name(EXACT),
        'no SPC',
    ]
    assert all(len(records) == 2 for records in table.rows.values())
    assert '2 episodes, 8 frames' in table.head['data']  # the last two of six never fill a chunk of four
    for row in (generated_name(RGB, 1), 'no SPC', filled_name(RGB)):
        assert all(
            math.isfinite(table.mean(row, key))
            for key in ('psnr', 'ssim', 'rotation_deg', 'aligned_position_m', 'scale_percent', 'cloud_median_px')
        )
    assert table.values('no SPC', 'psnr').tolist() == table.values(generated_name(RGB, 1), 'psnr').tolist()
    written = json.loads((tmp_path / 'episodes' / '000001.json').read_text())
    assert written['frames'] == 4 and filled_name(EXACT) in written['rows']


def test_the_same_seed_gives_the_same_table_and_steps_differ_from_the_stream_of_one(episodes, model):
    settings = EvaluationSettings(row_steps='1', limit=1, frames=3)
    one, two = (evaluate(model, episodes, None, settings, progress=False) for _ in range(2))
    assert json.dumps(one.record()) == json.dumps(two.record())


def test_stage_1_runs_once_on_each_anchor_set_however_many_rows_share_it(episodes, model, monkeypatch):
    sets = []
    reconstruct = VirtualWrist.reconstruct
    monkeypatch.setattr(VirtualWrist, 'reconstruct', lambda wrist, s: sets.append(s) or reconstruct(wrist, s))
    settings = EvaluationSettings(row_steps='1,2', knowledge='rgb', limit=1, frames=3, seeds=2)
    evaluate(model, episodes, None, settings, {'the same': model}, progress=False)
    assert len(sets) == 3


def test_black_pixels_of_a_filled_map_are_no_holes(episodes, model, monkeypatch):
    depths = []
    inpaint = baselines.inpaint
    monkeypatch.setattr(baselines, 'inpaint', lambda image, depth: depths.append(depth) or inpaint(image, depth))
    evaluate(
        model,
        episodes,
        None,
        EvaluationSettings(row_steps='1', knowledge='rgb,exact', limit=1, frames=2),
        progress=False,
    )
    assert len(depths) == 4 and all(d.dtype == np.float32 and (d > 0).any() for d in depths)


def test_what_cannot_be_evaluated_is_told_in_a_sentence(episodes, model, tmp_path):
    with pytest.raises(UserError, match='holds no data set of a known format'):
        evaluate(model, tmp_path, progress=False)
    with pytest.raises(ValueError, match=r'2 anchor cameras.*3'):
        evaluate(model, episodes, None, EvaluationSettings(anchors=3), progress=False)
    with pytest.raises(UserError, match='give whole numbers'):
        evaluate(model, episodes, None, EvaluationSettings(row_steps='one'), progress=False)
    for steps, said in (('1,1', 'one number twice'), ('2,0', 'Setting steps is 0')):
        with pytest.raises(UserError, match=said):
            evaluate(model, episodes, None, EvaluationSettings(row_steps=steps), progress=False)
    with pytest.raises(UserError, match='give a smaller --chunk'):
        evaluate(model, episodes, StreamSettings(chunk=8), EvaluationSettings(row_steps='1'), progress=False)


def test_the_near_plane_of_the_stream_changes_the_filled_map(episodes, model):
    def psnr(near):
        settings = EvaluationSettings(row_steps='1', knowledge='rgb,exact', limit=1, frames=2)
        table = evaluate(model, episodes, StreamSettings(near=near), settings, progress=False)
        return table.mean(filled_name(RGB), 'psnr'), table.head['stream']

    (own, head), (far_own, _) = psnr(0.02), psnr(1.0)
    assert own != far_own
    assert 'near plane 0.02 m (wrist camera known: 0.02 m)' in head


def test_exact_knowledge_of_a_wall_gives_the_wall(episodes, model, monkeypatch):
    depths = []
    inpaint = baselines.inpaint
    monkeypatch.setattr(baselines, 'inpaint', lambda image, depth: depths.append(depth) or inpaint(image, depth))
    settings = EvaluationSettings(row_steps='1', knowledge='exact', limit=1, frames=2)
    evaluate(model, episodes, None, settings, progress=False)
    for depth in depths:
        assert (depth > 0).mean() > 0.9
        np.testing.assert_allclose(depth[depth > 0], 0.5, atol=1e-3)


def test_unknown_knowledge_is_told_with_what_is_known(episodes, model):
    with pytest.raises(UserError, match=r"'guess'.*rgb, mounted, calibrated, calibrated-exact, rgbd, exact"):
        evaluate(model, episodes, None, EvaluationSettings(knowledge='rgb,guess'), progress=False)


def test_without_a_choice_every_level_that_the_episodes_know_enough_for_is_a_row(episodes, model, tmp_path):
    """Episodes without calibration are images alone; they have no pose errors, and nobody can tell them of cameras."""
    settings = EvaluationSettings(row_steps='1', limit=1, frames=2, sim_fvd=None)
    table = evaluate(model, episodes, None, settings, progress=False)
    assert {generated_name(level, 1) for name, level in LEVELS.items() if name != 'mounted'} <= set(table.rows)
    assert generated_name(LEVELS['mounted'], 1) not in table.rows, 'they do not say how the camera is mounted'
    images = videos_without_calibration(tmp_path / 'videos')
    table = evaluate(model, images, None, EvaluationSettings(row_steps='1'), progress=False)
    assert [row for row in table.rows if 'generated' in row] == [generated_name(RGB, 1)]
    assert math.isfinite(table.mean(generated_name(RGB, 1), 'psnr'))
    assert math.isnan(table.mean(generated_name(RGB, 1), 'rotation_deg'))
    with pytest.raises(UserError, match='cameras without calibration'):
        evaluate(model, images, None, EvaluationSettings(row_steps='1', knowledge='calibrated'), progress=False)


def videos_without_calibration(folder):
    """A folder of plain videos with a mapping, as docs/datasets.md has it."""
    rng = np.random.default_rng(0)
    for name in ('left', 'right', 'wrist'):
        images = rng.integers(0, 256, (4, 6, 6, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        write_video(folder / 'one' / f'{name}.mp4', iter(images), 10)
    cameras = [
        f'  {n}: {{video: "{{stem}}/{n}.mp4", role: {"wrist" if n == "wrist" else "anchor"}}}'
        for n in ('left', 'right', 'wrist')
    ]
    (folder / 'wristworld_videos.yaml').write_text('episodes: "one"\ncameras:\n' + '\n'.join(cameras) + '\n')
    return folder


def test_the_page_shows_the_rows_videos_side_by_side_and_is_the_same_every_time(episodes, model, tmp_path):
    settings, pages = EvaluationSettings(row_steps='1', knowledge='rgb', frames=3, page=1), []
    for name in ('one', 'two'):
        evaluate(model, episodes, None, settings, folder=tmp_path / name, progress=False)
        pages.append((tmp_path / name / 'page.html').read_bytes())
    assert pages[0] == pages[1]
    text = pages[0].decode()
    assert text.count('<video ') == 1 and text.count('data:video/mp4;base64,') == 1
    for caption in ('anchor left', 'anchor right', TRUTH, COPY, generated_name(RGB, 1), filled_name(RGB)):
        assert caption in text
    assert not list(tmp_path.glob('one/*.mp4')) and '000001' not in text


def test_videos_of_other_sizes_stand_side_by_side_at_one_height():
    wide, square = np.full((2, 30, 60, 3), 10, np.uint8), np.full((2, 128, 128, 3), 200, np.uint8)
    joined = side_by_side([wide, square])
    assert joined.shape == (2, 192, 384 + 4 + 192 + 4, 3)
    assert (
        (joined[:, :, :384] == 10).all()
        and (joined[:, :, 384:388] == 255).all()
        and (joined[:, :, 388:580] == 200).all()
    )


def test_every_episode_has_its_file_where_all_have_one_path(episodes, model, tmp_path):
    data = open_data_set(episodes)
    for name in ('lerobot', 'videos'):
        write = write_lerobot if name == 'lerobot' else write_videos
        write(tmp_path / name, [partial(data.episode, i) for i in range(2)])
        evaluate(
            model, tmp_path / name, StreamSettings(steps=1), EvaluationSettings('1', 'rgb', page=0), {}, tmp_path / 'out' / name,
            progress=False,
        )  # fmt: skip
        written = {path.name: json.loads(path.read_text()) for path in (tmp_path / 'out' / name / 'episodes').iterdir()}
        assert len(written) == 2 and all(f'{one["episode"]}.json' == file for file, one in written.items())


def test_names_that_are_alike_are_told_apart_by_their_places(episodes):
    one = open_data_set(episodes).episode(0)
    assert _labels([one, one]) == ['0_000000', '1_000000']
    assert _labels([replace(one, name='episode val/3')]) == ['val_3']


def test_a_limit_leaves_the_rest_closed(episodes, model, tmp_path):
    shutil.copytree(episodes, tmp_path / 'set')
    (tmp_path / 'set/000001/episode.json').write_text('{')
    evaluation = EvaluationSettings('1', 'rgb', limit=1, page=0)
    assert (
        evaluate(model, tmp_path / 'set', StreamSettings(steps=1), evaluation, progress=False)
        .head['data']
        .startswith('1 episodes')
    )
