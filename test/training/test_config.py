"""Configurations are typed, checked as a whole, and the same in files, docs and code."""

from pathlib import Path

import pytest
import yaml

from wristworld_ros.errors import UserError
from wristworld_ros.training.causal.train import CausalTraining
from wristworld_ros.training.config_causal import CausalConfig
from wristworld_ros.training.config_files import files
from wristworld_ros.training.config_reading import as_content, default_config, parse_config, read_config
from wristworld_ros.training.configured import causal_training, decoder_training, geometry_training, images_training
from wristworld_ros.training.presets import DATA_SETS, presets
from wristworld_ros.training.recipes import RECIPES
from wristworld_ros.training.schedules import part_schedules, trainer_config

ROOT = Path(__file__).parents[2]
SPC = ROOT / 'config/train/droid/reconstruction.yaml'


def test_the_files_are_in_step_with_the_presets():
    for path, text in files(ROOT).items():
        assert path.read_text() == text, f'{path}: python -m wristworld_ros.training.config_files'


def test_every_data_set_has_every_stage():
    assert set(presets()) == {(name, stage) for name in DATA_SETS for stage in RECIPES}


@pytest.mark.parametrize(('name', 'stage'), sorted(presets()))
def test_a_file_is_read_as_the_preset_that_it_was_written_from(name, stage):
    assert read_config(ROOT / f'config/train/{name}/{stage}.yaml', stage) == presets()[name, stage]


@pytest.mark.parametrize(('stage', 'record'), [(s, r) for s, known in RECIPES.items() for r in known.values()])
def test_what_is_left_out_has_its_default(stage, record):
    content = as_content(default_config(record))
    sparse = {'stage': stage, 'recipe': content['recipe']}
    if stage == 'reconstruction':  # whose defaults name no head that fits both recipes
        sparse['model'] = {
            'train': ['wrist', 'camera'],
            'network': 'sim_tiny' if content['recipe'] == 'from_scratch' else 'vggt_1b',
        }
    assert parse_config(sparse, stage, 'it').schedule == default_config(record).schedule


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'stage': 'generation'}, "is of stage 'generation', and reconstruction is trained"),
        ({'recipe': 'secret'}, "recipe is 'secret'; give published, from_scratch"),
        ({'looses': {}}, 'unknown section looses'),
        ({'schedule': {'step': 3}}, 'schedule has the unknown key step'),
        ({'schedule': {'steps': 0}}, r'schedule.steps is 0; give 1 or more'),
        ({'schedule': {'steps': '3'}}, r"schedule.steps is '3'; give a whole number"),
        ({'schedule': 3}, 'schedule is 3, not keys and values'),
        ({'model': {'train': ['nose']}}, "'nose' is not allowed"),
        ({'losses': {'matches': 'loftr'}}, 'losses.matcher_weights is none'),
        ({'model': {'train': ['wrist']}}, 'losses.cameras is 5, and model.train has no camera head'),
    ],
)
def test_what_is_not_allowed_is_one_sentence_that_names_file_and_key(tmp_path, change, words):
    content = yaml.safe_load(SPC.read_text())
    for key, value in change.items():
        content[key] = content[key] | value if isinstance(value, dict) and key in content else value
    path = tmp_path / 'mine.yaml'
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=words) as error:
        read_config(path, 'reconstruction')
    assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'distillation': {'timesteps': [1000, 500, 750]}}, r'distillation\.timesteps is .*first of them 1000'),
        ({'distillation': {'timesteps': [500]}}, r'distillation\.timesteps is .*first of them 1000'),
        ({'distillation': {'timesteps': ['all']}}, "'all' is not allowed; give falling numbers"),
        ({'forcing': {'steps': 3, 'minutes': 2}}, r'forcing has both steps \(3\) and minutes \(2\)'),
        ({'data': {'frames': 80}}, r'data\.frames is 80.*as 21 or 81'),
        ({'data': {'frames': 9}}, r'data\.frames is 9.*as 21 or 81'),
        ({'model': {'adapt': 'half'}}, r"model\.adapt is 'half'"),
        ({'losses': {}}, 'unknown section losses'),
    ],
)
def test_what_a_student_cannot_be_is_one_sentence(change, words):
    with pytest.raises(UserError, match=words) as error:
        parse_config({'stage': 'causal', 'recipe': 'published'} | change, 'causal', 'it')
    assert '\n' not in str(error.value)


