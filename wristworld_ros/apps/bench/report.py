"""The benchmark's figures as text, markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from wristworld_ros.apps.bench import parts_report
from wristworld_ros.apps.bench.parts_report import cells
from wristworld_ros.evaluation.table import aligned, markdown

STREAM = (
    ('anchors', 'anchors', '{:d}'), ('chunk', 'chunk', '{:d}'), ('steps', 'steps', '{:d}'),
    ('frames_per_second', 'frames/s', '{:.1f}'), ('latency_p50_ms', 'p50 ms', '{:.0f}'), ('latency_p95_ms', 'p95 ms', '{:.0f}'),
    ('stage1_ms', 'stage 1 ms', '{:.1f}'), ('condition_ms', 'condition ms', '{:.1f}'), ('generation_ms', 'generator ms', '{:.1f}'),
    ('memory_start_mib', 'MiB at start', '{:.0f}'), ('memory_end_mib', 'MiB at end', '{:.0f}'),
)  # fmt: skip
TOPICS = (
    ('camera_hz', 'cameras Hz', '{:g}'), ('seconds', 'seconds', '{:.0f}'), ('frames_per_second', 'wrist frames/s', '{:.1f}'),
    ('age_p50_ms', 'p50 ms', '{:.0f}'), ('age_p95_ms', 'p95 ms', '{:.0f}'), ('age_max_ms', 'max ms', '{:.0f}'),
    ('sets_replaced', 'sets replaced', '{:d}'), ('frames_invalid', 'unfit', '{:d}'),
    ('memory_start_mib', 'MiB at start', '{:.0f}'), ('memory_end_mib', 'MiB at end', '{:.0f}'),
)  # fmt: skip


def sections(results: dict, table: Callable) -> list[str]:
    """Title and table of every part that was measured; table turns header and rows into text."""
    parts = [
        'Machine: ' + '; '.join(f'{k} {v}' for k, v in results['machine'].items()) + f'. Model: {results["model"]}.'
    ]
    if c := results.get('condition'):
        parts.append(
            f"Condition map of {c['points']:,} points at {c['height']}x{c['width']}: splat {c['splat_ms']:.1f} ms, painter's loop "
            f'{c["painter_ms"]:.0f} ms, {c["ratio"]:.0f} times faster; {c["pixels_that_differ"]} pixels differ.'
        )
    if rows := results.get('stream'):
        parts += [
            'Stream without ROS, 320x240 anchors, one after another as fast as it goes:',
            table(*cells(STREAM, rows)),
        ]
    if rows := results.get('topics'):
        parts += [
            'Over ROS 2 topics, two 320x240 anchors; ms are from the stamp to publishing:',
            table(*cells(TOPICS, rows)),
        ]
    if cases := results.get('parts'):
        parts += parts_report.sections(cases, results['targets'], table)
    return parts


def write(results: dict, folder: Path) -> str:
    """Write bench.{txt,md,json} below `folder`; returns the text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = '\n\n'.join(sections(results, aligned))
    (folder / 'bench.txt').write_text(text + '\n')
    (folder / 'bench.md').write_text('\n\n'.join(sections(results, markdown)) + '\n')
    (folder / 'bench.json').write_text(json.dumps(results, indent=1) + '\n')
    return text
