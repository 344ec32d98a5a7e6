"""A small recorded folder, as the recorder node leaves it."""

import numpy as np
import pytest

from wristworld_ros.data.recording import CONDITION, TRUE_WRIST, WRIST, RecordingWriter

FRAMES, BASE = 12, 10**18
HEAD = {
    'about': 'A test.', 'source': 'simulator', 'date': '2026-01-01 00:00', 'model_name': 'sim_tiny',
    'model': 'sim_tiny <b>', 'machine': {'processor': 'test, 2 cores'}, 'settings': {'chunk': '1'},
}  # fmt: skip


def coarse_image(seed, height, width):
    coarse = np.random.default_rng(seed).integers(40, 220, (height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def write_recording(
    folder, truth=True, head=HEAD, invalid=(5, 6), anchors=('left', 'right'), statuses=('LOW_COVERAGE',)
):
    writer = RecordingWriter(folder, head, anchors)
    writer.start()
    for i in range(FRAMES):
        stamp = BASE + i * 100_000_000
        for v, name in enumerate(anchors):
            writer.image(f'anchor_{name}', stamp, coarse_image(10 * v + i, 48, 64))
        true = coarse_image(i, 32, 32)
        condition = np.roll(true, 6, 1)
        condition[:6] = 0
        writer.image(CONDITION, stamp, condition)
        writer.image(WRIST, stamp, np.clip(true.astype(int) + 6, 0, 255).astype(np.uint8))
        if truth:
            writer.image(TRUE_WRIST, stamp + 1000, true)
        valid = i not in invalid
        writer.line('views', {
            'stamp_ns': stamp, 'received_ns': stamp + 10**8, 'coverage': 0.8, 'confidence': 0.5, 'agreement': 0.9, 'latency': 0.05,
            'age': 0.1 + 0.01 * i, 'valid': valid, 'status': 'VALID' if valid else statuses[i % len(statuses)],
            'reason': '' if valid else f'Only {i}% are covered; more is wanted.',
        })  # fmt: skip
        writer.line(
            'status',
            {'stamp': stamp, 'memory': 600 * 2**20, 'sets_matched': i, 'sets_used': i, 'latency_p50': float('nan')},
        )
    writer.close()
    return folder


@pytest.fixture
def recorded(tmp_path):
    return write_recording(tmp_path / 'recording')
