import urllib.request

import numpy as np
import pytest

pytest.importorskip('rerun', reason='rerun-sdk is not installed')


def test_the_live_viewer_serves_a_page_on_loopback_and_takes_images():
    from wristworld_ros.ros.viewer import LiveViewer

    viewer = LiveViewer(('left',))
    try:
        viewer.show_image('wrist', 10**18, np.zeros((8, 8, 3), np.uint8))
        viewer.plot(10**18, {'age': 0.1, 'coverage': 0.5, 'confidence': 0.5})
        with urllib.request.urlopen(viewer.address.split('?')[0], timeout=10) as page:
            assert page.status == 200 and b'html' in page.read(2000).lower()
    finally:
        viewer.close()


def test_a_missing_viewer_is_answered_with_the_install_command(monkeypatch):
    from wristworld_ros import errors
    from wristworld_ros.ros.viewer import LiveViewer

    monkeypatch.setattr(errors.util, 'find_spec', lambda name: None)
    with pytest.raises(errors.MissingPackageError, match=r"pip install 'wristworld-ros\[view\]'"):
        LiveViewer(('left',))
