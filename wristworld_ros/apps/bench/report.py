"""The benchmark's figures as text, markdown and JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wristworld_ros.evaluation.table import aligned, markdown
from wristworld_ros.input_files import json_text
from wristworld_ros.runtime.files import write_text

STREAM_COLUMNS = (
    ('anchors', 'anchors', '{:d}'), ('chunk', 'chunk', '{:d}'), ('steps', 'steps', '{:d}'),
    ('frames_per_second', 'frames/s', '{:.1f}'), ('latency_p50_ms', 'p50 ms', '{:.0f}'), ('latency_p95_ms', 'p95 ms', '{:.0f}'),
    ('stage1_ms', 'stage 1 ms', '{:.1f}'), ('condition_ms', 'condition ms', '{:.1f}'), ('generation_ms', 'generator ms', '{:.1f}'),
    ('memory_start_mib', 'MiB at start', '{:.0f}'), ('memory_end_mib', 'MiB at end', '{:.0f}'),
)  # fmt: skip
TOPIC_COLUMNS = (
    ('camera_hz', 'cameras Hz', '{:g}'), ('seconds', 'seconds', '{:.0f}'), ('frames_per_second', 'wrist frames/s', '{:.1f}'),
    ('age_p50_ms', 'p50 ms', '{:.0f}'), ('age_p95_ms', 'p95 ms', '{:.0f}'), ('age_max_ms', 'max ms', '{:.0f}'),
    ('sets_replaced', 'sets replaced', '{:d}'), ('frames_invalid', 'invalid', '{:d}'),
    ('memory_start_mib', 'MiB at start', '{:.0f}'), ('memory_end_mib', 'MiB at end', '{:.0f}'),
)  # fmt: skip
DESK_COLUMNS = (('desk', 'what is used', '{}'), ('anchor_size', 'anchors', '{}'), *TOPIC_COLUMNS)
OFFLINE_COLUMNS = (
    ('workers', 'workers', '{:d}'), ('batch', 'batch', '{:d}'), ('frames', 'frames', '{:d}'), ('frames_per_second', 'frames/s', '{:.1f}'),
    ('episodes_per_second', 'episodes/s', '{:.3f}'), ('times_live', 'times the live rate', '{:.2f}'),
    ('run_per_second', 'frames/s, whole run', '{:.1f}'),
)  # fmt: skip
PART_COLUMNS = (
    ('part', 'part', '{}'), ('frames', 'frames', '{:d}'), ('ms', 'ms', '{:.2f}'), ('roofline_ms', 'roofline ms', '{:.3f}'),
    ('ratio', 'ratio', '{:.1f}'), ('bound', 'bound by', '{}'), ('gigaflops', 'GFLOP', '{:.1f}'),
    ('megabytes', 'MB', '{:.1f}'),
)  # fmt: skip
CASE_STREAM_COLUMNS = (
    ('variant', 'stream', '{}'), ('frames', 'frames', '{:d}'), ('frames_per_second', 'frames/s', '{:.3g}'),
    ('overlapped_per_second', 'frames/s, two threads', '{:.3g}'),
    ('latency_p50_ms', 'p50 ms', '{:.0f}'), ('latency_p95_ms', 'p95 ms', '{:.0f}'), ('stage1_ms', 'stage 1 ms', '{:.1f}'),
    ('condition_ms', 'condition ms', '{:.1f}'), ('generation_ms', 'generator ms', '{:.1f}'),
)  # fmt: skip
PHASE_COLUMNS = (('phase', 'published pipeline', '{}'), ('ms', 'ms per clip', '{:.0f}'), ('measured', 'measured', '{}'))
TARGET_COLUMNS = (
    ('name', 'target on a GPU', '{}'),
    ('target', 'wanted', '{}'),
    ('measured', 'measured', '{}'),
    ('verdict', 'met', '{}'),
)
LEGEND = (
    'ms: median of a call. frames: wrist frames that a call serves (a step of the transformer serves a chunk). Roofline: the '
    'larger of flops (matrix products, convolutions, attention; at the fastest precision the model holds) over the matrix rate '
    'and bytes (weights once, inputs and outputs, keys and values of the history) over the bandwidth; both rates are the best '
    'measured before and after the parts. Element-wise work is not counted, so the roofline of the condition map is that of its '
    'bytes alone.'
)


def sections(results: dict, table: Callable) -> list[str]:
    """Title and table of every section that was measured.

    Args:
        results: By section.
        table: Turns header and rows into text.
    """
    found = [
        'Machine: ' + '; '.join(f'{k} {v}' for k, v in results['machine'].items()) + f'. Model: {results["model"]}.'
    ]
    if c := results.get('condition'):
        found.append(
            f'Condition map of {c["points"]:,} points at {c["height"]}x{c["width"]}: splat {c["splat_ms"]:.1f} ms, point by point '
            f'{c["reference_ms"]:.0f} ms, {c["ratio"]:.0f} times as long; {c["pixels_that_differ"]} pixels differ.'
        )
    if rows := results.get('stream'):
        found += [
            'Stream without ROS, 320x240 anchors, one after another, as fast as possible:',
            table(*_cells(STREAM_COLUMNS, rows)),
        ]
    if rows := results.get('topics'):
        found += [
            'Over ROS 2 topics, two 320x240 anchors; ms are from the stamp to publishing:',
            table(*_cells(TOPIC_COLUMNS, rows)),
        ]
    if rows := results.get('desk'):
        found += [
            'The simulated desk over ROS 2 topics, rendered before: two anchors with depth, TF, joint states and description, used '
            'and not used; ms are from the stamp to publishing:',
            table(*_cells(DESK_COLUMNS, rows)),
        ]
    if rows := results.get('offline'):
        found += [
            f'Recordings: `wristworld augment` on the simulated desk from images alone, two 320x240 anchors, as fast as possible; the live '
            f'node on the same desk gave {results["live"]:.1f} frames/s. Whole run: with the start of the workers and the writing of the set:',
            table(*_cells(OFFLINE_COLUMNS, rows)),
        ]
    if cases := results.get('parts'):
        found += _case_sections(cases, results['targets'], table)
    return found


def write(results: dict, folder: Path) -> str:
    """Write bench.{txt,md,json} below `folder`; returns the text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = '\n\n'.join(sections(results, aligned))
    write_text(folder / 'bench.txt', text + '\n')
    write_text(folder / 'bench.md', '\n\n'.join(sections(results, markdown)) + '\n')
    write_text(folder / 'bench.json', json_text(results))
    return text


