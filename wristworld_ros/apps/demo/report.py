"""From a recording to a report folder: video, sheet, plots, tables and one page that holds them all. No ROS."""

from __future__ import annotations

import csv
import json
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wristworld_ros.apps.demo import plots, video
from wristworld_ros.apps.demo.quality import COPY, GENERATED, MEAN, OWN_WARP, Quality, measure
from wristworld_ros.data.recording import Recording

VIDEO, SHEET, POSTER, PAGE = 'side_by_side.mp4', 'contact_sheet.png', 'poster.png', 'index.html'
# Below these the pictures show nothing of the scene, whatever their PSNR: sharpness, and coverage, 0 to 1.
BLUR, BLIND = 0.12, 0.2


@dataclass(frozen=True)
class Live:
    """What the run itself was like. Rates a second, latencies in seconds, memory in MiB.

    reasons: an example of each kind of reason not to be fit, with how many frames had it.
    """

    seconds: float
    frames: int
    rate: float
    invalid: int
    reasons: dict[str, int]
    age_p50: float
    age_p95: float
    model_p50: float
    coverage: float
    confidence: float
    memory_start: float
    memory_end: float
    counters: dict[str, int]


def needs() -> None:
    """ModuleNotFoundError with the install command when a library of the report is missing."""
    for module, package in (
        ('matplotlib', 'matplotlib'),
        ('PIL', 'Pillow'),
        ('jinja2', 'jinja2'),
        ('skimage', 'scikit-image'),
    ):
        try:
            __import__(module)
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"The report needs {package}: pip install 'wristworld-ros[train,view]'."
            ) from None


def render_report(
    recording_folder: Path, folder: Path, mean_wrist: np.ndarray | None = None, progress: bool = True
) -> Path:
    """Render everything; returns the page's path.

    recording_folder: see `recording`. folder: where the report goes; made when missing. mean_wrist: for its row of the
    table, uint8 [h, w, 3], or None. Raises ValueError, one sentence, when there is nothing to report on.
    """
    needs()
    recording, folder = Recording(recording_folder), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layout = video.Layout(recording)
    bar = tqdm(total=video.video_frames(recording) + 20, desc='report', unit='frame', disable=not progress)
    quality = measure(recording, mean_wrist)
    bar.update(10)
    psnr = _by_stamp(recording, quality)
    video.write_video(recording, layout, folder / VIDEO, psnr, tick=bar.update)
    video.contact_sheet(recording, layout, folder / SHEET, psnr)
    video.poster(recording, layout, folder / POSTER, psnr)
    live = summarise(recording)
    seconds = recording.seconds()
    plots.latency_plot(seconds, recording.series('age'), recording.series('latency'), folder / 'latency.svg')
    plots.trust_plot(
        seconds,
        recording.series('coverage'),
        recording.series('confidence'),
        recording.series('fit'),
        folder / 'trust.svg',
    )
    if quality:
        plots.quality_plot(quality, folder / 'quality.svg')
        quality.table.write(folder)
    _write_frames(recording, psnr, folder / 'frames.csv')
    record = {'head': recording.head, 'live': vars(live), 'quality': quality.table.record() if quality else None}
    (folder / 'report.json').write_text(json.dumps(_plain(record), indent=1) + '\n')
    page = _page(recording, quality, live, folder)
    bar.update(10)
    bar.close()
    return page


