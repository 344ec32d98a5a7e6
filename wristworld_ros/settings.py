"""Every setting of the virtual wrist, stated once.

These records are the source of the node's ROS parameters, `config/virtual_wrist.yaml`, the table in
`docs/settings.md` and the command line's options.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


def setting(default: Any, doc: str, *, low=None, high=None, choices=None, live: bool = False):
    """One setting: its default, what it means (with units), what is allowed, and whether it may change while running."""
    metadata = {'doc': doc, 'low': low, 'high': high, 'choices': choices, 'live': live}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


# What a stream may give up when memory runs out, the least first.
RUNGS = ('graphs', 'history', 'light_decoder', 'offload')


@dataclass(frozen=True)
class StreamSettings:
    """What `streaming.VirtualWrist` needs to know; no ROS in it."""

    model: str = setting('sim_tiny', 'Name of a model that ships with the package, or the path of a model directory.')
    device: str = setting(
        'auto', 'Where the models run; auto takes the GPU when there is one.', choices=('auto', 'cpu', 'cuda')
    )
    threads: int = setting(
        0,
        'CPU threads of each of the two stages; 0: one for a small model, whose operations are too short to share, else what torch chooses.',
        low=0,
        high=256,
    )
    precision: str = setting(
        'auto',
        "What the big networks compute in; auto takes the model's own on a GPU (bfloat16 for the published ones) and float32 on a CPU. Stage 1's heads are float32 always.",
        choices=('auto', 'float32', 'bfloat16'),
    )
    graphs: bool = setting(
        True, 'On a GPU, record what repeats as CUDA graphs, which launch faster; false where memory is short.'
    )
    decoder: str = setting(
        'full',
        "What draws the published autoencoder's latents: its own decoder, or the light one that `wristworld train light-decoder` made for the model.",
        choices=('full', 'light'),
    )
    chunk: int = setting(
        1,
        'Frames generated at once; 4 times as many with the published autoencoder, which makes 4 frames of one latent. More is cheaper a frame and later by as many frames.',
        low=1,
        high=16,
    )
    steps: int = setting(1, 'Sampling steps a chunk. 1 is fastest and smoothest, 4 is sharpest.', low=1, high=50)
    guidance: float = setting(
        1.0,
        "Scale of the guidance against the model's negative prompt: 1 none, 0 the model's own (5 as published). It doubles the work of a step.",
        low=0.0,
        high=30.0,
    )
    history: int = setting(
        4, 'Chunks of generated video that the next one sees (the size of the key/value ring).', low=0, high=64
    )
    reanchor: int = setting(
        0,
        'Every so many chunks one is made without history, from its condition map alone, so that errors cannot add up; 0 never, which is right for a model trained chunk by chunk.',
        low=0,
        high=1_000_000,
    )
    near: float = setting(
        0.0,
        "Points nearer to the wrist camera than this are not drawn, metres; 0 takes the model's own.",
        low=0.0,
        high=1.0,
    )
    wrist_fov: float = setting(
        0.0, 'Vertical field of view of the virtual camera, degrees; 0 takes the predicted one.', low=0.0, high=150.0
    )
    min_coverage: float = setting(
        0.2, 'Frames with less of the wrist view covered by points are not fit, 0 to 1.', low=0.0, high=1.0, live=True
    )
    min_confidence: float = setting(
        0.1, 'Frames with less confidence are not fit, 0 to 1.', low=0.0, high=1.0, live=True
    )
    seed: int = setting(
        0, 'Seed of the sampling noise; the same seed and input give the same video.', low=0, high=2**31 - 1
    )
    on_out_of_memory: list = setting(
        list(RUNGS),
        'What is given up, in this order and one at a time, when memory runs out while running: graphs (CUDA graphs), history (half of it, again and again down to 1), light_decoder (where the model has one), offload (weights wait in RAM; GPU only); empty gives up nothing.',
        choices=RUNGS,
    )


@dataclass(frozen=True)
class NodeSettings(StreamSettings):
    """What the `virtual_wrist` node needs beyond the stream."""

    anchors: list = setting(
        ['left', 'right'],
        'Names of the anchor cameras; the node listens to anchor_<name>/image_raw. The first is the reference frame.',
    )
    transport: str = setting(
        'raw', 'How anchor images arrive: image_raw or image_raw/compressed.', choices=('raw', 'compressed')
    )
    slop: float = setting(
        0.05, 'Anchor images whose stamps differ by at most this belong together, seconds.', low=0.0, high=5.0
    )
    freshness: float = setting(
        0.5,
        'A wrist frame older than this when it is ready is not fit, and cameras silent for longer are reported, seconds.',
        low=0.01,
        high=60.0,
        live=True,
    )
    max_rate: float = setting(
        0.0,
        'Most anchor sets a second that are used; 0 uses as many as the model manages.',
        low=0.0,
        high=1000.0,
        live=True,
    )
    anchor_frame: str = setting('', 'TF frame of the first anchor; empty takes the frame_id of its images.')
    wrist_frame: str = setting(
        'virtual_wrist_optical_frame', 'TF frame of the virtual wrist camera (optical: z forward, x right, y down).'
    )
    publish_tf: bool = setting(True, 'Publish TF from the first anchor to the virtual wrist camera.')
    publish_unfit: bool = setting(
        False, 'Publish frames that are not fit on wrist/view too (never on wrist/image_raw).', live=True
    )
    points_stride: int = setting(
        2,
        'Every n-th point of each row and column goes into the published cloud; 0 publishes none.',
        low=0,
        high=64,
        live=True,
    )
    reliable: bool = setting(True, 'Publish reliably; false publishes best effort.')
    jump_back: float = setting(
        0.5,
        "A stamp that much older than its camera's newest one means that the clock was set back (a bag that loops): everything is forgotten, seconds.",
        low=0.0,
        high=3600.0,
    )
    diagnostics_period: float = setting(1.0, 'Seconds between diagnostics and status messages.', low=0.1, high=60.0)
    exit_on_gpu_loss: bool = setting(
        False,
        'End the process with status 3 when the GPU is lost, for a launch file to start it again; otherwise it stays, finalized, and says why.',
    )
    autostart: bool = setting(False, 'Configure and activate at the start, without a lifecycle manager.')


@dataclass(frozen=True)
class WindowSettings:
    """How a whole video is sampled, in overlapping windows; see `generation.windows`."""

    window: int = setting(
        0,
        "Video frames of a window; 0 takes the model's clip (81 as published). With an autoencoder that makes 4 frames of one latent, rounded down to 4n + 1.",
        low=0,
        high=10000,
    )
    overlap: int = setting(
        0, 'Video frames that neighbouring windows share at least; 0 takes a third of a window.', low=0, high=10000
    )
    steps: int = setting(0, "Sampling steps; 0 takes the model's (50 as published).", low=0, high=1000)
    solver: str = setting(
        'euler', 'How the steps are taken: euler as published, or unipc for fewer of them.', choices=('euler', 'unipc')
    )
    guidance: float = setting(
        0.0, "Scale of the guidance, 1 for none; 0 takes the model's (5 as published).", low=0.0, high=30.0
    )
    shift: float = setting(
        0.0,
        "Shift of the noise levels towards noise, 1 for even spacing; 0 takes the model's (5 as published).",
        low=0.0,
        high=100.0,
    )
    one_batch: bool = setting(
        True, 'A guided step goes through the network as one batch; false takes two passes in half the memory.'
    )


@dataclass(frozen=True)
class CameraSettings:
    """What the `camera` node plays, and how."""

    source: str = setting('simulator', 'What is played: simulator, or videos.', choices=('simulator', 'videos'))
    videos: list = setting([], 'With source videos: one file a camera, in the order of anchors.')
    wrist_video: str = setting(
        '', 'With source videos: the recording of a real wrist camera, for comparison; empty for none.'
    )
    anchors: list = setting(['left', 'right'], 'Names of the cameras; images go to anchor_<name>/image_raw.')
    rate: float = setting(
        10.0, 'Frames a second; 0 takes the rate of the first video (10 for the simulator).', low=0.0, high=240.0
    )
    loop: bool = setting(True, 'Begin again at the end; otherwise the node falls silent.')
    transport: str = setting(
        'raw', 'What is published: image_raw, or JPEG on image_raw/compressed.', choices=('raw', 'compressed')
    )
    width: int = setting(320, 'Width of the images, pixels; 0 keeps that of the videos.', low=0, high=8192)
    height: int = setting(240, 'Height of the images, pixels; 0 keeps that of the videos.', low=0, high=8192)
    seed: int = setting(
        0, 'With the simulator: which episode is first; every further episode is the next.', low=0, high=2**31 - 1
    )


KINDS: dict[str, Any] = {'bool': bool, 'int': int, 'float': (int, float), 'str': str, 'list': (list, tuple)}


def check(settings: StreamSettings | CameraSettings | WindowSettings) -> None:
    """Raise ValueError with one sentence for the first value that is out of its bounds."""
    for f in fields(settings):
        value, m = getattr(settings, f.name), f.metadata
        kind = KINDS[str(f.type)]
        wrong = not isinstance(value, kind) or (isinstance(value, bool) and f.type != 'bool')
        if wrong or (f.type == 'list' and not all(isinstance(v, str) for v in value)):
            raise ValueError(f'Setting {f.name} is {value!r}; it takes a {f.type}: {m["doc"]}')
        if m['choices'] and f.type == 'list':
            if unknown := [v for v in value if v not in m['choices']]:
                raise ValueError(
                    f'Setting {f.name} names {", ".join(map(repr, unknown))}; it takes any of {", ".join(m["choices"])}.'
                )
            if len(set(value)) < len(value):
                raise ValueError(f'Setting {f.name} is {value!r}; give no name twice.')
        elif m['choices'] and value not in m['choices']:
            raise ValueError(f'Setting {f.name} is {value!r}; it takes one of {", ".join(m["choices"])}.')
        if (m['low'] is not None and value < m['low']) or (m['high'] is not None and value > m['high']):
            raise ValueError(f'Setting {f.name} is {value!r}; it takes {m["low"]} to {m["high"]}: {m["doc"]}')
