"""A live view in the browser, by rerun: anchors, condition map, generated and true wrist, latency, coverage and confidence."""

from __future__ import annotations

import socket
from urllib.parse import quote

import numpy as np

from wristworld_ros.data.recording import CONDITION, TRUE_WRIST, WRIST
from wristworld_ros.errors import require_package

TITLES = {CONDITION: 'condition map', WRIST: 'generated wrist', TRUE_WRIST: 'true wrist'}


class LiveViewer:
    """Serves rerun's viewer from this process; nothing opens by itself.

    Images go uncompressed: they are small, and a browser that is busy may never get to decode the newest. The page itself
    tries to report to rerun that it was opened (its telemetry) and works without an answer.

    Args:
        anchors: Names of the anchor cameras.
        web_port: Where the page is served; a free port where it is taken.
        grpc_port: Where its data is served; likewise.

    Attributes:
        address: What to open in a browser.

    Raises:
        MissingPackageError: rerun is not installed.
    """

    def __init__(self, anchors: tuple[str, ...], web_port: int = 9090, grpc_port: int = 9876):
        require_package('rerun', 'view', 'The live viewer')
        import rerun as rr
        import rerun.blueprint as rrb

        self._rr = rr
        web_port, grpc_port = _free(web_port), _free(grpc_port)
        names = [f'anchor_{a}' for a in anchors]
        anchor_views = [rrb.Spatial2DView(origin=n, name=n.replace('_', ' ')) for n in names]
        wrist = [rrb.Spatial2DView(origin=n, name=title) for n, title in TITLES.items()]
        series = [
            rrb.TimeSeriesView(origin='latency_ms', name='stamp to image, ms'),
            rrb.TimeSeriesView(origin='verdict', name='coverage and confidence'),
        ]
        layout = rrb.Blueprint(
            rrb.Vertical(
                rrb.Horizontal(*anchor_views), rrb.Horizontal(*wrist), rrb.Horizontal(*series), row_shares=[3, 3, 1]
            ),
            collapse_panels=True,
        )
        rr.init('wristworld_ros')
        server = rr.serve_grpc(
            grpc_port=grpc_port, default_blueprint=layout, server_memory_limit='256MB', newest_first=True
        )
        rr.serve_web_viewer(web_port=web_port, open_browser=False, connect_to=server)
        self.address = f'http://localhost:{web_port}/?url={quote(server, safe="")}'

    def show_image(self, stream: str, stamp_ns: int, rgb: np.ndarray) -> None:
        """Show uint8 [H, W, 3]."""
        self._rr.set_time('stamp', timestamp=np.datetime64(stamp_ns, 'ns'))
        self._rr.log(stream, self._rr.Image(rgb))

    def plot(self, stamp_ns: int, record: dict) -> None:
        """Plot the age in ms, coverage and confidence of a wrist frame."""
        rr = self._rr
        rr.set_time('stamp', timestamp=np.datetime64(stamp_ns, 'ns'))
        rr.log('latency_ms', rr.Scalars(record['age'] * 1e3))
        rr.log('verdict/coverage', rr.Scalars(record['coverage']))
        rr.log('verdict/confidence', rr.Scalars(record['confidence']))

    def close(self) -> None:
        """Stop serving."""
        self._rr.disconnect()


def _free(port: int) -> int:
    """That port of the loopback interface, or a free one where it is taken."""
    for wanted in (port, 0):
        with socket.socket() as probe:
            try:
                probe.bind(('127.0.0.1', wanted))
                return probe.getsockname()[1]
            except OSError:
                continue
    return port
