"""Whether big images get through: Fast DDS's shared memory, and the kernel's socket buffers for what comes by network."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from wristworld_ros.apps.doctor.finding import Finding, error, ok, warning
from wristworld_ros.runtime.units import gib

VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')  # since Kilted, and until Jazzy
PROFILE = 'config/fastdds_shared_memory.xml'
SEGMENT = 512 * 2**10  # Fast DDS's own, bytes
IMAGES = 4  # that a segment should hold: two that are kept, one being written, one being read


def transport_lines(rmw: str, profile: str, rmem_max: int, image: int, cameras: int, local: bool) -> list[Finding]:
    """profile: Fast DDS's file ('' for none). rmem_max: the kernel's limit, bytes (0: not known). image: bytes of the largest
    anchor image. cameras: how many. local: whether discovery stays on this machine."""
    fast = rmw.startswith('rmw_fastrtps')
    lines = [profile_line(profile, image)] if fast else []
    if rmw.startswith('rmw_zenoh') or (fast and local):
        return lines
    if not rmem_max:
        return [*lines, ok('The kernel does not tell its limit on socket buffers (net.core.rmem_max)')]
    burst = cameras * image
    what = f"The kernel's socket buffers may take {gib(rmem_max)} (net.core.rmem_max), a set of {cameras} images {gib(burst)}"
    if rmem_max < burst:
        where = 'that come from other machines' if fast else 'that come through sockets, as with this middleware all do'
        size = max(2 ** (2 * burst - 1).bit_length(), 8 * 2**20)
        return [
            *lines,
            warning(
                f'{what}: images {where} may be lost',
                f'sudo sysctl -w net.core.rmem_max={size} (and in /etc/sysctl.d to keep it), or use transport compressed',
            ),
        ]
    return [*lines, ok(what)]


def profile_line(profile: str, image: int) -> Finding:
    """Of Fast DDS's profile; cameras need one too, since images lie in the sender's memory."""
    use = f'set {VARIABLES[0]} (until Jazzy {VARIABLES[1]}) to {PROFILE} of this package, for cameras too'
    if not profile:
        return warning(f'Fast DDS has no profile; its {gib(SEGMENT)} of shared memory lose big images', use)
    try:
        segments, builtin = read_profile(Path(profile))
    except (OSError, ET.ParseError) as e:
        return error(f"Fast DDS's profile {profile} cannot be read ({e})", use)
    if builtin:
        segments = [*segments, SEGMENT]
    if not segments:
        return warning(f"Fast DDS's profile {profile} has no shared memory", use)
    what = f"Fast DDS's profile {profile}: {gib(max(segments))} of shared memory, images of {gib(image)}"
    if max(segments) < IMAGES * image:
        return warning(f'{what}: room for less than {IMAGES}, so that some are lost', use)
    return ok(f'{what}; let the cameras use it too')


def read_profile(path: Path) -> tuple[list[int], bool]:
    """Sizes of the shared-memory segments in a profile, bytes, and whether Fast DDS's own transports stay beside them."""
    root = ET.parse(path).getroot()
    segments = []
    for transport in root.findall('.//{*}transport_descriptor'):
        if (transport.findtext('{*}type') or '').strip() == 'SHM':
            segments.append(int(transport.findtext('{*}segment_size') or SEGMENT))
    builtin = (root.findtext('.//{*}useBuiltinTransports') or 'true').strip() != 'false'
    return segments, builtin


def read_rmem_max(path: Path = Path('/proc/sys/net/core/rmem_max')) -> int:
    """Bytes; 0 where the system does not tell."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
