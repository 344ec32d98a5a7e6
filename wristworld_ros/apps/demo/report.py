"""From a recording to a report folder: video, contact sheet, plots, tables and one page that shows them all. No ROS."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from wristworld_ros.apps.demo import plots, video
from wristworld_ros.apps.demo.measures import (
    COPY,
    MEAN,
    Quality,
    RunFigures,
    live_mode_of,
    measure_quality,
    mode_figures,
    summarise,
)
from wristworld_ros.data.recording import Recording
from wristworld_ros.errors import require_package
from wristworld_ros.input_files import json_text
from wristworld_ros.runtime.files import write_text
from wristworld_ros.runtime.progress import ProgressBar

VIDEO, SHEET, POSTER, PAGE = 'side_by_side.mp4', 'contact_sheet.png', 'poster.png', 'index.html'
# Below these the images show nothing of the scene, whatever their PSNR: sharpness, and coverage, 0 to 1.
MIN_SHARPNESS, MIN_COVERAGE = 0.12, 0.2
# From these on they are called good: PSNR in dB, the share of valid frames, and the share of objects that are found.
GOOD_PSNR, GOOD_VALID, GOOD_FOUND = 19, 0.9, 0.7
MOST_LATE = 0.5  # share of frames that were older than `freshness` when they were ready: with more the run was not live


def require_report_packages() -> None:
    """Raise MissingPackageError where a library that the report needs is not installed."""
    for module in ('matplotlib', 'PIL', 'jinja2', 'skimage'):
        require_package(module, 'train,view', 'The report')


def render_report(
    recording_folder: Path, folder: Path, mean_wrist: np.ndarray | None = None, progress: bool = True
) -> Path:
    """Render everything and return the page's path.

    Args:
        recording_folder: See `data.recording`.
        folder: Where the report goes; made when missing.
        mean_wrist: The mean wrist image for its row of the table, uint8 [h, w, 3], or None.
        progress: Whether a bar is shown.

    Raises:
        UserError: There is no recording, or it has no wrist frame; or a package is missing.
    """
    require_report_packages()
    recording, folder = Recording(recording_folder), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layout = video.Layout(recording)
    with ProgressBar(
        total=video.video_frames(recording) + 20, desc='report', unit='frame', disable=not progress
    ) as bar:
        quality, figures = measure_quality(recording, mean_wrist), summarise(recording)
        bar.update(10)
        words = _psnr_in_words(quality) if quality else {}
        video.write_side_by_side(recording, layout, folder / VIDEO, words, on_frame=bar.update)
        video.write_contact_sheet(recording, folder / SHEET, words)
        video.write_poster(recording, layout, folder / POSTER, words)
        _write_plots(recording, quality, folder)
        if quality:
            quality.table.write(folder)
        _write_frames(recording, quality.psnr_by_stamp() if quality else {}, folder / 'frames.csv')
        record = {
            'head': recording.head,
            'live': asdict(figures),
            'quality': quality.table.record() if quality else None,
        }
        write_text(folder / 'report.json', json_text(record))
        page = _write_page(recording, quality, figures, folder)
        bar.update(10)
    return page


def trust(recording: Recording, quality: Quality | None, figures: RunFigures) -> dict:
    """How far to trust the images: a level (good, fair, poor, unknown), a headline and paragraphs."""
    if quality is None:
        real = recording.head.get('source') == 'videos'
        return {
            'level': 'unknown',
            'headline': 'Do not rely on these images' if real else 'Not measured',
            'text': [
                'No true wrist camera was recorded, so the error of the generated images is not known; there are no quality rows.',
                _domain(recording),
                _own_verdict(figures),
                'Coverage, confidence and agreement say how much the model had to go on, not that it was right: it can be confident of a '
                'wrong wrist pose. Compare the condition map in the video with the scene. Where it does not look like the '
                'scene from the gripper, the generated image is invented.',
            ],
        }
    table, measured = quality.table, live_mode_of(recording) == 'rgbd'
    others = [name for name in (MEAN, COPY) if name in table.rows]
    ours = table.mean(quality.live, 'psnr')
    compared = ''.join(f', the {name} {table.mean(name, "psnr"):.1f} dB' for name in others)
    text = [
        f'Against the true wrist camera the generated images reached {ours:.1f} dB PSNR and '
        f'{table.mean(quality.live, "ssim"):.2f} SSIM. The {"condition map" if quality.modes else "warp of the same geometry"} '
        f'with its holes filled reached {table.mean(quality.warp, "psnr"):.1f} dB{compared}.',
        _other_modes(quality),
        _objects(quality),
        _domain(recording),
        _own_verdict(figures),
    ]
    # Measured pixels are published as they are, so that the filled map of RGBD is nearly what is published, and no rival of it.
    rivals = others if measured else [quality.warp, *others]
    best = ours > max((table.mean(name, 'psnr') for name in rivals), default=-math.inf)
    valid = 1 - figures.invalid / figures.frames
    found = table.mean(quality.live, 'found') if 'found' in {c.key for c in table.columns()} else math.nan
    late = figures.invalid_statuses.get('STALE', 0) / figures.frames
    if late > MOST_LATE:
        level, headline = 'poor', 'The images came too late to act on; this machine is too slow, or was busy'
    elif table.mean(quality.live, 'sharpness') < MIN_SHARPNESS or figures.coverage < MIN_COVERAGE:
        level, headline = 'poor', 'There is hardly anything of the scene in these images'
    elif not best:
        level, headline = 'poor', 'A plain baseline did as well or better on these frames'
    elif ours >= GOOD_PSNR and valid > GOOD_VALID and found >= GOOD_FOUND:
        level, headline = 'good', 'The layout is right, and most objects are in their places'
    elif ours >= GOOD_PSNR and valid > GOOD_VALID:
        level, headline = 'good', 'The layout is right; objects may be missing or elsewhere'
    else:
        level, headline = 'fair', 'The layout is mostly right; do not rely on objects'
    return {'level': level, 'headline': headline, 'text': [paragraph for paragraph in text if paragraph]}


def _other_modes(quality: Quality) -> str:
    """What was reached with less told, on the same sets; '' where one mode alone was recorded."""
    others = [
        f'{mode.upper()} {quality.table.mean(row, "psnr"):.1f} dB'
        for mode, row in quality.modes.items()
        if row != quality.live
    ]
    if not others:
        return ''
    return (
        f'Told less, the same model made of the same sets: {", ".join(others)}. That was computed afterwards from the recorded '
        'images, as fast as this machine allows; rates, latencies and validity on this page are those of the live run.'
    )


def _objects(quality: Quality) -> str:
    """Where objects are; '' where that was not recorded."""
    table = quality.table
    if 'found' not in {column.key for column in table.columns()}:
        return 'These are figures of whole images, in which small objects weigh little: look for them in the video.'
    rows = quality.modes or {'': quality.live}
    shares = [f'{table.mean(row, "found"):.0%}{f" ({mode.upper()})" if mode else ""}' for mode, row in rows.items()]
    return (
        'Whole images say little about small objects. Of the objects in the true wrist images, these shares are found within 5 '
        f'of 128 pixels of their places: {", ".join(shares)}.'
    )


def _psnr_in_words(quality: Quality) -> dict[int, str]:
    """PSNR of every frame, by stamp."""
    if not quality.modes:
        return {stamp: f'PSNR {value:.1f} dB' for stamp, value in quality.psnr_by_stamp().items()}
    parts = {mode.upper(): quality.psnr_by_stamp(row) for mode, row in quality.modes.items()}
    return {
        stamp: 'PSNR ' + ', '.join(f'{mode} {values[stamp]:.1f}' for mode, values in parts.items()) + ' dB'
        for stamp in quality.stamps_ns.tolist()
    }


def _own_verdict(figures: RunFigures) -> str:
    """What the model and the node said of the frames themselves."""
    agreement = '' if math.isnan(figures.agreement) else f', the agreement of the anchors {figures.agreement:.0%}'
    text = (
        f'The condition map covered {figures.coverage:.0%} of the wrist view on average, and the mean confidence of the '
        f'geometry was {figures.confidence:.0%}{agreement}. {figures.invalid} of {figures.frames} frames were invalid'
    )
    if not figures.invalid:
        return f'{text}.'
    status = max(figures.invalid_statuses, key=figures.invalid_statuses.__getitem__)
    words = status.lower().replace('_', ' ')
    return (
        f'{text}, most often for {words} ({figures.invalid_statuses[status]} frames), e.g. "{figures.examples[status]}"'
    )


def _domain(recording: Recording) -> str:
    """What the model was trained on, against what it was shown."""
    model = recording.head.get('model_name', 'the model')
    tiny = 'sim_tiny' in model
    if recording.head.get('source') == 'simulator':
        known = (
            f' that {model} was trained in, with objects, lights and camera poses that are new to it' if tiny else ''
        )
        return f'The scenes come from the simulator{known}. What is measured here does not carry over to real cameras.'
    if tiny:
        return (
            f'The small model {model} was trained on a simulated Franka arm only; real images are outside its domain. This run '
            'shows that the whole pipeline works on them, how fast it is, and what the node reports; it is not a wrist camera '
            'to act on.'
        )
    return f'Whether {model} was trained on scenes like these is stated in its model card.'


def _write_plots(recording: Recording, quality: Quality | None, folder: Path) -> None:
    seconds = recording.seconds()
    plots.latency_plot(seconds, recording.series('age'), recording.series('latency'), folder / 'latency.svg')
    trusted = (recording.series(key) for key in ('coverage', 'confidence', 'agreement', 'valid'))
    plots.trust_plot(seconds, *trusted, folder / 'trust.svg')
    if quality:
        plots.quality_plot(quality, folder / 'quality.svg')


def _write_page(recording: Recording, quality: Quality | None, figures: RunFigures, folder: Path) -> Path:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    header, rows = quality.table.cells() if quality else ([], [])
    template = environment.get_template('report.html.j2')
    page = folder / PAGE
    page.write_text(
        template.render(
            head=recording.head, live=figures, quality=quality, trust=trust(recording, quality, figures), header=header,
            rows=rows, generated=quality.live if quality else '', mode=live_mode_of(recording), modes=mode_figures(recording), counters=_counters(figures), video=VIDEO, sheet=SHEET,
            poster=POSTER, made=recording.head.get('date', time.strftime('%Y-%m-%d %H:%M')),
            settings=recording.head.get('settings', {}), machine=recording.head.get('machine', {}),
        )
    )  # fmt: skip
    return page


def _counters(figures: RunFigures) -> list[tuple[str, int]]:
    """The node's counters in words; zeros of what should not happen are shown too."""
    c = figures.counters
    bad = sum(v for k, v in c.items() if k.startswith('images_bad_') or k == 'images_over_limit')
    unmatched = sum(c.get(f'images_{how}', 0) for how in ('unmatched', 'late', 'pushed_out'))
    words = [
        ('anchor images received', c.get('images_received')), ('anchor images that were unusable', bad),
        ('anchor images without a match in time', unmatched),
        ('anchor sets matched', c.get('sets_matched')), ('anchor sets used', c.get('sets_used')),
        ('anchor sets replaced by a newer one', c.get('sets_replaced')),
        ('wrist frames published', c.get('frames_published')), ('wrist frames invalid', c.get('frames_invalid')),
        ('messages that could not be published', c.get('publish_errors')), ('failures of the model', c.get('model_errors')),
        ('resets of the stream', c.get('resets')),
    ]  # fmt: skip
    return [(word, value) for word, value in words if value is not None] if c else []


def _write_frames(recording: Recording, psnr: dict[int, float], path: Path) -> None:
    """Every wrist frame as a row of a CSV file."""
    columns = (
        'stamp_ns',
        'seconds',
        'age_s',
        'latency_s',
        'coverage',
        'confidence',
        'agreement',
        'valid',
        'status',
        'psnr_db',
        'reason',
    )
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for seconds, v in zip(recording.seconds(), recording.views, strict=True):
            value = psnr.get(v['stamp_ns'])
            writer.writerow([
                v['stamp_ns'], f'{seconds:.3f}', f'{v["age"]:.4f}', f'{v["latency"]:.4f}', f'{v["coverage"]:.4f}',
                f'{v["confidence"]:.4f}', f'{v["agreement"]:.4f}', int(v['valid']), v['status'], '' if value is None else f'{value:.2f}', v['reason'],
            ])  # fmt: skip
