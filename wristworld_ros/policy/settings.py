"""What `wristworld serve` asks for; apart from `bridge.py`, so that the command line starts without torch."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.setting import setting

FIT_NAMES = ('none', 'openpi_droid', 'octo')


@dataclass(frozen=True)
class BridgeSettings:
    """Which wrist camera is served, where, and how."""

    address: str = setting(
        'tcp:127.0.0.1:5650',
        'Where programs connect: tcp:HOST:PORT on loopback (port 0 takes a free one), or unix:PATH, which only this user can open.',
        pattern=r'tcp:(127(\.\d{1,3}){3}|localhost|\[::1\]):\d{1,5}|unix:.+',
        described='tcp:127.0.0.1:PORT, tcp:[::1]:PORT or unix:PATH',
    )
    namespace: str = setting('', 'Namespace of the virtual_wrist node, as in left_arm.')
    node: str = setting('virtual_wrist', 'Name of the node.')
    max_age: float = setting(
        0.5, 'The oldest image that is ever given, seconds from its stamp.', low=0.001, high=3600.0
    )
    fit: str = setting(
        'none',
        'For which policy images are brought to size: openpi_droid (224x224 in a letterbox), octo (128x128), or none (as they come).',
        choices=FIT_NAMES,
    )
    clients: int = setting(8, 'Connections at a time.', low=1, high=256)
    use_sim_time: bool = setting(False, 'Whether stamps are those of /clock.')
