import csv
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from wristworld_ros.apps.demo.measures import GENERATED, OWN_WARP, measure_quality, mode_figures, summarise
from wristworld_ros.apps.demo.report import render_report, trust
from wristworld_ros.data.recording import Recording

spec = importlib.util.spec_from_file_location('demo_conftest', Path(__file__).with_name('conftest.py'))
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ('src', 'href', 'poster')]


@pytest.fixture
def report(recorded, tmp_path):
    mean = np.full((32, 32, 3), 128, np.uint8)
    return render_report(recorded, tmp_path / 'report', mean, progress=False)


def test_the_page_refers_only_to_files_beside_it(report):
    links = Links()
    links.feed(report.read_text())
    assert {'side_by_side.mp4', 'poster.png', 'contact_sheet.png', 'quality.svg', 'trust.svg', 'latency.svg'} <= set(
        links.found
    )
    assert all((report.parent / link).is_file() for link in links.found)


def test_the_page_escapes_what_it_is_told(report):
    assert 'sim_tiny &lt;b&gt;' in report.read_text()


def test_the_video_is_h264_yuv420p_with_a_frame_a_tenth_of_a_second(report):
    with av.open(str(report.parent / 'side_by_side.mp4')) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == 'h264' and stream.pix_fmt == 'yuv420p'
        assert stream.average_rate == 10
        assert sum(1 for _ in file.decode(stream)) == 12


def test_the_contact_sheet_shows_the_true_wrist_in_its_last_column(report):
    sheet = cv2.imread(str(report.parent / 'contact_sheet.png'))
    poster = cv2.imread(str(report.parent / 'poster.png'))
    assert sheet.shape[1] == poster.shape[1] and sheet.shape[0] > 3 * poster.shape[0]
    assert poster[100:250, -200:-40].std() > 20


def test_the_table_holds_generated_and_baselines_on_the_same_frames(report):
    table = json.loads((report.parent / 'table.json').read_text())
    assert list(table['summary']) == [
        'generated',
        'warp of own geometry + inpainting',
        'copy of an anchor',
        'mean wrist image',
        'true wrist',
    ]
    assert table['summary']['generated']['psnr']['mean'] > 30
    assert table['head']['frames'].startswith('12,')