def summarise(recording: Recording) -> Live:
    """The run in numbers, from the wrist frames and the node's own counters."""
    seconds, ages = recording.seconds(), recording.series('age')
    span = float(seconds[-1]) if len(seconds) > 1 else 0.0
    alike: dict[str, list[str]] = {}
    for view in recording.views:
        if not view['fit']:
            reason = view['reason'].split(';')[0].rstrip('.')
            alike.setdefault(re.sub(r'[\d.]+', '#', reason), []).append(reason)
    first, last = (recording.status[i] if recording.status else {} for i in (0, -1))
    names = [
        k for k, v in last.items() if isinstance(v, int) and not isinstance(v, bool) and k not in ('stamp', 'memory')
    ]
    return Live(
        seconds=span, frames=len(seconds), rate=(len(seconds) - 1) / span if span else 0.0,
        invalid=sum(not v['fit'] for v in recording.views), reasons={found[len(found) // 2]: len(found) for found in alike.values()},
        age_p50=float(np.percentile(ages, 50)), age_p95=float(np.percentile(ages, 95)),
        model_p50=float(np.percentile(recording.series('latency'), 50)),
        coverage=float(recording.series('coverage').mean()), confidence=float(recording.series('confidence').mean()),
        memory_start=first.get('memory', 0) / 2**20, memory_end=last.get('memory', 0) / 2**20,
        counters={name: last[name] - first.get(name, 0) for name in names},
    )  # fmt: skip


def trust(recording: Recording, quality: Quality | None, live: Live) -> dict:
    """How far to trust what is shown: a level (good, fair, poor, unknown), a headline and paragraphs."""
    fit = 1 - live.invalid / live.frames
    shares = (
        f'The condition map covered {live.coverage:.0%} of the wrist view on average, and the model gave its geometry a '
        f'confidence of {live.confidence:.0%}. The node called {live.unfit} of {live.frames} frames not fit for use'
    )
    main_reason = max(live.reasons, key=lambda reason: live.reasons[reason], default='')
    shares += f'; most often because: {main_reason}.' if main_reason else '.'
    if quality is None:
        text = [
            'No true wrist camera was recorded, so nothing here says how right the generated pictures are; there are no quality rows.',
            _domain(recording),
            shares,
            'Coverage and confidence say how much the model had to go on, not that it was right: it can be sure of a wrong '
            'wrist pose. Look at the condition map in the video. Where it does not look like the scene from the gripper, the '
            'generated picture is an invention.',
        ]
        real = recording.head.get('source') == 'videos'
        return {
            'level': 'unknown',
            'headline': 'Do not rely on these pictures' if real else 'Not measured',
            'text': text,
        }
    ours, theirs = (quality.table.mean(row, 'psnr') for row in (GENERATED, OWN_WARP))
    others = [name for name in (MEAN, COPY) if name in quality.table.rows]
    lines = [
        f'Against the true wrist camera the generated picture reached {ours:.1f} dB PSNR and {quality.table.mean(GENERATED, "ssim"):.2f} '
        f'SSIM. The warp of the same geometry with its holes filled reached {theirs:.1f} dB'
        + ''.join(f', the {name} {quality.table.mean(name, "psnr"):.1f} dB' for name in others) + '.',
        _domain(recording),
        shares,
    ]  # fmt: skip
    beaten = ours > max(quality.table.mean(name, 'psnr') for name in (OWN_WARP, *others))
    if quality.table.mean(GENERATED, 'sharpness') < BLUR or live.coverage < BLIND:
        level, headline = 'poor', 'There is hardly anything of the scene in these pictures'
    elif not beaten:
        level, headline = 'poor', 'A plain baseline did as well or better on these frames'
    elif ours >= 19 and fit > 0.9:
        level, headline = 'good', 'Good for where things are, not for fine detail'
    else:
        level, headline = 'fair', 'The layout is mostly right, the detail is not'
    return {'level': level, 'headline': headline, 'text': lines}


def _domain(recording: Recording) -> str:
    """What the model has seen, against what it was shown."""
    model = recording.head.get('model_name', 'the model')
    tiny = 'sim_tiny' in model
    if recording.head.get('source') == 'simulator':
        known = f' that {model} was trained in; objects, lights and camera places are new to it' if tiny else ''
        return f'The scenes come from the simulator{known}. What is measured here does not carry over to real cameras.'
    if tiny:
        return (
            f'The small model {model} has only ever seen a simulated Franka arm: to it, real images are foreign. This run shows '
            'that the whole chain works on them, at what speed, and what the node says of itself; it is no wrist camera to act on.'
        )
    return f'Whether {model} has seen scenes like these is for its model card to say.'


def _page(recording: Recording, quality: Quality | None, live: Live, folder: Path) -> Path:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    header, rows = quality.table.cells() if quality else ([], [])
    page = folder / PAGE
    template = environment.get_template('report.html.j2')
    page.write_text(
        template.render(
            head=recording.head, live=live, quality=quality, trust=trust(recording, quality, live), header=header,
            rows=rows, generated=GENERATED, counters=_counters(live), anchors=recording.anchors, video=VIDEO, sheet=SHEET,
            poster=POSTER, made=recording.head.get('date', time.strftime('%Y-%m-%d %H:%M')),
            settings=recording.head.get('settings', {}), machine=recording.head.get('machine', {}),
        )
    )  # fmt: skip
    return page


def _counters(live: Live) -> list[tuple[str, int]]:
    """The node's counters in the words of a reader; zeros of what should not happen are told too."""
    c = live.counters
    bad = sum(v for k, v in c.items() if k.startswith('images_bad_'))
    words = [
        ('anchor images received', c.get('images_received')), ('anchor images that were unusable', bad),
        ('anchor images without partners in time', c.get('images_unmatched', 0) + c.get('images_late', 0)),
        ('anchor sets matched', c.get('sets_matched')), ('anchor sets used', c.get('sets_used')),
        ('anchor sets that gave way to a newer one', c.get('sets_replaced')),
        ('wrist frames published', c.get('frames_published')), ('wrist frames not fit', c.get('frames_invalid')),
        ('messages that could not be published', c.get('publish_errors')), ('failures of the model', c.get('model_errors')),
        ('fresh starts', c.get('resets')),
    ]  # fmt: skip
    return [(word, value) for word, value in words if value is not None] if c else []


def _by_stamp(recording: Recording, quality: Quality | None) -> dict[int, float]:
    if quality is None:
        return {}
    first = recording.views[0]['stamp_ns']
    found = zip(quality.seconds, quality.psnr[GENERATED])
    near = {round(s * 1e6): float(p) for s, p in found}
    stamps = (v['stamp_ns'] for v in recording.views)
    return {s: near[key] for s in stamps if (key := round((s - first) * 1e-9 * 1e6)) in near}


def _write_frames(recording: Recording, psnr: dict[int, float], path: Path) -> None:
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(
            ['stamp_ns', 'seconds', 'age_s', 'latency_s', 'coverage', 'confidence', 'fit', 'psnr_db', 'reason']
        )
        for seconds, v in zip(recording.seconds(), recording.views):
            value = psnr.get(v['stamp_ns'])
            writer.writerow([
                v['stamp_ns'], f'{seconds:.3f}', f'{v["age"]:.4f}', f'{v["latency"]:.4f}', f'{v["coverage"]:.4f}',
                f'{v["confidence"]:.4f}', int(v['fit']), '' if value is None else f'{value:.2f}', v['reason'],
            ])  # fmt: skip


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
