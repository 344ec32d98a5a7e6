"""The study of students: every row is measured, the student's videos are its stream's, and drift compares round trips."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.evaluation.knowledge import LEVELS
from wristworld_ros.evaluation.sim_fvd import ClipNetwork
from wristworld_ros.evaluation.studies import students
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.pipeline import VirtualWrist, save_model, tiny_random_model
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.settings import StreamSettings

FRAMES = 12


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """An episode, a teacher, its student and weights of sim-FVD."""
    folder, rng = tmp_path_factory.mktemp('students'), np.random.default_rng(0)

    def camera(name, role, size):
        K = np.tile(np.array([[size, 0, size / 2 - 0.5], [0, size, size / 2 - 0.5], [0, 0, 1.0]]), (FRAMES, 1, 1))
        images = rng.integers(0, 256, (FRAMES, size // 8, size // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        if role == 'wrist':  # it stands still, so that flicker has a meaning
            images[:] = images[0]
        shown = np.zeros(images.shape[:3], np.uint8)
        shown[:, 8:20, 8:20] = 1
        return CameraTrack(
            name, role, images, K, np.tile(np.eye(4), (FRAMES, 1, 1)), None, shown if role == 'wrist' else None
        )

    cameras = [camera('left', 'anchor', 48), camera('right', 'anchor', 48), camera('wrist', 'wrist', 32)]
    for i in range(2):
        write_episode(
            folder / f'episodes/{i:06d}', task='none', seed=i, fps=10, success=True, stamps_ns=np.arange(1, FRAMES + 1) * 10**8,
            cameras=cameras,
        )  # fmt: skip
    teacher = tiny_random_model()
    save_model(teacher, folder / 'teacher')
    config = teacher.config.generator | {'sampler': {'kind': 'renoise', 'timesteps': [1000, 500]}, 'sampling_steps': 2}
    generator = WristGenerator.from_config(config)
    generator.load_state_dict(teacher.generator.state_dict())
    save_model(
        WristModel(replace(teacher.config, generator=config), teacher.stage1, generator, 'cpu'), folder / 'student'
    )
    torch.manual_seed(0)
    save_file(dict(ClipNetwork().state_dict()), folder / 'fvd.safetensors')
    return folder


def test_every_row_of_the_table_is_measured(folder, capsys):
    students.main(
        [
            str(folder / 'episodes'), '--teacher', str(folder / 'teacher'), '--student', str(folder / 'student'),
            '--teacher-steps', '2', '--student-steps', '2', '1', '--window', '4', '--frames', '44', '--drift-episodes', '1',
            '--sim-fvd', str(folder / 'fvd.safetensors'),
        ]
    )  # fmt: skip
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    cells = [[cell.strip() for cell in row.strip('|').split('|')] for row in rows]
    assert cells[0] == list(students.HEADS)
    assert [row[:2] for row in cells[2:]] == [
        ['teacher, windows', '2'], ['student, stream', '2'], ['student, stream', '1'], ['true video', '-']
    ]  # fmt: skip
    assert all(cell != '-' for row in cells[2:5] for cell in row[2:7]) and cells[2][7] == '-' != cells[3][7]
    assert float(cells[5][6]) == pytest.approx(0, abs=0.01) and cells[5][3].startswith('1.00')


def test_a_students_videos_are_those_of_its_stream(folder):
    model = tiny_random_model()
    (path, *_) = sorted((folder / 'episodes').iterdir())
    episode, settings = students.observe(model, path, LEVELS['rgb']), StreamSettings(steps=1)
    row = students.student_row(model, [episode], settings, 2, [], 0)
    wrist = VirtualWrist(model, replace(settings, seed=1))
    wanted = [frame.image for o in episode.observations for frame in wrist.generate(o)]
    assert len(row.videos) == 2 and np.array_equal(row.videos[1], np.stack(wanted)) and not row.drift
