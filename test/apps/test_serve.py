"""`wristworld serve` as a process: from a node's topics over DDS to a client that knows no ROS, and a clean end."""

import re
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from wristworld_client import FrameStatus, FrameTimeoutError, InvalidFrameError, WristClient
from wristworld_ros.cli import main


@pytest.fixture
def start():
    """Starts the command; returns the process and the address that it printed."""
    running = []

    def run(*arguments):
        process = subprocess.Popen(
            [sys.executable, '-m', 'wristworld_ros.cli', 'serve', '--address', 'tcp:127.0.0.1:0', *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        timer = threading.Timer(200, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        return process, re.search(r'served on (\S+);', line).group(1)

    yield run
    for process in running:
        process.kill()
        process.communicate()


def test_images_go_from_topics_to_a_client_without_ros(start, view_publisher):
    publisher = view_publisher(namespace='/left_arm')
    process, address = start('--namespace', 'left_arm', '--fit', 'openpi_droid', '--max-age', '100')
    publisher.wait_for_reader()
    with WristClient(address) as client:
        with pytest.raises(FrameTimeoutError, match=r'/left_arm/wrist/view|said nothing'):
            client.read_latest()
        publisher.keep_sending(value=42)
        wrist = client.read(timeout=50)
        assert wrist.image.shape == (224, 224, 3) and (wrist.image[112] == 42).all() and not wrist.image[0].any()
        np.testing.assert_allclose(np.linalg.inv(wrist.T_camera_world), publisher.T_base_wrist, atol=1e-9)
        assert client.async_read(timeout=50).stamp_ns >= wrist.stamp_ns
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0 and not err


def test_an_invalid_frame_of_the_node_reaches_the_client_as_its_code_alone(start, view_publisher):
    from wristworld_ros.types import FrameStatus as Theirs

    publisher = view_publisher()
    process, address = start('--max-age', '100')
    publisher.wait_for_reader()
    publisher.keep_sending(status=Theirs.ANCHOR_MOVED)
    with WristClient(address) as client, pytest.raises(InvalidFrameError, match='3 %') as error:
        client.read(timeout=50)
    assert error.value.status is FrameStatus.ANCHOR_MOVED
    process.terminate()
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0 and not err


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--address', 'tcp:0.0.0.0:5650'], 'address.*give tcp:127.0.0.1:PORT'),
        (['--remap', 'wrist/view'], "--remap is 'wrist/view'; give FROM:=TO"),
        (['--max-age', '-1'], 'max_age is -1'),
        (['--fit', 'pi9'], 'invalid choice'),
    ],
)
def test_what_cannot_be_served_is_one_sentence(arguments, words, capsys):
    try:
        status = main(['serve', *arguments])
    except SystemExit as end:  # argparse
        status = end.code
    assert status == 2 and re.search(words, capsys.readouterr().err)


def test_an_address_that_is_taken_ends_the_command():
    with socket.create_server(('127.0.0.1', 0)) as taken:
        address = f'tcp:127.0.0.1:{taken.getsockname()[1]}'
        command = [sys.executable, '-m', 'wristworld_ros.cli', 'serve', '--address', address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'is taken by another program' in done.stderr
    assert done.stdout == ''