def _case_sections(cases: list[dict], targets: list[dict], table: Callable) -> list[str]:
    """Titles and tables of all cases and of the targets."""
    found = []
    for case in cases:
        found += [_title(case), table(*_cells(PART_COLUMNS, [_with_units(row) for row in case['parts']]))]
        found += [
            'End to end, from pushing anchors to finished frames, as fast as possible: one set after another, and, as in the node, '
            'with the next set reconstructed in one thread while another generates:'
        ]
        found += [table(*_cells(CASE_STREAM_COLUMNS, case['stream'])), _memory(case)]
        phases = table(*_cells(PHASE_COLUMNS, case['published']['phases']))
        found += [_published_title(case), phases, _speed_up(case)]
    verdicts = {None: '-', True: 'yes', False: 'no'}
    rows = [row | {'verdict': verdicts[row['met']]} for row in targets]
    return [
        *found,
        LEGEND,
        'Targets for the published size (`--model random:wristworld_1_3b --steps 4`):',
        table(*_cells(TARGET_COLUMNS, rows)),
    ]


def _cells(columns, rows: list[dict]) -> tuple[list[str], list[list[str]]]:
    """Header and rows as text; None is a dash."""

    def text(value, form: str) -> str:
        return '-' if value is None else form.format(value)

    return [title for _, title, _ in columns], [[text(row[key], form) for key, _, form in columns] for row in rows]


def _title(case: dict) -> str:
    rates = case['rates']
    matrix = ', '.join(f'{rate / 1e9:,.0f} GFLOP/s in {dtype}' for dtype, rate in rates['flops'].items())
    threads = f', {_count(case["threads"], "thread")}' if case['device'] == 'cpu' else ''
    return (
        f'Parts on {case["device"]}{threads}: {case["parameters"] / 1e6:,.0f} M parameters, {case["anchors"]} anchors of '
        f'{_size(case["anchor_hw"])} (stage 1 at width {case["anchor_width"]}), wrist {_size(case["wrist_hw"])}, chunk '
        f'{case["chunk"]}, {_count(case["steps"], "step")}, history {case["history"]}. Matrix rate {matrix}; bandwidth '
        f'{rates["bandwidth"] / 1e9:,.1f} GB/s.'
    )


def _published_title(case: dict) -> str:
    p = case['published']
    return (
        f'Published pipeline, same networks and shapes: a clip of {p["frames"]} frames ({p["latent_frames"]} latent), {p["steps"]} '
        'steps, guidance as two passes, condition maps point by point:'
    )


def _speed_up(case: dict) -> str:
    p, stream = case['published'], case['stream'][0]
    rate = stream['overlapped_per_second'] or stream['frames_per_second']
    seconds = p['frames'] / p['frames_per_second']
    return (
        f'Published pipeline: {seconds:,.1f} s per clip, {p["frames_per_second"]:.3g} frames/s, the first frame at the end. '
        f'This stream ({stream["variant"]}, {_count(case["steps"], "step")}): {rate:.3g} frames/s, {p["speed_up"]:.1f} times as '
        'fast.'
    )


def _memory(case: dict) -> str:
    kind = 'allocated on the GPU' if case['device'] == 'cuda' else 'resident'
    published = case['published']['peak_mib']
    return f'Highest memory {kind}: stream {case["peak_mib"]:,.0f} MiB, published pipeline {published:,.0f} MiB.'


def _with_units(row: dict) -> dict:
    return row | {'gigaflops': row['flops'] / 1e9, 'megabytes': row['bytes'] / 1e6}


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}{"s" * (number != 1)}'


def _size(hw: list[int]) -> str:
    return f'{hw[0]}x{hw[1]}'