def test_the_parts_of_a_student_have_the_schedule_but_for_what_they_say_themselves():
    content = {'stage': 'causal', 'recipe': 'published', 'schedule': {'minutes': 30, 'learning_rate': 1e-4, 'batch': 3}}
    content |= {'forcing': {'steps': 7}, 'distillation': {'learning_rate': 1e-6, 'timesteps': [1000, 500]}}
    config = parse_config(content, 'causal', 'it')
    assert isinstance(config, CausalConfig) and config.distillation.levels == (1000.0, 500.0)
    forcing, distillation = part_schedules(config)
    assert (forcing.steps, forcing.minutes, forcing.learning_rate, forcing.batch) == (7, None, 1e-4, 3)
    assert (distillation.minutes, distillation.learning_rate, distillation.batch) == (30, 1e-6, 3)
    run = causal_training(config, 'a')
    assert run.config.steps == 7 and run.config.minutes is None and run.distillation.learning_rate == 1e-6
    assert (run.timesteps, run.adapters, run.guidance) == ((1000.0, 500.0), config.model, None)


@pytest.mark.parametrize('text', ['', '- 1', 'a: [', '\x00'])
def test_files_that_are_no_configuration_are_one_sentence(tmp_path, text):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    with pytest.raises(UserError, match=r'mine\.yaml') as error:
        read_config(path, 'reconstruction')
    assert '\n' not in str(error.value)


def test_the_published_numbers_reach_the_trainer():
    config = trainer_config(presets()['droid', 'reconstruction'])
    assert config.rates == {'wrist_head': 2e-5, 'camera_head': 5e-6} and config.optimizer == 'adamw'
    assert (config.weight_decay, config.clip, config.accumulate, config.warm_up_share) == (0.05, 1.0, 3, 0.05)
    assert config.factor(0, 0.025) == pytest.approx(0.5) and config.factor(0, 0.05) == 1.0
    assert config.factor(0, 0.525) == pytest.approx(0.5) and config.factor(0, 1.0) == pytest.approx(0)
    franka = presets()['franka', 'reconstruction']
    assert franka.model.train == ['wrist'] and (franka.losses.cameras, franka.losses.match_confidence) == (0.0, 0.1)
    lora = presets()['droid', 'generation'].model
    assert (lora.adapt, lora.rank, lora.alpha, lora.targets) == ('lora', 4, 4.0, ['q', 'k', 'v', 'o', 'ffn.0', 'ffn.2'])


def test_the_small_models_recipes_are_those_of_the_options():
    stage1, stage2 = (
        geometry_training(presets()['sim_tiny', 'reconstruction']),
        images_training(presets()['sim_tiny', 'generation']),
    )
    from wristworld_ros.training.stage1.train import Stage1Training
    from wristworld_ros.training.stage2.train import Stage2Training

    assert stage1.model == Stage1Training().model and stage1.weights == Stage1Training().weights
    assert stage1.sampling == Stage1Training().sampling
    assert (stage2.model, stage2.sampling, stage2.objects) == (Stage2Training().model, Stage2Training().sampling, 5.0)
    base = images_training(presets()['sim_base', 'generation'])
    assert base.model['dim'] > stage2.model['dim'] and base.gradient == stage2.gradient
    assert decoder_training(presets()['droid', 'decoder']).width == 64
    student, default = causal_training(presets()['sim_tiny', 'causal'], 'sim_tiny'), CausalTraining()
    own = ('sampling', 'timesteps', 'substeps', 'clip_chunks', 'maps', 'last_level', 'history_noise', 'adapters')
    assert all(getattr(student, name) == getattr(default, name) for name in own)
    assert (student.config.betas, student.config.bf16, student.config.average) == (default.config.betas, False, 0.99)
