import json

import pytest

from wristworld_ros.apps.bench import offline, report, streams
from wristworld_ros.apps.bench.reference_renderer import compare_renderers
from wristworld_ros.apps.bench.streams import run_stream, run_topics
from wristworld_ros.evaluation.table import markdown
from wristworld_ros.pipeline import save_model, tiny_random_model
from wristworld_ros.runtime import machine
from wristworld_ros.settings import StreamSettings


def test_the_condition_map_equals_that_of_the_reference_renderer_and_is_faster():
    figures = compare_renderers(repeats=2)
    assert figures['points'] == 304_584
    assert figures['pixels_that_differ'] == 0
    assert figures['ratio'] > 5  # 50 on a machine that does nothing else


def test_the_stream_is_timed_by_chunk_and_parts():
    figures = run_stream(tiny_random_model(), StreamSettings(history=1), views=2, chunk=2, frames=5)
    assert figures['frames'] == 4
    assert figures['latency_p95_ms'] >= figures['latency_p50_ms'] > 0
    per_frame = sum(figures[f'{part}_ms'] for part in ('stage1', 'condition', 'generation'))
    assert per_frame == pytest.approx(1e3 / figures['frames_per_second'], rel=0.5)


def test_the_nodes_are_measured_end_to_end_over_topics(tmp_path):
    save_model(tiny_random_model(), tmp_path)
    figures = run_topics(StreamSettings(model=str(tmp_path), threads=1), rate=10, seconds=3, progress=False)
    assert figures['frames_per_second'] > 2
    assert 0 < figures['age_p50_ms'] <= figures['age_p95_ms'] <= figures['age_max_ms']
    assert figures['memory_end_mib'] > 50


def test_text_markdown_and_json_say_the_same(tmp_path):
    row = {name: 1.0 for name, _, _ in report.STREAM_COLUMNS} | {'anchors': 2, 'chunk': 4, 'steps': 1}
    results = {'machine': machine.describe(), 'model': 'm', 'steps': 1, 'stream': [row]}
    text = report.write(results, tmp_path)
    assert 'cores' in text and 'frames/s' in text
    assert '| 2 | 4 | 1 | 1.0 |' in (tmp_path / 'bench.md').read_text()
    assert json.loads((tmp_path / 'bench.json').read_text()) == results


def test_the_desk_is_measured_with_all_that_it_says(tmp_path, monkeypatch):
    pytest.importorskip('robosuite')
    pytest.importorskip('yourdfpy')
    monkeypatch.setattr(streams, 'DESK_MOMENTS', 3)
    save_model(tiny_random_model(), tmp_path)
    settings = StreamSettings(model=str(tmp_path), threads=1)
    figures = streams.run_desk(settings, rate=5, seconds=3, hw=(120, 160), known=True, progress=False)
    assert figures['desk'] == 'RGBD' and figures['anchor_size'] == '160x120' and figures['frames_per_second'] > 0
    assert '| RGBD | 160x120 |' in '\n'.join(
        report.sections({'machine': {}, 'model': 'm', 'desk': [figures]}, markdown)
    )


def test_recordings_are_measured_beside_the_live_rate(tmp_path):
    pytest.importorskip('robosuite')
    pytest.importorskip('pyarrow')
    save_model(tiny_random_model(), tmp_path)
    settings = StreamSettings(model=str(tmp_path), device='cpu', threads=1)
    (row,) = offline.run_offline(settings, live=2.0, moments=3, cases=((1, 1),), progress=False)
    assert row['frames'] == 6 and row['times_live'] == pytest.approx(row['frames_per_second'] / 2)
    assert 0 < row['run_per_second'] < row['frames_per_second'], 'a whole run has a start and an end'
    said = '\n'.join(report.sections({'machine': {}, 'model': 'm', 'live': 2.0, 'offline': [row]}, markdown))
    assert 'gave 2.0 frames/s' in said and '| 1 | 1 | 6 |' in said
