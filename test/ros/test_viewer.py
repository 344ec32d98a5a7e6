import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rerun', reason='rerun-sdk is not installed')


def test_the_live_viewer_serves_a_page_on_loopback_and_takes_images():
    from wristworld_ros.ros.viewer import LiveViewer

    viewer = LiveViewer(('left',))
    try:
        viewer.show_image('wrist', 10**18, np.zeros((8, 8, 3), np.uint8))
        viewer.plot(10**18, {'age': 0.1, 'coverage': 0.5, 'confidence': 0.5, 'agreement': 0.9})
        with urllib.request.urlopen(viewer.address.split('?')[0], timeout=10) as page:
            assert page.status == 200 and b'html' in page.read(2000).lower()
    finally:
        viewer.close()


def listening(pid):
    """Addresses, in the kernel's hexadecimal form, that a process listens on."""
    sockets = set()
    for entry in Path(f'/proc/{pid}/fd').iterdir():
        try:
            sockets.add(os.readlink(entry).removeprefix('socket:[').rstrip(']'))
        except OSError:
            continue
    rows = [
        row.split() for name in ('tcp', 'tcp6') for row in Path(f'/proc/{pid}/net/{name}').read_text().splitlines()[1:]
    ]
    return {row[1].split(':')[0] for row in rows if row[3] == '0A' and row[9] in sockets}


def test_page_and_data_are_served_on_loopback_alone_unless_told_otherwise():
    from wristworld_ros.ros.viewer import LiveViewer

    for bind, kernel in (('127.0.0.1', '0100007F'), ('0.0.0.0', '00000000')):
        viewer = LiveViewer(('left',), bind=bind)
        try:
            assert listening(viewer._server.pid) == {kernel}
            assert not listening(os.getpid()) & {'00000000', '0' * 32}
            assert viewer.listens_on.startswith(f'{bind}, ports ')
        finally:
            viewer.close()
        assert viewer._server.poll() is not None


def test_the_server_ends_with_a_recorder_that_is_killed():
    program = (
        'import time\nfrom wristworld_ros.ros.viewer import LiveViewer\n'
        "print(LiveViewer(('left',))._server.pid, flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
    server = int(process.stdout.readline())
    assert Path(f'/proc/{server}').exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 10
    while Path(f'/proc/{server}').exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f'/proc/{server}').exists()


@pytest.mark.parametrize('bind', ['everywhere', '203.0.113.9'])
def test_an_address_that_is_none_of_this_machine_is_one_sentence(bind):
    from wristworld_ros.errors import UserError
    from wristworld_ros.ros.viewer import LiveViewer

    with pytest.raises(UserError, match=rf'listen on .*{bind}.*give an IP address of this machine'):
        LiveViewer(('left',), bind=bind)


def test_a_missing_viewer_is_answered_with_the_install_command(monkeypatch):
    from wristworld_ros import errors
    from wristworld_ros.ros.viewer import LiveViewer

    monkeypatch.setattr(errors.util, 'find_spec', lambda name: None)
    with pytest.raises(errors.MissingPackageError, match=r"pip install 'wristworld-ros\[view\]'"):
        LiveViewer(('left',))
