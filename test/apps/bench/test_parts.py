import argparse
from dataclasses import replace

import pytest
import torch

from wristworld_ros.apps.bench import cases, command, published_pipeline, report
from wristworld_ros.apps.bench.cases import compare_targets, run_case
from wristworld_ros.apps.bench.inputs import Shapes, anchor_set, anchor_size
from wristworld_ros.apps.bench.parts import children_that_run, parts_of
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.table import aligned, markdown
from wristworld_ros.pipeline import tiny_random_model
from wristworld_ros.settings import StreamSettings

SHAPES = Shapes((48, 64), (32, 32), views=(1, 2), steps=2, history=1)


@pytest.fixture(scope='module')
def case():
    return run_case(tiny_random_model(), StreamSettings(), SHAPES, frames=3, seconds=0.02, progress=False)


def test_every_part_has_its_time_its_roofline_and_their_ratio(case):
    rows = {row['part']: row for row in case['parts']}
    assert list(rows)[:3] == ['stage 1, 1 view', 'stage 1, 2 views', 'condition map']
    assert list(rows)[3:] == [
        'VAE encode, a chunk',
        'VAE decode, a chunk',
        'anchor tokens, a chunk',
        'transformer, a step',
    ]
    for row in rows.values():
        assert row['ms'] > 0 and row['roofline_ms'] > 0 and row['bytes'] > 0
        assert row['ratio'] == pytest.approx(row['ms'] / row['roofline_ms'])
    ratio = rows['stage 1, 2 views']['flops'] / rows['stage 1, 1 view']['flops']
    assert 1.5 < ratio < 2.5


def test_the_stream_and_the_published_pipeline_are_measured_in_the_same_run(case):
    assert case['stream'][0]['frames'] == 3 and case['stream'][0]['steps'] == 2
    published = case['published']
    assert (published['frames'], published['steps']) == (16, 50)  # this model has no more rows of time embedding
    total = sum(row['ms'] for row in published['phases'])
    assert published['frames_per_second'] == pytest.approx(16e3 / total)
    rate = case['stream'][0]['overlapped_per_second']
    assert rate > 0 and published['speed_up'] == pytest.approx(rate / published['frames_per_second'])


def test_what_would_take_too_long_is_measured_once_and_says_so():
    model = tiny_random_model()
    for seconds, words in ((0.0, '1 of 50 steps, times 50'), (1e6, 'all 50 steps')):
        rows = {row['phase']: row for row in published_pipeline.measure(model, SHAPES, seconds)}
        row = rows['transformer, two passes per step']
        assert row['measured'] == words
        if not seconds:
            assert row['ms'] == pytest.approx(50 * row['unit_ms'])


def test_a_wrist_size_that_the_model_cannot_generate_is_refused():
    shapes = replace(SHAPES, wrist_hw=(40, 32))
    with pytest.raises(UserError, match=r'40x32 does not divide into cells of 16 pixels; give multiples of 16\.'):
        run_case(tiny_random_model(), StreamSettings(), shapes, frames=1, seconds=0.0, progress=False)


def test_a_model_without_anchor_tokens_has_no_such_part():
    model = tiny_random_model()
    model.config = replace(model.config, use_anchor_tokens=False)
    names = [part.name for part in parts_of(model, SHAPES)] + [
        phase.name for phase in published_pipeline.phases(model, SHAPES)
    ]
    assert 'transformer, a step' in names and not any('tokens' in name for name in names)


def test_heads_that_are_not_asked_for_do_not_count():
    stage1 = tiny_random_model().stage1
    images = torch.zeros(1, 1, 3, 28, 28)
    ran = children_that_run(stage1, lambda: stage1(images, heads={'camera'}))
    assert ran == (stage1.aggregator, stage1.camera_head)


def test_all_of_a_models_weights_are_in_one_part_or_another():
    model = tiny_random_model()
    counted = {id(p) for part in parts_of(model, SHAPES) for module in part.modules for p in module.parameters()}
    every = {id(p): name for net in (model.stage1, model.generator) for name, p in net.named_parameters()}
    table_rows = {'text_context', 'temporal_embed.weight', 'view_embed.weight'}
    assert {name for key, name in every.items() if key not in counted} == table_rows


def test_the_report_shows_every_part_and_what_was_not_measured(case):
    rows = compare_targets([case])
    results = {'machine': {}, 'model': 'm', 'parts': [case], 'targets': rows}
    for table in (aligned, markdown):
        text = '\n'.join(report.sections(results, table))
        assert 'transformer, a step' in text and 'point by point' in text and 'times as fast' in text
        assert text.count(cases.NOT_MEASURED) == len(cases.TARGETS)


def test_targets_hold_only_for_the_full_size_on_a_gpu(case):
    full = case | {
        'device': 'cuda', 'parameters': 3_700_000_000, 'anchor_hw': [294, 518], 'wrist_hw': [256, 256], 'steps': 4,
        'parts': [{'part': 'stage 1, 2 views', 'ms': 39.0}, {'part': 'condition map', 'ms': 2.0}],
        'stream': [{'frames_per_second': 30.0, 'overlapped_per_second': 60.0, 'latency_p95_ms': 300.0}], 'peak_mib': 10_000,
    }  # fmt: skip
    met = {row['name']: row['met'] for row in compare_targets([full])}
    assert met['stage 1, two 518x294 views, wrist pose and points'] is True
    assert met['condition map of two 518x294 views'] is False
    assert met['wrist frames, 4 steps, 256x256'] is True and met['wrist frames, 4 steps, 480x832'] is None
    assert met['peak memory'] is True
    assert all(row['met'] is None for row in compare_targets([full | {'device': 'cpu'}]))


def test_sizes_are_read_as_height_x_width():
    assert command.read_size('480x832') == (480, 832)
    with pytest.raises(argparse.ArgumentTypeError, match='height x width'):
        command.read_size('480')


def test_anchors_have_the_published_size_where_the_model_runs_at_the_published_width():
    model = tiny_random_model()
    assert anchor_size(model) == (240, 320)
    assert anchor_set(3, (48, 64)).images.shape == (3, 48, 64, 3)


def test_a_random_model_cannot_go_over_topics(capsys):
    from wristworld_ros import cli

    assert cli.main(['bench', '--model', 'random:wristworld_1_3b', '--only', 'topics']) == cli.USER_ERROR
    assert 'cannot be measured over topics' in capsys.readouterr().err
