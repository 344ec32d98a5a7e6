"""The benchmark of parts as tables."""

from __future__ import annotations

from collections.abc import Callable

PARTS = (
    ('part', 'part', '{}'), ('frames', 'frames', '{:d}'), ('ms', 'ms', '{:.2f}'), ('roofline_ms', 'floor ms', '{:.3f}'),
    ('ratio', 'ratio', '{:.1f}'), ('bound', 'floor is', '{}'), ('gigaoperations', 'G operations', '{:.1f}'),
    ('megabytes', 'MB', '{:.1f}'),
)  # fmt: skip
STREAM = (
    ('way', 'ours', '{}'), ('frames', 'frames', '{:d}'), ('frames_per_second', 'frames/s', '{:.3g}'),
    ('overlapped_per_second', 'frames/s, two threads', '{:.3g}'),
    ('latency_p50_ms', 'p50 ms', '{:.0f}'), ('latency_p95_ms', 'p95 ms', '{:.0f}'), ('stage1_ms', 'stage 1 ms', '{:.1f}'),
    ('condition_ms', 'condition ms', '{:.1f}'), ('generation_ms', 'generator ms', '{:.1f}'),
)  # fmt: skip
RELEASE = (('phase', "the release's way", '{}'), ('ms', 'ms a clip', '{:.0f}'), ('measured', 'measured', '{}'))
TARGETS = (
    ('name', 'target on a GPU', '{}'),
    ('target', 'wanted', '{}'),
    ('measured', 'measured', '{}'),
    ('verdict', 'met', '{}'),
)
LEGEND = (
    'ms: median of a call. frames: wrist frames that a call serves (a step of the transformer serves a chunk). Floor: the larger '
    'of operations (matrix products, convolutions, attention; the fastest precision the model holds) over the matrix rate and '
    'bytes (weights once, what goes in and out, keys and values of the history) over the bandwidth; both rates are the best measured before and after the parts. Work element by element is '
    'not counted, so the floor of the condition map is that of its bytes alone.'
)


def sections(cases: list[dict], targets: list[dict], table: Callable) -> list[str]:
    """Titles and tables of all cases and of the targets; table turns header and rows into text."""
    found = []
    for case in cases:
        found += [_title(case), table(*cells(PARTS, [_with_units(row) for row in case['parts']]))]
        found += [
            'End to end, anchors pushed to frames ready, as fast as it goes: one after another, and, as in the node, the next set '
            'looked at in one thread while another draws:'
        ]
        found += [table(*cells(STREAM, case['stream'])), _memory(case)]
        found += [_release_title(case), table(*cells(RELEASE, case['release']['phases'])), _speed_up(case)]
    verdicts = {None: '-', True: 'yes', False: 'no'}
    rows = [row | {'verdict': verdicts[row['met']]} for row in targets]
    return [
        *found,
        LEGEND,
        'Targets for the published size (`--model random:wristworld_1_3b --steps 4`):',
        table(*cells(TARGETS, rows)),
    ]


def cells(columns, rows: list[dict]) -> tuple[list[str], list[list[str]]]:
    """Header and rows as text; None is a dash."""

    def text(value, form: str) -> str:
        return '-' if value is None else form.format(value)

    return [title for _, title, _ in columns], [[text(row[key], form) for key, _, form in columns] for row in rows]


def _title(case: dict) -> str:
    rates = case['rates']
    matrix = ', '.join(f'{rate / 1e9:,.0f} G operations/s in {dtype}' for dtype, rate in rates['operations'].items())
    threads = f', {_count(case["threads"], "thread")}' if case['device'] == 'cpu' else ''
    return (
        f'Parts on {case["device"]}{threads}: {case["parameters"] / 1e6:,.0f} M parameters, {case["anchors"]} anchors of '
        f'{_size(case["anchor_hw"])} (stage 1 at width {case["anchor_width"]}), wrist {_size(case["wrist_hw"])}, chunk '
        f'{case["chunk"]}, {_count(case["steps"], "step")}, history {case["history"]}. Matrix rate {matrix}; bandwidth '
        f'{rates["bandwidth"] / 1e9:,.1f} GB/s.'
    )


def _release_title(case: dict) -> str:
    r = case['release']
    return (
        f"The release's way, same networks and shapes: a clip of {r['frames']} frames ({r['latent_frames']} latent), {r['steps']} "
        "steps, guidance as two passes, painter's loop:"
    )


def _speed_up(case: dict) -> str:
    r, ours = case['release'], case['stream'][0]
    rate = ours['overlapped_per_second'] or ours['frames_per_second']
    seconds = r['frames'] / r['frames_per_second']
    return (
        f"The release's way: {seconds:,.1f} s a clip, {r['frames_per_second']:.3g} frames/s, the first frame after all of it. "
        f'Ours ({ours["way"]}, {_count(case["steps"], "step")}): {rate:.3g} frames/s, {r["speed_up"]:.1f} times as fast.'
    )


def _memory(case: dict) -> str:
    kind = 'allocated on the GPU' if case['device'] == 'cuda' else 'resident'
    return f"Highest memory {kind}: ours {case['peak_mib']:,.0f} MiB, the release's way {case['release']['peak_mib']:,.0f} MiB."


def _with_units(row: dict) -> dict:
    return row | {'gigaoperations': row['operations'] / 1e9, 'megabytes': row['bytes'] / 1e6}


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}{"s" * (number != 1)}'


def _size(hw: list[int]) -> str:
    return f'{hw[0]}x{hw[1]}'
