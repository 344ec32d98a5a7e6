"""`wristworld augment --plan`: hours, storage and cost follow from what a finished set measured, and assumptions are named."""

import json

import pytest

from wristworld_ros.apps.augment.plan import make_plan, measured, plan_text
from wristworld_ros.apps.augment.settings import PlanSettings
from wristworld_ros.cli import main
from wristworld_ros.errors import UserError

KEY = 'observation.images.wrist_virtual'


@pytest.fixture
def finished(tmp_path):
    """A set as a run leaves it: 2 episodes of 50 frames, 5 s of one worker for each, 12 s for all, 200 kB of video."""
    place = tmp_path / 'set/meta/wristworld'
    place.mkdir(parents=True)
    video = tmp_path / f'set/videos/{KEY}/chunk-000/file-000.mp4'
    video.parent.mkdir(parents=True)
    video.write_bytes(bytes(200_000))
    took = {
        'machine': {'processor': 'a CPU, 2 cores'}, 'engine': 'local', 'workers': 1, 'seconds': 12.0, 'episodes_made': 2, 'frames_made': 100,
        'episodes': [{'episode': i, 'seconds': 5.0, 'made': True} for i in range(2)],
    }  # fmt: skip
    (place / 'wrist_virtual.seconds.json').write_text(json.dumps(took))
    manifest = {
        'model': {'name': 'small'}, 'device': 'cpu', 'settings': {'batch': 1}, 'totals': {'episodes': 2, 'frames': 100},
    }  # fmt: skip
    (place / 'wrist_virtual.json').write_text(json.dumps(manifest))
    return tmp_path / 'set'


def test_what_was_measured_is_per_frame_and_start_and_end_are_apart(finished):
    found = measured(finished, KEY)
    assert (found.frames, found.ms, found.frame_bytes, found.load_seconds) == (50, 100, 2000, 2)


def test_hours_fall_with_gpus_and_the_cost_is_that_of_all_hours(finished):
    found = measured(finished, KEY)
    plan = make_plan(found, PlanSettings(plan=72_000, plan_frames=250.0, plan_price=2.0))
    assert plan.frames == 18_000_000 and plan.worker_hours == pytest.approx(500)
    assert plan.gigabytes == pytest.approx(18e6 * (2000 + 341) / 1e9)
    hours = {count: each for count, each, _ in plan.rows}
    assert hours[1] == pytest.approx(500, abs=0.01) and hours[8] == pytest.approx(62.5, abs=0.01)
    assert all(cost == pytest.approx(1000, abs=0.2) for _, _, cost in plan.rows)
    faster = make_plan(found, PlanSettings(plan=72_000, plan_frames=250.0, plan_ms=10.0, plan_workers=2))
    assert faster.worker_hours == pytest.approx(50) and faster.rows[0][1] == pytest.approx(25, abs=0.01)


def test_the_text_says_what_was_measured_and_what_is_assumed(finished):
    text = plan_text(measured(finished, KEY), PlanSettings(plan=10, plan_ms=4.0))
    assert 'small, cpu (a CPU, 2 cores)' in text and 'which was not measured here' in text and '--plan-frames' in text


def test_the_command_prints_it_and_makes_nothing(finished, capsys):
    before = sorted(finished.rglob('*'))
    assert main(['augment', str(finished.parent / 'source'), str(finished), '--plan', '76000']) == 0
    assert '76,000 episodes' in capsys.readouterr().out and sorted(finished.rglob('*')) == before


def test_a_set_that_measured_nothing_is_refused(finished, tmp_path):
    with pytest.raises(UserError, match='nothing was measured'):
        measured(tmp_path / 'other', KEY)
    place = finished / 'meta/wristworld/wrist_virtual.seconds.json'
    took = json.loads(place.read_text())
    took['episodes'] = [one | {'made': False} for one in took['episodes']]
    place.write_text(json.dumps(took))
    with pytest.raises(UserError, match='measured nothing'):
        measured(finished, KEY)
