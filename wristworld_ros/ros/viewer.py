"""A live view in the browser, by rerun: anchors, condition map, generated and true wrist, latency and what the node says of its frames."""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np

from wristworld_ros.data.recording import CONDITION, TRUE_WRIST, WRIST
from wristworld_ros.errors import UserError, require_package
from wristworld_ros.runtime.children import die_with

TITLES = {CONDITION: 'condition map', WRIST: 'generated wrist', TRUE_WRIST: 'true wrist'}
LOOPBACK = '127.0.0.1'
_START_S = 20.0


class LiveViewer:
    """Serves rerun's viewer; nothing opens by itself, and only this machine can open it unless told otherwise.

    The servers are a process of rerun's own, because its library serves on every network interface, and only its program
    can be told where to listen. Images go uncompressed: they are small, and a browser that is busy may never get to decode
    the newest. The page itself tries to report to rerun that it was opened (its telemetry) and works without an answer.

    Args:
        anchors: Names of the anchor cameras.
        web_port: Where the page is served; a free port where it is taken.
        grpc_port: Where its data is served; likewise.
        bind: IP address of the network interface that both are served on; 0.0.0.0 is every one, for any machine that
            reaches this one. There is no password.

    Attributes:
        address: What to open in a browser.
        listens_on: Address and ports that are served, in words.

    Raises:
        MissingPackageError: rerun is not installed.
        UserError: The address is none of this machine, or rerun does not start.
    """

    def __init__(
        self, anchors: tuple[str, ...], web_port: int = 9090, grpc_port: int = 9876, bind: str = LOOPBACK
    ):  # fmt: skip
        require_package('rerun', 'view', 'The live viewer')
        import rerun as rr
        import rerun.blueprint as rrb

        self._rr = rr
        web_port, grpc_port = _free(web_port, bind), _free(grpc_port, bind)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._server = _serve(web_port, grpc_port, bind, self._log)
        host = _host(bind)
        for port in (web_port, grpc_port):
            self._wait_for(LOOPBACK if ipaddress.ip_address(bind).is_unspecified else bind, port)
        names = [f'anchor_{a}' for a in anchors]
        anchor_views = [rrb.Spatial2DView(origin=n, name=n.replace('_', ' ')) for n in names]
        wrist = [rrb.Spatial2DView(origin=n, name=title) for n, title in TITLES.items()]
        series = [
            rrb.TimeSeriesView(origin='latency_ms', name='stamp to image, ms'),
            rrb.TimeSeriesView(origin='verdict', name='coverage, confidence and agreement'),
        ]
        layout = rrb.Blueprint(
            rrb.Vertical(
                rrb.Horizontal(*anchor_views), rrb.Horizontal(*wrist), rrb.Horizontal(*series), row_shares=[3, 3, 1]
            ),
            collapse_panels=True,
        )
        rr.init('wristworld_ros')
        rr.connect_grpc(f'rerun+http://{host}:{grpc_port}/proxy', default_blueprint=layout)
        self.address = f'http://{host}:{web_port}/?url={quote(f"rerun+http://{host}:{grpc_port}/proxy", safe="")}'
        self.listens_on = f'{bind}, ports {web_port} (page) and {grpc_port} (data)'

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
        rr.log('verdict/agreement', rr.Scalars(record['agreement']))

    def close(self) -> None:
        """Stop serving."""
        self._rr.disconnect()
        self._server.terminate()
        try:
            self._server.wait(5)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._log.close()

    def _wait_for(self, host: str, port: int) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end and self._server.poll() is None:
            try:
                socket.create_connection((host, port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        self._log.seek(0)
        printed = self._log.read().decode(errors='replace').strip().splitlines() or ['it printed nothing']
        self._server.kill()
        self._server.wait()
        self._log.close()
        raise UserError(
            f'The live viewer does not start ({printed[-1].rstrip(".")})', 'reinstall rerun-sdk, or leave --view out'
        )


def _serve(web_port: int, grpc_port: int, bind: str, log) -> subprocess.Popen:
    """rerun's servers, as a process that ends with this one."""
    import rerun_cli

    command = [
        str(Path(rerun_cli.__file__).parent / 'rerun'), '--serve-web', '--bind', bind, '--port', str(grpc_port),
        '--web-viewer-port', str(web_port), '--server-memory-limit', '256MB', '--newest-first',
    ]  # fmt: skip
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            preexec_fn=functools.partial(die_with, os.getpid()),
        )  # fmt: skip
    except OSError as error:
        raise UserError(f'{command[0]} cannot be started ({error.strerror})', 'reinstall rerun-sdk') from None


def _host(bind: str) -> str:
    """What a browser calls an address: this machine's name where every interface is served."""
    address = ipaddress.ip_address(bind)
    if address.is_unspecified:
        return socket.gethostname()
    return f'[{bind}]' if address.version == 6 else bind


def _free(port: int, bind: str) -> int:
    """That port of an address of this machine, or a free one where it is taken."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(bind).version == 6 else socket.AF_INET
    except ValueError:
        raise UserError(f'The live viewer is to listen on {bind!r}', 'give an IP address of this machine') from None
    refused: OSError | None = None
    for wanted in (port, 0):
        with socket.socket(family) as probe:
            try:
                probe.bind((bind, wanted))
                return probe.getsockname()[1]
            except OSError as error:
                refused = error
    raise UserError(
        f'The live viewer cannot listen on {bind} ({refused and refused.strerror})',
        'give an IP address of this machine',
    )
