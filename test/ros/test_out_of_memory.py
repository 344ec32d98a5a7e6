"""Memory that runs out and a GPU that is lost, in the node over real DDS."""

import time

import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import GetState
from sensor_msgs.msg import Image

from wristworld_ros.msg import VirtualWristStatus, WristView
from wristworld_ros.pipeline import memory_check
from wristworld_ros.ros import model_loading
from wristworld_ros.ros.conversions import to_ns

LOST = 'CUDA error: unspecified launch failure\nCUDA kernel errors might be reported at some other API call'


def full():
    return torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 MiB free.')


def lost():
    return RuntimeError(LOST)


def fail(monkeypatch, module, error, times):
    """The module's forward raises so many times; returns what is left of them."""
    left, forward = [times], module.forward

    def sometimes(*args, **kwargs):
        if left[0]:
            left[0] -= 1
            raise error()
        return forward(*args, **kwargs)

    monkeypatch.setattr(module, 'forward', sometimes)
    return left


def running(stage, **settings):
    """An active stage that has made frames, and the lists of its images and diagnostics."""
    s = stage(publish_invalid=True, **settings).camera('left', 'right')
    images, diagnostics = s.listen(Image, 'wrist/image_raw'), s.listen(DiagnosticArray, '/diagnostics')
    s.activate().send_until(lambda: images)
    return s, images, diagnostics


@pytest.mark.parametrize('part', ['stage1', 'transformer'])
def test_memory_that_runs_out_costs_a_frame_and_a_step_and_both_are_reported(stage, monkeypatch, part):
    s, images, diagnostics = running(stage)
    views, statuses = s.listen(WristView, 'wrist/view'), s.listen(VirtualWristStatus, 'virtual_wrist/status')
    s.spin(0.3)
    model = s.node.stream.model
    left = fail(monkeypatch, model.stage1 if part == 'stage1' else model.generator.transformer, full, 1)
    s.send_until(lambda: not left[0] and any(v.status != WristView.VALID for v in views))
    seen = len(images)
    s.send_until(lambda: len(images) > seen + 3)
    bad = [v for v in views if v.status != WristView.VALID]
    assert all(v.status == WristView.OUT_OF_MEMORY for v in bad)
    assert all('ran out' in v.reason and 'history 2 instead of 4' in v.reason for v in bad)
    assert not {to_ns(v.header.stamp) for v in bad} & {to_ns(m.header.stamp) for m in images}
    assert s.node.stream.oom_fallback.applied == ('history',)
    assert s.node.status().frames_invalid == s.node.status().model_errors == len(bad) == 1
    warned = [d.status[0] for d in diagnostics if d.status[0].level == DiagnosticStatus.WARN]
    if not any('history 2' in w.message for w in warned):
        s.send_until(
            lambda: any(
                'history 2' in d.status[0].message and d.status[0].level == DiagnosticStatus.WARN for d in diagnostics
            )
        )
    assert {v.key: v.value for v in diagnostics[-1].status[0].values}['oom_steps_applied'] == 'history'
    s.send_until(lambda: 'history 2' in statuses[-1].reason)
    assert len(s.warnings('ran out')) == 1


def test_when_nothing_is_left_to_give_up_the_node_goes_on_trying(stage, monkeypatch):
    s, images, _ = running(stage, on_out_of_memory=[])
    left = fail(monkeypatch, s.node.stream.model.generator.transformer, full, 3)
    s.send_until(lambda: not left[0])
    seen = len(images)
    s.send_until(lambda: len(images) > seen + 3)
    assert s.node.status().model_errors == s.node.status().frames_invalid == 3
    assert s.warnings('nothing more to give up') and s.node.status().state == VirtualWristStatus.ACTIVE


