"""A live view in the browser, by rerun: anchors, condition map, generated and true wrist, latency and trust."""

from __future__ import annotations

import socket
from urllib.parse import quote

import numpy as np

from wristworld_ros.data.recording import CONDITION, TRUE_WRIST, WRIST

TITLES = {CONDITION: 'condition map', WRIST: 'generated wrist', TRUE_WRIST: 'true wrist'}


class LiveViewer:
    """Serves rerun's viewer from this process; nothing opens by itself. Pictures go uncompressed: they are small, and a
    browser that is busy may never come to decode the newest. The page itself tries to tell its makers that it was opened
    (rerun's own telemetry) and works without an answer.

    anchors: names of the anchor cameras. address: what to open in a browser.
    Raises ModuleNotFoundError, with the install command, where rerun is missing.
    """

    def __init__(self, anchors: tuple[str, ...], web_port: int = 9090, grpc_port: int = 9876):
        try:
            import rerun as rr
            import rerun.blueprint as rrb
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "The live viewer needs rerun-sdk, which is not installed: pip install 'wristworld-ros[view]'."
            ) from None
        self._rr = rr
        web_port, grpc_port = _free(web_port), _free(grpc_port)
        names = [f'anchor_{a}' for a in anchors]
        picture = [rrb.Spatial2DView(origin=n, name=n.replace('_', ' ')) for n in names]
        wrist = [rrb.Spatial2DView(origin=n, name=title) for n, title in TITLES.items()]
        series = [
            rrb.TimeSeriesView(origin='latency_ms', name='stamp to picture, ms'),
            rrb.TimeSeriesView(origin='trust', name='coverage and confidence'),
        ]
        layout = rrb.Blueprint(
            rrb.Vertical(
                rrb.Horizontal(*picture), rrb.Horizontal(*wrist), rrb.Horizontal(*series), row_shares=[3, 3, 1]
            ),
            collapse_panels=True,
        )
        rr.init('wristworld_ros')
        server = rr.serve_grpc(
            grpc_port=grpc_port, default_blueprint=layout, server_memory_limit='256MB', newest_first=True
        )
        rr.serve_web_viewer(web_port=web_port, open_browser=False, connect_to=server)
        self.address = f'http://localhost:{web_port}/?url={quote(server, safe="")}'

    def picture(self, stream: str, stamp_ns: int, rgb: np.ndarray) -> None:
        """Show uint8 [H, W, 3]."""
        self._rr.set_time('stamp', timestamp=np.datetime64(stamp_ns, 'ns'))
        self._rr.log(stream, self._rr.Image(rgb))

    def numbers(self, stamp_ns: int, record: dict) -> None:
        """Plot the age in ms, coverage and confidence of a wrist frame."""
        rr = self._rr
        rr.set_time('stamp', timestamp=np.datetime64(stamp_ns, 'ns'))
        rr.log('latency_ms', rr.Scalars(record['age'] * 1e3))
        rr.log('trust/coverage', rr.Scalars(record['coverage']))
        rr.log('trust/confidence', rr.Scalars(record['confidence']))

    def close(self) -> None:
        """Stop serving."""
        self._rr.disconnect()


def _free(port: int) -> int:
    """That port of the loopback, or some free one where it is taken."""
    for wanted in (port, 0):
        with socket.socket() as probe:
            try:
                probe.bind(('127.0.0.1', wanted))
                return probe.getsockname()[1]
            except OSError:
                continue
    return port