def test_every_frame_is_in_the_csv_with_its_status_and_psnr(report):
    with open(report.parent / 'frames.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert all(float(row['psnr_db']) > 30 for row in rows)
    assert [row['status'] for row in rows if row['valid'] == '0'] == 2 * ['LOW_COVERAGE']


def test_without_a_true_wrist_there_are_no_quality_rows_and_a_warning(tmp_path):
    head = made.HEAD | {'source': 'videos'}
    page = render_report(made.write_recording(tmp_path / 'r', truth=False, head=head), tmp_path / 'out', progress=False)
    text = re.sub(r'\s+', ' ', page.read_text())
    assert 'do not rely on these images' in text
    assert 'was trained on a simulated Franka arm only' in text
    assert not (page.parent / 'quality.svg').exists() and 'PSNR' not in text
    assert json.loads((page.parent / 'report.json').read_text())['quality'] is None


@pytest.mark.parametrize('count', [1, 3])
def test_any_number_of_anchors_is_laid_out(tmp_path, count):
    folder = made.write_recording(tmp_path / 'r', anchors=tuple(f'view{i}' for i in range(count)))
    page = render_report(folder, tmp_path / 'out', progress=False)
    assert cv2.imread(str(page.parent / 'poster.png')).shape[1] > 300 * count


def test_invalid_frames_are_counted_by_their_status_with_an_example_of_each(tmp_path):
    statuses = ('STALE', 'LOW_COVERAGE', 'STALE')
    folder = made.write_recording(tmp_path / 'r', invalid=(3, 4, 5, 6), statuses=statuses)
    figures = summarise(Recording(folder))
    assert figures.invalid == 4
    assert figures.invalid_statuses == {'STALE': 3, 'LOW_COVERAGE': 1}
    assert figures.examples == {
        'STALE': 'Only 5% are covered; more is wanted.',
        'LOW_COVERAGE': 'Only 4% are covered; more is wanted.',
    }
    text = ' '.join(trust(Recording(folder), None, figures)['text'])
    assert '4 of 12 frames were invalid, most often for stale (3 frames), e.g. "Only 5% are covered' in text


def test_the_run_is_summarised_with_its_rate_and_the_nodes_counters(recorded):
    figures = summarise(Recording(recorded))
    assert figures.counters['sets_used'] == 11
    assert figures.rate == pytest.approx(10)


def test_images_that_lose_against_a_baseline_are_called_poor(recorded):
    recording = Recording(recorded)
    quality = measure_quality(recording)
    assert trust(recording, quality, summarise(recording))['level'] != 'poor'
    quality.table.rows[OWN_WARP][0]['psnr'] = quality.table.rows[GENERATED][0]['psnr'] + 1
    assert trust(recording, quality, summarise(recording))['level'] == 'poor'


def test_images_that_came_too_late_are_called_so_however_good_they_are(tmp_path):
    folder = made.write_recording(tmp_path / 'r', invalid=range(8), statuses=('STALE',))
    recording = Recording(folder)
    judged = trust(recording, measure_quality(recording), summarise(recording))
    assert judged['level'] == 'poor' and 'too late' in judged['headline']


def test_a_blur_is_called_poor_whatever_its_psnr(recorded):
    recording = Recording(recorded)
    quality = measure_quality(recording)
    quality.table.rows[GENERATED][0]['sharpness'] = 0.05
    assert trust(recording, quality, summarise(recording))['level'] == 'poor'


@pytest.fixture
def several(tmp_path):
    """A recording of which other modes were made afterwards, the less is told the worse, with objects in the true images."""
    folder = made.write_recording(tmp_path / 'recording', head=made.HEAD | {'mode': 'rgbd'})
    for i in range(made.FRAMES):
        stamp = made.BASE + i * 100_000_000
        true = made.coarse_image(i, 32, 32)
        objects = np.zeros((64, 64, 3), np.uint8)  # at a size of its own
        objects[16:32, 24:48] = 1
        images = {'wrist_rgb': true[::-1], 'wrist_calibrated': np.roll(true, 6, 1), 'true_objects': objects}
        for stream, image in images.items():
            (folder / stream).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / stream / f'{stamp}.png'), image[..., ::-1])
        for mode, status in (('rgb', 'VALID'), ('calibrated', 'ANCHORS_DISAGREE' if i < 3 else 'VALID')):
            record = {'stamp_ns': stamp, 'status': status, 'coverage': 0.5, 'latency': 0.1}
            with open(folder / f'views_{mode}.jsonl', 'a') as file:
                file.write(json.dumps(record) + '\n')
    return folder


def test_each_mode_has_the_share_of_its_frames_that_are_valid_but_for_their_age(several):
    figures = mode_figures(Recording(several))
    assert list(figures) == ['rgb', 'calibrated', 'rgbd']
    assert [round(each.valid, 3) for each in figures.values()] == [1.0, 0.75, 0.833]
    assert (figures['rgb'].coverage, figures['rgb'].model_p50) == (0.5, 0.1)


def test_the_modes_of_a_recording_stand_side_by_side_in_table_page_and_pictures(several, tmp_path):
    page = render_report(several, tmp_path / 'report', progress=False)
    table = json.loads((page.parent / 'table.json').read_text())['summary']
    assert list(table)[:4] == [
        'RGB: generated',
        'CALIBRATED: generated',
        'RGBD: generated',
        'RGBD: filled condition map',
    ]
    assert table['RGBD: generated']['found']['mean'] == 1 > table['RGB: generated']['found']['mean']
    assert table['RGBD: generated']['psnr']['mean'] > 30 > table['CALIBRATED: generated']['psnr']['mean']
    text = re.sub(r'\s+', ' ', page.read_text())
    assert 'Told less, the same model made of the same sets: RGB' in text and '100% (RGBD)' in text
    assert 'computed afterwards' in text
    poster = cv2.imread(str(page.parent / 'poster.png'))
    assert poster.shape[0] > 2 * 272 and poster.shape[1] < 1300
    sheet = cv2.imread(str(page.parent / 'contact_sheet.png'))
    assert sheet.shape[1] > 2 * 362 + 4 * 272


def test_frames_of_which_a_mode_is_missing_are_measured_in_none(several):
    for path in sorted((several / 'wrist_rgb').iterdir())[:3]:
        path.unlink()
    quality = measure_quality(Recording(several))
    assert len(quality.seconds) == made.FRAMES - 3
    assert all(len(values) == made.FRAMES - 3 for values in quality.psnr.values())
