"""The engine ray: every task once on actors of a cluster, and a killed one changes no byte of a data set."""

import math
import operator
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from wristworld_ros.apps.augment.engine import ATTEMPTS, run_tasks
from wristworld_ros.apps.augment.ray_engine import RayEngine
from wristworld_ros.apps.augment.run import augment, engine_for
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.data.formats.lerobot.writer import WriteSettings, write_lerobot
from wristworld_ros.data.formats.native import CameraTrack, NativeSet, write_episode
from wristworld_ros.errors import UserError
from wristworld_ros.pipeline import save_model, tiny_random_model
from wristworld_ros.settings import StreamSettings

pytest.importorskip('ray', reason='the engine ray needs the package ray: pip install "wristworld-ros[ray]"')

# What a worker does must be importable in another process: functions of the standard library, bound to their first argument.
SQUARE_ROOT = partial(partial, math.sqrt)
DIVIDE_ONE = partial(partial, operator.truediv, 1)
END_PROCESS = partial(partial, os._exit)
LENGTHS = (7, 6, 8, 6)


@pytest.fixture(scope='module')
def cluster():
    """A cluster on this machine, which engines inside find and leave running."""
    with RayEngine() as engine:
        yield engine


def test_every_task_is_done_once_by_any_number_of_actors(cluster):
    with RayEngine() as engine:
        for workers in (1, 3):
            done = list(run_tasks(engine, SQUARE_ROOT, range(7), workers))
            assert sorted(done) == [(task, math.sqrt(task)) for task in range(7)]


def test_a_mistake_of_the_program_is_told_with_its_traceback(cluster):
    with pytest.raises(RuntimeError, match='ZeroDivisionError'):
        list(run_tasks(cluster, DIVIDE_ONE, [0], 1))


def test_a_task_that_ends_its_actor_each_time_ends_the_run(cluster):
    lost = []
    with pytest.raises(UserError, match=rf'Task 5 ended its process {ATTEMPTS} times'):
        list(run_tasks(cluster, END_PROCESS, [5], 2, lambda task, how: lost.append(task)))
    assert lost == [5] * (ATTEMPTS - 1)


def test_a_cluster_without_what_a_worker_needs_is_refused_at_once(cluster):
    with pytest.raises(UserError, match=r'needs 0\.5 GPU, and the Ray cluster has 0'), RayEngine(gpus=0.5):
        pass


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch):
    import ray

    def late(**options):
        raise Exception('The current node timed out during startup.')

    monkeypatch.setattr(ray, 'is_initialized', lambda: False)
    monkeypatch.setattr(ray, 'shutdown', lambda: None)
    monkeypatch.setattr(ray, 'init', late)
    with pytest.raises(UserError, match=r'cannot be started on this machine .*timed out.*--engine local'), RayEngine():
        pass


def test_actors_have_the_device_that_their_share_of_a_gpu_gives_them():
    ray = AugmentSettings(engine='ray')
    assert engine_for(ray, StreamSettings())[0].device == 'cpu'
    assert engine_for(AugmentSettings(engine='ray', gpus=0.25), StreamSettings())[0].device == 'cuda'
    with pytest.raises(UserError, match=r'each worker gets 0\.5 of a GPU'):
        engine_for(AugmentSettings(engine='ray', gpus=0.5), StreamSettings(device='cpu'))


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp('given'), np.random.default_rng(5)
    save_model(tiny_random_model(), folder / 'model')
    for number, frames in enumerate(LENGTHS):
        images = rng.integers(0, 256, (2, frames, 6, 8, 3), dtype=np.uint8).repeat(8, 2).repeat(8, 3)
        K, T = (np.tile(m, (frames, 1, 1)) for m in (np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]), np.eye(4)))
        cameras = [CameraTrack(name, 'anchor', one, K, T) for name, one in zip(('left', 'right'), images, strict=True)]
        write_episode(
            folder / f'episodes/{number}', task='lift', seed=0, fps=10, success=True,
            stamps_ns=np.arange(frames) * 10**8, cameras=cameras,
        )  # fmt: skip
    data = NativeSet(folder / 'episodes')
    write_lerobot(folder / 'set', [partial(data.episode, i) for i in range(len(data))], WriteSettings())
    return folder


def run(given, target, **settings):
    stream = StreamSettings(model=str(given / 'model'), device='cpu', threads=1, min_coverage=0.0)
    return augment(given / 'set', target, AugmentSettings(page=False, knowledge='images', **settings), stream, False)


def content(folder):
    """Bytes of all files but the one that says what the run took."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob('*') if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.endswith('.seconds.json')}


def busy_actors():
    """Processes of actors at a task that descend from this one."""
    found = {}
    for path in Path('/proc').glob('[0-9]*'):
        try:
            parent = int((path / 'stat').read_text().rpartition(')')[2].split()[1])
            found[int(path.name)] = parent, (path / 'cmdline').read_bytes().startswith(b'ray::_Actor.do')
        except OSError:
            continue

    def ours(pid):
        return pid == os.getpid() or (pid in found and ours(found[pid][0]))

    return [pid for pid, (_, is_actor) in found.items() if is_actor and ours(pid)]


def test_a_killed_actor_loses_nothing_and_repeats_nothing(cluster, given, tmp_path, capsys):
    undisturbed, target, killed = tmp_path / 'one', tmp_path / 'two', []
    run(given, undisturbed)

    def kill_one():
        while not list(tmp_path.glob('.two.work/episode_*/result.json')):
            time.sleep(0.02)
        while not killed and not target.exists():
            killed.extend(busy_actors()[:1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    report = run(given, target, engine='ray', workers=2)
    killer.join()
    assert killed and 'its work is done again' in capsys.readouterr().out
    assert [one.episode for one in report.episodes] == list(range(len(LENGTHS)))
    # What the actor had finished when it was killed, before it could say so, is not made twice.
    reused = sum(one.reused for one in report.episodes)
    assert report.made + reused == len(LENGTHS) and reused <= 1
    assert content(target) == content(undisturbed)