def test_memory_that_cannot_suffice_is_reported_before_weights_are_loaded_and_may_be_fixed(stage, monkeypatch):
    monkeypatch.setattr(memory_check, 'free_ram', lambda: 2**20)
    loaded = []
    load_model = model_loading.load_model
    monkeypatch.setattr(model_loading, 'load_model', lambda *args: (loaded.append(args), load_model(*args))[1])
    s = stage()
    assert not s.node.autostart()
    status = s.node.status()
    assert loaded == [] and status.state == VirtualWristStatus.UNCONFIGURED
    assert '1.0 MiB are free' in status.reason and 'history' in status.reason and '\n' not in status.reason
    s.spin_until(lambda: s.warnings('of RAM'))
    monkeypatch.setattr(memory_check, 'free_ram', lambda: 2**40)
    assert s.node.autostart() and len(loaded) == 1


def test_memory_that_runs_out_in_warming_up_takes_steps_and_without_any_left_fails_configure(stage, monkeypatch):
    load_model, failures = model_loading.load_model, [2]

    def short(*args):
        model = load_model(*args)
        fail(monkeypatch, model.generator.transformer, full, failures[0])
        return model

    monkeypatch.setattr(model_loading, 'load_model', short)
    s = stage()
    assert s.node.autostart() and s.node.stream.history == 1 and s.node.settings.history == 4
    s.node.trigger_deactivate()
    s.node.trigger_cleanup()
    failures[0] = 5
    assert not s.node.autostart()
    assert (
        'nothing more to give up' in s.node.status().reason and s.node.status().state == VirtualWristStatus.UNCONFIGURED
    )


@pytest.mark.parametrize('part', ['stage1', 'transformer'])
def test_a_lost_gpu_ends_in_finalized_and_the_node_says_why_and_still_answers(stage, monkeypatch, part):
    s, images, diagnostics = running(stage)
    client = s.peer.create_client(GetState, 'virtual_wrist/get_state')
    model = s.node.stream.model
    fail(monkeypatch, model.stage1 if part == 'stage1' else model.generator.transformer, lost, 10**6)
    s.send_until(lambda: s.node.status().state == VirtualWristStatus.FINALIZED)
    s.spin(0.3)
    images.clear()
    for _ in range(5):
        s.send_set()
        s.spin(0.03)
    assert images == []
    s.spin_until(lambda: any('GPU is lost' in d.status[0].message for d in diagnostics))
    told = diagnostics[-1].status[0]
    assert told.level == DiagnosticStatus.ERROR and 'unspecified launch failure' in told.message
    assert '\n' not in told.message and 'start the node again' in told.message
    assert s.node.status().reason == told.message and s.node.status().model_errors >= 1
    s.spin_until(lambda: s.warnings('GPU is lost'))
    assert len(s.warnings('GPU is lost')) == 1
    answer = client.call_async(GetState.Request())
    s.spin_until(answer.done)
    assert answer.result().current_state.label == 'finalized'
    start = time.monotonic()
    assert s.node.stop()
    assert time.monotonic() - start < 2


def test_a_gpu_that_is_lost_while_the_model_loads_ends_in_finalized(stage, monkeypatch):
    def load(*args):
        raise lost()

    monkeypatch.setattr('wristworld_ros.ros.virtual_wrist_node.load_stream', load)
    s = stage()
    assert not s.node.autostart()
    s.spin(0.3)
    assert s.node.status().state == VirtualWristStatus.FINALIZED and 'GPU is lost' in s.node.status().reason
    assert len(s.warnings('GPU is lost')) >= 1


def test_a_gpu_that_is_lost_in_delivering_a_frame_is_noticed(stage, monkeypatch):
    s, _, _ = running(stage)

    def publish(*args):
        raise lost()

    monkeypatch.setattr(s.node.wrist_publisher, 'publish', publish)
    s.send_until(lambda: s.node.status().state == VirtualWristStatus.FINALIZED)


def test_with_exit_on_gpu_loss_the_process_ends_after_it_was_reported(stage, monkeypatch):
    s, _, diagnostics = running(stage, exit_on_gpu_loss=True)
    fail(monkeypatch, s.node.stream.model.stage1, lost, 10**6)
    s.send_until(lambda: any('GPU is lost' in d.status[0].message for d in diagnostics))
    end = time.monotonic() + 5
    while s.node.context.ok():
        assert time.monotonic() < end
        try:
            s.executors[0].spin_once(timeout_sec=0.05)
        except Exception:
            break
    assert not s.node.context.ok() and s.node.exit_status == 3
