import json

import pytest

from wristworld_ros.apps.bench import condition, report
from wristworld_ros.apps.bench.stream import run_stream
from wristworld_ros.apps.bench.topics import run_topics
from wristworld_ros.pipeline import save_model, tiny_random_model
from wristworld_ros.runtime import machine
from wristworld_ros.settings import StreamSettings


def test_the_condition_map_equals_the_painters_and_is_faster():
    figures = condition.compare(repeats=2)
    assert figures['points'] == 304_584
    assert figures['pixels_that_differ'] == 0
    assert figures['ratio'] > 5  # 50 on a machine that does nothing else


def test_the_stream_is_timed_by_chunk_and_parts():
    figures = run_stream(tiny_random_model(), StreamSettings(history=1), views=2, chunk=2, frames=5)
    assert figures['frames'] == 4
    assert figures['latency_p95_ms'] >= figures['latency_p50_ms'] > 0
    per_frame = sum(figures[f'{part}_ms'] for part in ('stage1', 'condition', 'generation'))
    assert per_frame == pytest.approx(1e3 / figures['frames_per_second'], rel=0.5)


def test_the_whole_way_over_topics_is_measured(tmp_path):
    save_model(tiny_random_model(), tmp_path)
    figures = run_topics(StreamSettings(model=str(tmp_path), threads=1), rate=10, seconds=3, progress=False)
    assert figures['frames_per_second'] > 2
    assert 0 < figures['age_p50_ms'] <= figures['age_p95_ms'] <= figures['age_max_ms']
    assert figures['memory_end_mib'] > 50


def test_text_markdown_and_json_say_the_same(tmp_path):
    row = {name: 1.0 for name, _, _ in report.STREAM} | {'anchors': 2, 'chunk': 4, 'steps': 1}
    results = {'machine': machine.describe(), 'model': 'm', 'steps': 1, 'stream': [row]}
    text = report.write(results, tmp_path)
    assert 'cores' in text and 'frames/s' in text
    assert '| 2 | 4 | 1 | 1.0 |' in (tmp_path / 'bench.md').read_text()
    assert json.loads((tmp_path / 'bench.json').read_text()) == results
