"""Fine-tuning: what is learnt from, chosen by and measured on stays apart; an adapted model directory comes out, whatever interrupts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wristworld_ros import cli
from wristworld_ros.data.images import read_image
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.baselines import MEAN_WRIST
from wristworld_ros.input_files import read_json
from wristworld_ros.models.config import GENERATOR, STAGE1, ModelConfig
from wristworld_ros.pipeline import load_model, save_model, tiny_random_model
from wristworld_ros.runtime.files import file_sha256
from wristworld_ros.training.checkpoint import read_tensors
from wristworld_ros.training.finetune import run as finetune_run
from wristworld_ros.training.finetune.adapt import ADAPT, CHOICE, CHOOSE, best_stop
from wristworld_ros.training.finetune.recordings import split_recordings
from wristworld_ros.training.finetune.run import plan_finetune, run_finetune
from wristworld_ros.training.finetune.settings import FinetuneSettings

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
    assert adapted.config.name == 'run' and replace(adapted.config, name=before.name) == before
    card = (out / 'model/README.md').read_text()
    for file in (STAGE1, GENERATOR):
        assert file_sha256(out / 'model' / file) in card
    assert 'Licence: the model that it started from has Apache-2.0' in card and 'episode train/3 (10 frames)' in card
    assert read_image(out / 'model' / MEAN_WRIST).shape == (32, 32, 3)
    assert read_image(out / 'evaluation/sheet.png').shape[0] == 4 * 96


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


def test_where_nothing_helps_the_generator_stays(settings, model):
    finetune(replace(settings, learning_rate=0.0))
    one, other = (read_tensors(folder / GENERATOR) for folder in (model, finetune_run.Path(settings.out) / 'model'))
    assert all(torch.allclose(one[name], other[name], atol=1e-3) for name in one)
    card = (finetune_run.Path(settings.out) / 'model/README.md').read_text()
    assert 'so the generator is as it was' in card


def test_the_best_stop_is_where_neighbours_agree():
    checks = [(10, 11.0), (20, 12.0), (30, 12.4), (40, 12.2), (50, 9.0), (60, 12.5), (70, 9.0)]
    curve = best_stop(10.0, 12.0, checks)
    assert curve.best == 30 and curve.best_psnr == 12.4
    assert best_stop(13.0, 12.0, checks).best == 0 and best_stop(13.0, 12.0, checks).best_psnr == 13.0


def test_the_last_episodes_are_held_out_and_some_of_the_others_choose(settings):
    split = split_recordings(settings)
    assert names(split.held_out) == ['3'] and names(split.adapt) == ['0', '1', '2']
    assert names(split.validation) == ['1'] and names(split.training) == ['0', '2']
    assert names(split_recordings(replace(settings, held_out='0.5')).held_out) == ['2', '3']
    assert names(split_recordings(replace(settings, limit=2)).adapt) == ['0', '1']


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
        ({'minutes': 0.0}, 'minutes is 0.0'),
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
