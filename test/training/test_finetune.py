"""Fine-tuning: what is learnt from, chosen by and measured on stays apart; an adapted model directory comes out, whatever interrupts."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from wristworld_ros import cli
from wristworld_ros.apps.convert.convert import convert_release
from wristworld_ros.apps.convert.settings import ConvertSettings
from wristworld_ros.data.formats.lerobot.writer import WriteSettings, write_lerobot
from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.data.images import read_image, write_image
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.data.video import write_video
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.baselines import MEAN_WRIST
from wristworld_ros.evaluation.metrics import psnr
from wristworld_ros.input_files import convert, read_json
from wristworld_ros.models.config import GENERATOR, HAND, PRIOR, STAGE1, SWEEP, ModelConfig
from wristworld_ros.models.hand import HandConfig, HandNetwork
from wristworld_ros.models.sweep import SweepConfig, SweepNetwork
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.vggt.config import SIM_TINY
from wristworld_ros.pipeline import load_model, save_model, tiny_random_model
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.prior import NOWHERE, WristPrior
from wristworld_ros.runtime.files import file_sha256
from wristworld_ros.training.checkpoint import read_tensors
from wristworld_ros.training.finetune import adapt, geometry
from wristworld_ros.training.finetune import run as finetune_run
from wristworld_ros.training.finetune.adapt import ADAPT, CHOICE, CHOOSE, best_stop
from wristworld_ros.training.finetune.prior import fit_prior, with_prior
from wristworld_ros.training.finetune.recordings import split_recordings
from wristworld_ros.training.finetune.run import plan_finetune, run_finetune
from wristworld_ros.training.finetune.settings import FinetuneSettings
from wristworld_ros.types import ConditionMap

FEW = {'minutes': None, 'steps': 4, 'batch': 1, 'held_out': '1', 'robot': 'droid'}


MAPPING = """
annotations: annotation/*/*.json
cameras:
  exterior_1: {video: 'videos/{folder}/{stem}/0.mp4', role: anchor}
  exterior_2: {video: 'videos/{folder}/{stem}/1.mp4', role: anchor}
  wrist: {video: 'videos/{folder}/{stem}/2.mp4', role: wrist}
"""


@pytest.fixture(scope='module')
def write_set(write_clip):
    """A function that writes clips of given numbers of frames, as a folder of videos."""

    def write(folder, *lengths):
        for i, frames in enumerate(lengths):
            write_clip(folder, f'train/{i}', frames=frames, seed=5 * i)
        (folder / 'wristworld_videos.yaml').write_text(MAPPING)
        return folder

    return write


@pytest.fixture(scope='module')
def clips(write_set, tmp_path_factory):
    return write_set(tmp_path_factory.mktemp('clips'), 10, 10, 10, 10)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models') / 'tiny'
    save_model(tiny_random_model(), folder, torch.float32)
    return folder


@pytest.fixture
def settings(clips, model, tmp_path):
    return FinetuneSettings(data=str(clips), model=str(model), out=str(tmp_path / 'run'), **FEW)


def finetune(settings):
    return run_finetune(plan_finetune(settings), 'cpu')


def names(recordings):
    return [recording.episode.path.stem for recording in recordings]


@pytest.mark.slow
def test_an_adapted_model_comes_out_with_a_card_and_streams(settings, model, clips, capsys):
    options = [
        '--data',
        str(clips),
        '--model',
        str(model),
        '--out',
        settings.out,
        '--minutes',
        'none',
        '--steps',
        '150',
    ]
    options += ['--held-out', '1', '--robot', 'droid', '--learning-rate', '4e-3', '--batch', '1', '--wrist', 'wrist']
    assert cli.main(['finetune', *options]) == 0
    out, before = finetune_run.Path(settings.out), ModelConfig.read(model / 'config.json')
    table = read_json(out / 'evaluation/table.json', dict)['summary']
    was, now = (table[f'RGB, mount known: {name}']['psnr']['mean'] for name in ('before', 'after'))
    assert now > was + 3, (was, now)
    assert 'adapt to: episode train/0' in capsys.readouterr().out
    adapted = load_model(str(out / 'model'))
    assert (
        adapted.config.name == 'run'
        and replace(adapted.config, name=before.name, licence='Apache-2.0', prior=(), prior_light=before.prior_light)
        == before
    )
    assert 'licence of the recordings' in adapted.config.licence
    assert adapted.prior is not None
    card = (out / 'model/README.md').read_text()
    for file in (STAGE1, GENERATOR):
        assert file_sha256(out / 'model' / file) in card
    assert f'| `{STAGE1}` | `{file_sha256(out / "model" / STAGE1)}` | as before |' in card
    assert f'| `{GENERATOR}` | `{file_sha256(out / "model" / GENERATOR)}` | adapted |' in card
    assert 'Licence: the model that it started from has Apache-2.0' in card and 'episode train/3 (10 frames)' in card
    assert read_image(out / 'model' / MEAN_WRIST).shape == (32, 32, 3)
    assert read_image(out / 'evaluation/sheet.png').shape[0] == 4 * 96


@pytest.mark.slow
def test_only_the_generator_changes_and_what_anchors_look_like_does_not(settings, model):
    finetune(replace(settings, learning_rate=3e-3, steps=20))
    choice = read_json(finetune_run.Path(settings.out) / CHOICE, dict)
    assert choice['best'] > 0
    before, after = load_model(str(model)), load_model(str(finetune_run.Path(settings.out) / 'model'))
    for one, other in (
        (before.stage1, after.stage1),
        (before.generator.anchor_encoder, after.generator.anchor_encoder),
    ):
        theirs = other.state_dict()
        assert all(torch.allclose(p, theirs[n], atol=1e-3) for n, p in one.state_dict().items())
    changed = [
        name for name, p in before.generator.named_parameters()
        if (p - after.generator.state_dict()[name]).abs().max() > 1e-3
    ]  # fmt: skip
    assert any(name.startswith('transformer.') for name in changed)
    assert any(name.startswith('decoder.') for name in changed)


@pytest.mark.slow
@pytest.mark.parametrize('stopped_in', [CHOOSE, ADAPT])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(settings, tmp_path, monkeypatch, stopped_in):
    settings = replace(settings, learning_rate=3e-3, steps=8)
    whole = replace(settings, out=str(tmp_path / 'whole'))
    finetune(whole)
    from wristworld_ros.training.stage2 import train as stage2

    calls, inner = [], stage2.ClipTrainer.__call__

    def until_stopped(self, gen, batch, step):
        calls.append(step.number)
        if self.run.config.minutes is None and len(calls) == stop:
            raise KeyboardInterrupt
        return inner(self, gen, batch, step)

    stop = 5 if stopped_in == CHOOSE else 8 + 2
    with monkeypatch.context() as patch:
        patch.setattr(stage2.ClipTrainer, '__call__', until_stopped)
        with pytest.raises(KeyboardInterrupt):
            finetune(settings)
    assert not (finetune_run.Path(settings.out) / 'model').exists()
    table = finetune(settings)
    one, other = (read_tensors(finetune_run.Path(s.out) / 'model' / GENERATOR) for s in (whole, settings))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    again = finetune(settings)  # finished: nothing is trained, the same comes out
    assert again.rows == table.rows


def test_where_nothing_helps_the_model_stays(settings, model, monkeypatch):
    monkeypatch.setattr(adapt, 'one_step_psnr', lambda gen, trainer, batch: np.array([10.0]))
    finetune(settings)
    one, other = (read_tensors(folder / GENERATOR) for folder in (model, finetune_run.Path(settings.out) / 'model'))
    assert all(torch.equal(one[name].half(), other[name]) for name in one)
    card = (finetune_run.Path(settings.out) / 'model/README.md').read_text()
    assert 'so the generator is as it was' in card
    assert load_model(str(finetune_run.Path(settings.out) / 'model')).prior is None


def test_the_best_stop_is_where_neighbours_agree():
    checks = [(10, 11.0), (20, 12.0), (30, 12.4), (40, 12.2), (50, 9.0), (60, 12.5), (70, 9.0)]
    curve = best_stop(10.0, 12.0, checks)
    assert curve.best == 30 and curve.best_psnr == 12.4
    assert best_stop(13.0, 12.0, checks).best is None and best_stop(13.0, 12.0, checks).best_psnr == 13.0
    assert best_stop(10.0, 12.0, [(0, 12.0), (10, 11.0), (20, 10.0)]).best == 0


def prepared(path, rng, mean, wrist, trust, light=0):
    """A file of condition maps of noise about a mean image, of which a share of what differs from it is right."""
    np.savez(
        path, wrist=wrist, condition=wrist[None] if trust else rng.integers(0, 256, (1, *wrist.shape), dtype=np.uint8),
        depth=np.full((1, *wrist.shape[:3]), 0.3, np.float16), trust=np.full((1, *wrist.shape[:3]), trust, np.uint8),
        anchors=np.full((1, len(wrist), 8, 8, 3), light, np.uint8), objects=np.zeros(wrist.shape[:3], np.uint8),
    )  # fmt: skip
    return path


def test_what_is_seen_counts_beside_the_mean_image_as_much_as_it_is_right(tmp_path):
    """Where trust is whole the maps are the truth, where there is none they are noise."""
    rng = np.random.default_rng(0)
    mean = rng.integers(64, 192, (16, 16, 3))
    files = []
    for i, trust in enumerate((0, 255, 0, 255)):
        wrist = np.clip(mean + rng.integers(-60, 60, (6, 16, 16, 3)), 0, 255).astype(np.uint8)
        files.append(prepared(tmp_path / f'{i}.npz', rng, mean, wrist, trust))
    prior = fit_prior(files)
    assert prior.weights[0] < 0.1 and prior.weights[-1] > 0.95
    (noise, right, *_) = with_prior(files, prior, tmp_path / 'maps')
    with np.load(noise) as over, np.load(files[0]) as plain:
        floor = psnr(np.repeat(prior.image.numpy()[None], 6, 0), plain['wrist']).mean()
        assert abs(psnr(over['condition'][0], plain['wrist']).mean() - floor) < 0.5
    with np.load(right) as over:
        assert psnr(over['condition'][0], over['wrist']).min() > 25 and (over['trust'] == 255).all()


def test_holes_show_the_mean_image_far_away_and_untrusted():
    prior = WristPrior(torch.full((2, 2, 3), 100, dtype=torch.uint8), (0.0, 0.5, 0.5), 50.0)
    condition = ConditionMap(
        torch.full((2, 2, 3), 200, dtype=torch.uint8), torch.tensor([[0.0, 0.2], [0.2, 0.2]]),
        confidence=torch.tensor([[0.0, 0.0], [0.25, 1.0]]),
    )  # fmt: skip
    over = prior(condition, np.full((2, 4, 4, 3), 50, np.uint8))
    assert over.image[..., 0].tolist() == [[100, 100], [125, 150]]
    assert torch.allclose(over.depth, torch.tensor([[NOWHERE, 0.2], [0.2, 0.2]]))
    assert over.trust.tolist() == [[0.0, 0.0], [0.25, 1.0]]


@pytest.mark.parametrize(('light', 'shown'), [(25, 50), (50, 100), (200, 255), (0, 33)])
def test_the_mean_image_is_in_the_light_of_the_anchors_within_bounds(light, shown):
    prior = WristPrior(torch.full((2, 2, 3), 100, dtype=torch.uint8), (0.0, 0.0), 50.0)
    nothing = ConditionMap(torch.zeros(2, 2, 3, dtype=torch.uint8), torch.zeros(2, 2))
    assert (prior(nothing, np.full((2, 4, 4, 3), light, np.uint8)).image == shown).all()


def test_scenes_that_are_lit_alike_by_twice_the_light_have_one_mean_image(tmp_path):
    rng = np.random.default_rng(0)
    scene = rng.integers(20, 60, (16, 16, 3))
    files = []
    for i, light in enumerate((1, 2, 1, 2)):
        wrist = np.repeat(light * scene[None], 6, 0).astype(np.uint8)
        files.append(prepared(tmp_path / f'{i}.npz', rng, scene, wrist, 0, light=40 * light))
    prior = fit_prior(files)
    assert prior.light == pytest.approx(60)
    assert np.abs(prior.image.numpy() - 1.5 * scene).max() <= 1
    for path in with_prior(files, prior, tmp_path / 'maps'):
        with np.load(path) as over:
            assert psnr(over['condition'][0], over['wrist']).min() > 40


def test_a_damaged_mean_image_is_named(tmp_path):
    tiny = tiny_random_model()
    tiny.config = replace(tiny.config, prior=(0.1, 0.2))
    tiny.prior = WristPrior(torch.zeros(32, 32, 3, dtype=torch.uint8), (0.1, 0.2), 128.0)
    save_model(tiny, tmp_path / 'm')
    assert torch.equal(load_model(str(tmp_path / 'm')).prior.image, tiny.prior.image)
    write_image(tmp_path / 'm' / PRIOR, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r'wrist_prior\.png is 8x8, and the wrist image 32x32'):
        load_model(str(tmp_path / 'm'))
    (tmp_path / 'm' / PRIOR).unlink()
    with pytest.raises(UserError, match=r'wrist_prior\.png is missing'):
        load_model(str(tmp_path / 'm'))


def test_the_last_episodes_are_held_out_and_some_of_the_others_choose(settings):
    split = split_recordings(settings)
    assert names(split.held_out) == ['3'] and names(split.adapt) == ['0', '1', '2']
    assert names(split.validation) == ['1'] and names(split.training) == ['0', '2']
    assert names(split_recordings(replace(settings, held_out='0.5')).held_out) == ['2', '3']
    assert names(split_recordings(replace(settings, limit=2)).adapt) == ['0', '1']


def test_damaged_episodes_are_left_out_and_named_and_the_rest_goes_on(settings, clips, tmp_path):
    data = open_data_set(clips)
    write_lerobot(tmp_path / 'set', [partial(data.episode, i) for i in range(len(data))], WriteSettings('v2.1'))
    videos = tmp_path / 'set/videos/chunk-000/observation.images.wrist'
    write_video(videos / 'episode_000003.mp4', [np.zeros((36, 64, 3), np.uint8)] * 7, 5)  # its head is as good as any
    (videos / 'episode_000001.mp4').unlink()
    damaged = replace(settings, data=str(tmp_path / 'set'), held_out=str(clips))
    split = split_recordings(damaged)
    assert [recording.name for recording in split.adapt] == ['episode 0', 'episode 2'] and len(split.held_out) == 4
    assert [sentence.split(' (')[0] for sentence in split.damaged] == ['episode 1', 'episode 3']
    assert split.record()['damaged'] == list(split.damaged)
    with pytest.raises(UserError, match=r'leaves no episode .* to hold out .*damaged: .*episode 3 '):
        split_recordings(replace(damaged, held_out='1'))


def test_another_set_can_be_held_out(settings, write_set, tmp_path):
    other = write_set(tmp_path / 'other', 9, 3)
    split = split_recordings(replace(settings, held_out=str(other)))
    assert names(split.adapt) == ['0', '1', '2', '3'] and names(split.held_out) == ['0']
    assert split.held_out[0].episode.path.is_relative_to(other) and split.too_short == ('episode train/1',)


def test_cameras_can_have_other_roles_than_the_recordings_say(settings):
    (recording, *_) = split_recordings(replace(settings, wrist='exterior_1', anchors='wrist,exterior_2')).adapt
    assert recording.episode.names('wrist') == ('exterior_1',)
    assert recording.episode.anchors() == ('wrist', 'exterior_2')
    plain = split_recordings(settings).adapt[0].truth((32, 32))
    np.testing.assert_array_equal(recording.truth((32, 32)).images[1], plain.images[1])


def test_long_episodes_are_thinned(settings):
    recording = split_recordings(replace(settings, frames=8)).adapt[0]
    assert recording.indices.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    truth = recording.truth((32, 32))
    assert len(truth) == 8 and (truth.stamps_ns == recording.episode.stamps_ns[recording.indices]).all()


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'data': ''}, 'needs --data'),
        ({'data': '/nowhere'}, 'There is no /nowhere'),
        ({'wrist': 'left'}, '--wrist names left, .* has no such camera; it has exterior_1, exterior_2, wrist'),
        ({'anchors': 'wrist'}, '--anchors names wrist, the wrist camera'),
        ({'anchors': 'exterior_1,exterior_1'}, 'twice'),
        ({'anchors': 'exterior_3'}, '--anchors names exterior_3'),
        ({'held_out': '3'}, 'give 1 to 2 episodes'),
        ({'held_out': '0'}, '--held-out is 0'),
        ({'held_out': 'nowhere'}, "--held-out is 'nowhere', and there is no such data set"),
        ({'held_out': 'nan'}, '--held-out is nan, .* give 1 to 2 episodes'),
        ({'held_out': 'inf'}, '--held-out is inf, .* give 1 to 2 episodes'),
        ({'minutes': 0.0}, 'minutes is 0.0'),
        ({'minutes': 30.0, 'steps': 2}, 'steps is 2, and the training ends after 30 minutes; add --minutes none'),
        ({'model': '/nowhere'}, "There is no model '/nowhere'"),
    ],
)
def test_bad_input_is_a_sentence_before_any_weights_are_read(settings, model, tmp_path, change, words):
    folder = tmp_path / 'no_weights'
    folder.mkdir()
    (folder / 'config.json').write_bytes((model / 'config.json').read_bytes())
    with pytest.raises(UserError, match=words):
        plan_finetune(replace(replace(settings, model=str(folder)), **change))
    assert not finetune_run.Path(settings.out).exists()


def test_a_few_step_student_is_refused(settings, tmp_path):
    tiny = tiny_random_model()
    config = replace(
        tiny.config, generator=tiny.config.generator | {'sampler': {'kind': 'renoise', 'timesteps': [1000]}}
    )
    folder = tmp_path / 'student'
    folder.mkdir()
    config.write(folder / 'config.json')
    with pytest.raises(UserError, match='is a few-step student'):
        plan_finetune(replace(settings, model=str(folder)))


def test_a_folder_of_another_run_is_refused(settings):
    finetune(replace(settings, learning_rate=0.0, steps=2))
    with pytest.raises(UserError, match=r'holds a run with steps 2, and 4 is given'):
        plan_finetune(replace(settings, learning_rate=0.0))
    plan_finetune(replace(settings, learning_rate=0.0, steps=2, threads=1))


# Recordings that know more, and models of the published form


SIDE = {'left': (1.5, 0.1, 0.5), 'right': (1.5, -0.3, 0.6)}
CLOSE_UP = {'sweep': {'heights': [-0.5, -0.1, 0.0, 0.05, 0.1], 'features': 4, 'matched': 4, 'widths': [8, 8], 'anchor_width': 64},
            'hand': {'size': 32, 'widths': [8, 8, 8], 'dense': 16}}  # fmt: skip


def measured_camera(name, role, hw, position, rng, frames):
    """A camera of coloured noise that looks at the robot, with the depth of a level floor."""
    K = np.array([[hw[1], 0, (hw[1] - 1) / 2], [0, hw[1], (hw[0] - 1) / 2], [0, 0, 1.0]])
    T = np.eye(4)
    T[:3, :3] = [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]
    T[:3, 3] = -T[:3, :3] @ position
    down = (np.arange(hw[0]) - K[1, 2]) / K[1, 1]
    floor = np.where(down > 0.05, position[2] / np.maximum(down, 0.05), 2.0)
    depth = np.broadcast_to(floor[None, :, None], (frames, *hw)).astype(np.float32)
    rgb = rng.integers(0, 256, (frames, *hw, 3), dtype=np.uint8)
    return CameraTrack(name, role, rgb, np.stack([K] * frames), np.stack([T] * frames), depth)


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """Episodes of which everything is known."""
    folder, rng, frames = tmp_path_factory.mktemp('measured'), np.random.default_rng(0), 8
    for i in range(3):
        cameras = [measured_camera(n, 'anchor', (48, 64), np.array(p), rng, frames) for n, p in SIDE.items()]
        wrist = measured_camera('wrist', 'wrist', (32, 32), np.array([0.6, 0.0, 0.3]), rng, frames)
        write_episode(
            folder / f'{i:06d}', task='none', seed=i, fps=10, success=True, stamps_ns=np.arange(frames) * 10**8,
            cameras=[*cameras, wrist], meta={'T_hand_wrist': HandConfig().mount},
        )  # fmt: skip
    return folder


@pytest.fixture(scope='module')
def close_up_model(tmp_path_factory):
    """A model of the small form with every part that reconstructs, as small as can be."""
    tiny = tiny_random_model()
    stage1 = SIM_TINY | {'img_size': 64, 'embed_dim': 16, 'depth': 4, 'num_heads': 2, 'dpt_layers': [0, 1, 2, 3],
                         'dpt_features': 8, 'dpt_out_channels': [8, 8, 8, 8]}  # fmt: skip
    stage1 = {key: value for key, value in stage1.items() if key not in ('wrist_dropout', 'float32_heads')}
    config = replace(tiny.config, stage1=stage1, anchor_width=64, **CLOSE_UP)
    torch.manual_seed(0)
    parts = {
        'sweep': SweepNetwork(convert(config.sweep, SweepConfig, 'sweep')),
        'hand': HandNetwork(convert(config.hand, HandConfig, 'hand')),
    }
    whole = WristModel(config, ReconstructionModel.from_config(stage1), tiny.generator, 'cpu', **parts)
    folder = tmp_path_factory.mktemp('models') / 'close_up'
    save_model(whole, folder, torch.float32)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_what_reconstructs_learns_from_measured_recordings_and_is_kept_only_if_better(
    settings, measured, close_up_model, monkeypatch
):
    figures = iter([10.0, 11.0, 11.0, 10.5, 11.0, 11.5])  # stage 1 better, the hand network not, the sweep again
    monkeypatch.setattr(geometry, 'map_psnr', lambda model, recordings: next(figures))
    settings = replace(settings, data=str(measured), model=str(close_up_model), robot=None, learning_rate=1e-2)
    table = finetune(settings)
    assert {'RGB, mount known: after', 'CALIBRATED: after', 'RGBD: before'} <= set(table.rows)
    folder = finetune_run.Path(settings.out) / 'model'
    changed = set()
    for file in (STAGE1, SWEEP, HAND, GENERATOR):
        one, other = read_tensors(close_up_model / file), read_tensors(folder / file)
        if any((one[name].half() != other[name].half()).any() for name in one):
            changed.add(file)
    assert {STAGE1, SWEEP} <= changed and HAND not in changed
    card = (folder / 'README.md').read_text()
    assert 'The hand network: tried, and left as it was' in card and 'Stage 1: adapted' in card


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_a_model_of_the_published_form_gets_adapters_and_a_wrist_head(settings, release, tmp_path):
    sizes = {'sizes': str(release / 'sizes.json'), 'wrist_width': 48, 'wrist_height': 32, 'anchor_width': 56}
    published = convert_release([release], ConvertSettings(out=str(tmp_path / 'published'), **sizes), progress=False)
    settings = replace(settings, model=str(published), learning_rate=1e-2, steps=4)
    finetune(settings)
    folder = finetune_run.Path(settings.out)
    assert (folder / 'choice.json').exists() and (folder / 'stage1/verdict.json').exists()
    choice = read_json(folder / CHOICE, dict)
    one, other = (read_tensors(f / GENERATOR) for f in (published, folder / 'model'))
    changed = [name for name in one if not torch.equal(one[name], other[name])]
    assert bool(changed) == bool(choice['best'])
    load_model(str(folder / 'model'))
