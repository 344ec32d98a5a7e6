"""The memory that a model and its settings need, estimated, against what is free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from wristworld_ros.doctor.line import Line, error, ok, warning
from wristworld_ros.doctor.weights import Stored
from wristworld_ros.units import gib

PROCESS = 600 * 2**20  # Python with torch, diffusers, OpenCV and ROS, before any weights
CUDA_PROCESS = 2 * 2**30  # RAM that a process with CUDA's libraries takes on top
CUDA_CONTEXT = 700 * 2**20  # GPU memory of a context with its kernels
FLOAT = 4  # bytes; weights become float32 whatever they are on disk
ROOM = 1.25  # times the need: less is a warning, for estimates are estimates and others use memory too


@dataclass(frozen=True)
class Need:
    """Bytes. weights: in float32. loading: held beside them while a file is read. cache: keys and values of the stream.
    working: images, tokens, points and feature maps of one anchor set and one chunk."""

    weights: int
    loading: int
    cache: int
    working: int

    @property
    def ram_with_gpu(self) -> int:
        """RAM where the models run on a GPU: they are loaded on the CPU first."""
        return PROCESS + CUDA_PROCESS + self.weights + self.loading

    @property
    def ram(self) -> int:
        """RAM where the models run on the CPU. What loading took is free again when the work begins."""
        return PROCESS + self.weights + max(self.loading, self.cache + self.working)

    @property
    def gpu(self) -> int:
        """GPU memory where the models run there."""
        return CUDA_CONTEXT + self.weights + self.cache + self.working

    def __str__(self) -> str:
        return (
            f'{gib(self.weights)} weights as float32, {gib(self.cache)} keys and values, {gib(self.working)} working '
            f'memory, {gib(self.loading)} while loading'
        )


def need(headers: dict[Path, dict[str, Stored]], sizes: dict[Path, int], cache: int, working: int) -> Need:
    """headers: of the weight files. sizes: their bytes on disk. cache, working: see `Need`."""
    weights = FLOAT * sum(math.prod(s.shape) for tensors in headers.values() for s in tensors.values())
    return Need(weights, max(sizes.values(), default=0), cache, working)


def cache_bytes(generator: dict, wrist_hw: tuple[int, int], chunk: int, history: int) -> int:
    """Keys and values of a stream: all layers, `history` chunks and the one in the making.

    generator: a model's configuration of stage 2.
    """
    return 2 * FLOAT * generator['num_layers'] * generator['dim'] * _tokens(generator, wrist_hw, chunk) * (history + 1)


def working_bytes(config, views: int, image_hw: tuple[int, int], chunk: int) -> int:
    """What one anchor set and one chunk take while they are worked on, both at once: the largest arrays, float32, with
    a quarter more for what lies between them. config: a `ModelConfig`. image_hw: of an anchor image, pixels.
    """
    from wristworld_ros.reconstruction.config import ReconstructionConfig
    from wristworld_ros.streaming.reconstructor import model_size

    stage1, generator = ReconstructionConfig.from_dict(config.stage1), config.generator
    h, w = model_size(image_hw, config.anchor_width, stage1.patch_size)
    tokens = views * (h * w // stage1.patch_size**2 + 5)
    kept = len(stage1.dpt_layers) * 2 * stage1.embed_dim
    block = (4 + 4 + 3) * stage1.embed_dim  # both sides of the feed-forward's bend, and queries, keys, values
    dense = views * h * w * 3 * stage1.dpt_features  # the last maps, at full size
    points = views * h * w * config.cloud.upsample**2 * 24  # positions, projections, colours and the splat's indices
    first = tokens * (kept + block) + dense + points
    transformer = _tokens(generator, config.wrist_hw, chunk) * (2 * generator['ffn_dim'] + 8 * generator['dim'])
    decoder = generator.get('decoder') or {}
    pixels = chunk * config.wrist_hw[0] * config.wrist_hw[1]
    second = transformer + pixels * (3 * decoder.get('widths', [32])[0] + 16)
    images = views * image_hw[0] * image_hw[1] * 3 * 4  # bytes: as they arrive, matched, waiting, resized
    return round(1.25 * FLOAT * (first + second)) + images


def memory_lines(need: Need, device: str, ram_free: int, gpu_free: int) -> list[Line]:
    """device: cpu or cuda, where the models will run. ram_free, gpu_free: bytes; 0 is not known."""
    if device == 'cpu':
        return [_line('RAM', need.ram, ram_free, str(need), 'a machine with more')]
    return [
        _line('GPU memory', need.gpu, gpu_free, str(need), 'device cpu, or a GPU with more'),
        _line('RAM', need.ram_with_gpu, ram_free, 'the models are loaded there first', 'a machine with more'),
    ]


def _line(kind: str, needed: int, free: int, parts: str, otherwise: str) -> Line:
    what = f'{kind}: about {gib(needed)} needed ({parts})'
    if not free:
        return warning(
            f'{what}, and the system does not say how much is free', f'see for yourself that {gib(needed)} are'
        )
    what += f', {gib(free)} free'
    fix = f'end other programs, or take a smaller model, fewer anchors, a smaller chunk or history, or {otherwise}'
    if free < needed:
        return error(what, fix)
    return warning(what + ', which is tight', fix) if free < ROOM * needed else ok(what)


def free_ram(meminfo: Path = Path('/proc/meminfo'), group: Path = Path('/sys/fs/cgroup')) -> int:
    """Bytes that new processes may take: what the system has available, or less in a container with a limit; 0 where the
    system does not say."""
    try:
        kib = next(row.split()[1] for row in meminfo.read_text().splitlines() if row.startswith('MemAvailable:'))
    except (OSError, StopIteration):
        return 0
    free = int(kib) * 1024
    try:
        limit, used = ((group / name).read_text().strip() for name in ('memory.max', 'memory.current'))
    except OSError:
        return free
    return min(free, max(int(limit) - int(used), 1)) if limit.isdigit() else free


def _tokens(generator: dict, wrist_hw: tuple[int, int], chunk: int) -> int:
    factor = (generator.get('autoencoder') or {}).get('factor', 8)
    _, h, w = generator.get('patch_size', (1, 2, 2))
    return chunk * (wrist_hw[0] // factor // h) * (wrist_hw[1] // factor // w)
