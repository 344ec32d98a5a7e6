"""Every setting of stream, node, windows and camera once: name, type, default, meaning, bounds, and whether it may change while
running.

These records are the source of the ROS parameters, of `config/virtual_wrist.yaml`, of `docs/settings.md` and of the options
on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wristworld_ros.errors import UserError
from wristworld_ros.setting import setting

# Names that are part of a topic (anchor_<name>/image_raw), and TF frames; a leading slash of a frame is dropped where it is used.
USE = ('auto', 'never', 'require')
NAME: dict[str, Any] = {'pattern': r'[A-Za-z0-9_]+', 'described': 'names of letters, digits and underscores'}
FRAME: dict[str, Any] = {'pattern': r'/*[^\s/]\S*', 'described': 'the name of a TF frame, without spaces'}

# What a stream may give up when memory runs out, the least first.
OOM_STEPS = ('graphs', 'history', 'tiny_decoder', 'offload')


@dataclass(frozen=True)
class StreamSettings:
    """What `pipeline.VirtualWrist` needs to know; no ROS in it."""

    model: str = setting('sim_tiny', 'Name of a model that ships with the package, or the path of a model directory.')
    device: str = setting(
        'auto',
        'Where the models run: cpu, cuda or, of several GPUs, cuda:0, cuda:1, ...; auto uses the GPU when there is one.',
        pattern=r'auto|cpu|cuda(:\d{1,2})?',
        described='auto, cpu, cuda or cuda:N',
    )
    threads: int | None = setting(
        None,
        'CPU threads of each of the two stages; auto: one for a small model, whose operations are too short to share, otherwise what torch chooses.',
        low=1,
        high=256,
        none='auto',
    )
    precision: str = setting(
        'auto',
        "What the big networks compute in; auto: the model's own on a GPU (bfloat16 for the published ones), float32 on a CPU, but for the plane sweep's convolutions where the CPU has instructions for bfloat16. Stage 1's heads are always float32.",
        choices=('auto', 'float32', 'bfloat16'),
    )
    graphs: bool = setting(
        True, 'On a GPU, capture repeated steps as CUDA graphs, which launch faster; false where memory is short.'
    )
    decoder: str = setting(
        'full',
        "What decodes the published autoencoder's latents: its own decoder (full), or the tiny one that `wristworld train tiny-decoder` made for the model.",
        choices=('full', 'tiny'),
    )
    chunk: int = setting(
        1,
        'Latent frames generated at once; with the published autoencoder one latent frame is 4 video frames. Larger chunks cost less per frame and add latency.',
        low=1,
        high=16,
    )
    steps: int | None = setting(
        1,
        "Sampling steps per chunk. 1 is fastest and smoothest, 4 is sharpest; auto is the model's own number, for a few-step student all that it was distilled to.",
        low=1,
        high=50,
        none='auto',
    )
    guidance: float | None = setting(
        1.0,
        "Scale of classifier-free guidance against the model's negative prompt: 1 is none, auto is the model's own (5 as published). Guidance doubles the work of a step.",
        low=0.1,
        high=30.0,
        none='auto',
    )
    history: int = setting(
        4, 'Chunks of generated video that the next one attends to (size of the key/value ring).', low=0, high=64
    )
    reanchor: int | None = setting(
        None,
        'Every that many chunks one is generated without history, from its condition map alone, so that errors cannot accumulate; never is right for a model trained chunk by chunk.',
        low=1,
        high=1_000_000,
        none='never',
    )
    near: float | None = setting(
        None,
        "Near plane of the wrist camera, metres: closer points are not rendered; auto uses the model's own.",
        low=0.001,
        high=1.0,
        none='auto',
    )
    wrist_fov: float | None = setting(
        None,
        'Vertical field of view of the virtual camera, degrees; auto uses the predicted one.',
        low=1.0,
        high=150.0,
        none='auto',
    )
    min_coverage: float = setting(
        0.2, 'Frames with less of the wrist view covered by points are invalid, 0 to 1.', low=0.0, high=1.0, live=True
    )
    min_confidence: float | None = setting(
        None,
        "Frames with less confidence are invalid, 0 to 1; auto takes the model's own for what it predicts, and 0.1 where depth is measured; 0 accepts every frame.",
        low=0.0,
        high=1.0,
        live=True,
        none='auto',
    )
    min_agreement: float | None = setting(
        None,
        "Frames are invalid whose anchors agree less in the colours of what their own clouds show of the wrist view, 0 to 1; auto uses the model's own threshold, chosen on validation data (none for a model without, nor where depth is measured: there max_residual judges), and 0.01 accepts every frame. One anchor has nothing to agree with.",
        low=0.01,
        high=1.0,
        live=True,
        none='auto',
    )
    check_anchors: bool = setting(
        True,
        'Whether frames are invalid whose anchor images are black or of one colour, the same for two anchors, or frozen; false for tests of the wiring with made-up images.',
        live=True,
    )
    frozen_after: float | None = setting(
        2.0,
        "Frames are invalid while an anchor's image has been the same to the bit for that long and another anchor's changes, seconds between stamps.",
        low=0.01,
        high=3600.0,
        live=True,
        none='never',
    )
    still_after: float | None = setting(
        30.0,
        'Frames are invalid while the images of all anchors (or of the only one) have been the same to the bit for that long, seconds between stamps: no real camera sends that, but a simulator whose scene rests does; choose never there.',
        low=0.01,
        high=86400.0,
        live=True,
        none='never',
    )
    max_residual: float | None = setting(
        0.03,
        "Frames are invalid while an anchor with depth sees the robot's surface farther from where joint states and TF put it than this (median over the last sets), or clearly farther than it used to, metres: the camera was moved, or a calibration is wrong.",
        low=0.001,
        high=10.0,
        live=True,
        none='never',
    )
    geometry_model: str | None = setting(
        None,
        "Folder of a depth-estimation model of transformers (e.g. Depth Anything V2 Small), whose depth takes the place of stage 1's where all cameras and the robot's surface are known, for that fixes its scale and shift; none takes stage 1's.",
        none='none',
    )
    place_anchors: bool = setting(
        True,
        "Whether anchors whose place in the robot's base nobody knows are placed by the wrist's known path, once it has moved enough: to some centimetres, so that a calibration is better.",
    )
    stage1_every: int = setting(
        4,
        'Sets of which stage 1 runs on one, where images alone are known and the model has a hand network, which tracks the wrist in between; the cloud is as old.',
        low=1,
        high=1000,
    )
    table_height: float | None = setting(
        None,
        "Height of what objects stand on in the robot's base frame, metres, for the plane sweep of models that have one; auto finds the height at which the anchors agree best.",
        low=-2.0,
        high=2.0,
        none='auto',
    )
    refine_calibration: bool = setting(
        True,
        "Whether the given places of anchors with depth are corrected, by up to 3 cm and 2 degrees, where they see the robot's surface elsewhere than joint states put it.",
    )
    filter_depth: bool = setting(
        True,
        "Whether the noise of measured depth is filtered: over time where an anchor's picture stands still, and between neighbours of one surface. How noisy a camera is, its images tell; off where the driver filters already.",
    )
    scene_memory: bool = setting(
        False,
        'Whether what an anchor with depth saw before the arm moved in front of it is shown there meanwhile; where the arm moves things it shows them where they were.',
    )
    composite: bool = setting(
        True,
        "Whether pixels that were measured, remembered or are the robot's own surface are laid over the generated image: the models that ship were not trained on true geometry and wash objects out.",
        live=True,
    )
    fill_from: float | None = setting(
        0.9,
        'Share of trusted pixels (see composite), 0 to 1, from which on the rest of an image is filled from around them and the generator does not run: no worse with the models that ship, and faster. Nor does it run where the wrist camera is known to be mounted more than 3 cm or 10 degrees from where the generator learnt what the hand looks like; never runs it always.',
        low=0.1, high=1.0, none='never', live=True,
    )  # fmt: skip
    seed: int = setting(
        0, 'Seed of the sampling noise; the same seed and input give the same video.', low=0, high=2**31 - 1
    )
    on_out_of_memory: list = setting(
        list(OOM_STEPS),
        'What is given up, in this order and one at a time, when memory runs out while running: graphs (CUDA graphs), history (halved repeatedly, down to 1), tiny_decoder (where the model has one), offload (idle weights move to RAM; GPU only); empty gives up nothing.',
        choices=OOM_STEPS,
    )


@dataclass(frozen=True)
class NodeSettings(StreamSettings):
    """What the `virtual_wrist` node needs beyond the stream."""

    anchors: list = setting(
        ['left', 'right'],
        'Names of the anchor cameras; the node subscribes to anchor_<name>/image_raw. The first is the reference frame.',
        **NAME,
    )
    transport: str = setting(
        'raw', 'How anchor images arrive: image_raw or image_raw/compressed.', choices=('raw', 'compressed')
    )
    slop: float = setting(
        0.05, 'Anchor images whose stamps differ by at most this belong together, seconds.', low=0.0, high=5.0
    )
    sync_window: float = setting(
        1.0,
        'How long an anchor image waits for its partners: until the newest stamp of its own camera is that much newer, seconds. It bounds how far the clocks or delays of cameras may differ.',
        low=0.01,
        high=60.0,
    )
    max_queue_bytes: int = setting(
        2**28,
        'Most memory of all anchor images that wait for partners, bytes; the oldest are dropped, and the newest of each camera always stays.',
        low=2**20,
        high=2**36,
    )
    max_image_pixels: int = setting(
        2**24, 'Anchor images with more pixels are dropped before they are decoded.', low=1, high=2**28
    )
    max_aspect: float = setting(
        4.0,
        'Anchor images whose longer side is more than that many times the shorter one are dropped before they are decoded: the work of stage 1 grows with it.',
        low=1.0,
        high=16.0,
    )
    input_reliability: str = setting(
        'auto',
        'Quality of service of the subscriptions to anchor images; auto: reliable where every publisher of the topic offers it, which loses fewer large images, otherwise best effort.',
        choices=('auto', 'reliable', 'best_effort'),
    )
    input_depth: int = setting(
        5,
        'Anchor images that the middleware queues for each subscription, for moments when the node is busy.',
        low=1,
        high=1000,
    )
    freshness: float = setting(
        0.5,
        'A wrist frame older than this when it is ready is invalid, and cameras silent for longer are reported, seconds.',
        low=0.01,
        high=60.0,
        live=True,
    )
    max_rate: float | None = setting(
        None,
        'Most anchor sets per second that are used; unlimited uses as many as the model manages.',
        low=0.01,
        high=1000.0,
        live=True,
        none='unlimited',
    )
    anchor_frame: str | None = setting(
        None, 'TF frame of the first anchor; auto uses the frame_id of its images.', none='auto', **FRAME
    )
    wrist_frame: str | None = setting(
        None,
        'TF frame of the virtual wrist camera (optical: z forward, x right, y down); auto is virtual_wrist_optical_frame, with the namespace of the node before it (robot_1/virtual_wrist_optical_frame).',
        none='auto',
        **FRAME,
    )
    base_frame: str = setting(
        'fr3_link0', "TF frame of the robot's base, in which all that is known is brought together.", **FRAME
    )
    hand_frame: str = setting(
        'fr3_hand',
        'TF frame of the gripper itself: z to the fingertips, and the fingers open along y. It is fr3_hand or panda_hand for a Franka hand, and fr3_link8 or panda_link8 for a gripper straight on the flange.',
        **FRAME,
    )
    wrist_mount: str | None = setting(
        None,
        'Pose of the wrist camera (optical: z forward, x right, y down) in wrist_mount_frame: x y z qx qy qz qw, metres and a unit quaternion; unknown leaves its place to calibration_file, or to the model. It holds for images alone as well.',
        none='unknown',
        pattern=r'\s*([-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(\s+|$)){7}',
        described='seven numbers x y z qx qy qz qw',
    )
    wrist_mount_frame: str | None = setting(
        None,
        'TF frame in which wrist_mount is given, where it is not hand_frame, as fr3_link8, to which fr3_hand is turned by -45 degrees.',
        none='auto',
        **FRAME,
    )
    wrist_camera_frame: str | None = setting(
        None, 'Optical frame of a wrist camera that TF already has, in place of wrist_mount.', none='unknown', **FRAME
    )
    wrist_camera_info: str | None = setting(
        None,
        'Calibration of the real wrist camera whose picture is to be imitated: a YAML file (its name ends in .yaml or .yml) or a camera_info topic; unknown uses wrist_fov.',
        none='unknown',
    )
    rectify: bool = setting(
        False,
        'Whether anchor images, and depth registered to them, are undistorted by their camera_info before use; those of topics named image_rect are already.',
    )
    calibration_file: str | None = setting(
        None,
        'Calibration file of `wristworld calibrate`: for the anchors that it names its places win over TF; its intrinsics count where there is no camera_info, its wrist mount where neither wrist_mount nor wrist_camera_frame is set.',
        none='unknown',
    )
    use_depth: str = setting(
        'auto',
        'Whether depth of the anchors is used: auto where it is good, never, or require (frames without are invalid).',
        choices=USE,
    )
    use_tf: str = setting(
        'auto',
        'Whether the places of anchors and hand are taken from TF: auto, never, or require (frames without are invalid).',
        choices=USE,
    )
    use_robot_model: str = setting(
        'auto',
        "Whether the robot's own surface is placed from /robot_description and /joint_states: auto, never, or require (frames without are invalid).",
        choices=USE,
    )
    tf_timeout: float = setting(
        0.1,
        'How long a set waits at most for the TF, depth and joint states of its time, seconds.',
        low=0.0,
        high=5.0,
        live=True,
    )
    publish_tf: bool = setting(
        True,
        'Publish TF to the virtual wrist camera: from the hand where its mount is known, otherwise from the first anchor.',
    )
    publish_invalid: bool = setting(
        False, 'Publish invalid frames on wrist/view too (never on wrist/image_raw).', live=True
    )
    points_stride: int | None = setting(
        2,
        'Every n-th point of each row and column goes into the published cloud; never publishes none.',
        low=1,
        high=64,
        live=True,
        none='never',
    )
    reliable: bool = setting(True, 'Publish reliably; false publishes best effort.')
    output_depth: int = setting(
        2, 'Messages of each published topic that wait for a slow subscriber (depth of the queue).', low=1, high=1000
    )
    jpeg_quality: int = setting(
        90, 'Quality of the JPEG images on wrist/image_raw/compressed.', low=1, high=100, live=True
    )
    jump_back: float = setting(
        0.5,
        "A stamp that much older than its camera's newest one means that the clock was set back (a looping bag): every buffer is cleared, seconds.",
        low=0.0,
        high=3600.0,
    )
    diagnostics_period: float = setting(1.0, 'Seconds between diagnostics and status messages.', low=0.1, high=60.0)
    exit_on_gpu_loss: bool = setting(
        False,
        'End the process with status 3 when the GPU is lost, so that a launch file can restart it; otherwise the node stays, finalized, and reports why.',
    )
    autostart: bool = setting(False, 'Configure and activate at the start, without a lifecycle manager.')
    bond_heartbeat: float | None = setting(
        None,
        "Seconds between heartbeats to a lifecycle manager that keeps a bond with its nodes (Nav2's sends 0.1); never keeps none. Needs the package bond.",
        low=0.05,
        high=10.0,
        none='never',
    )

    def check_together(self) -> None:
        """Raise UserError where values are allowed one by one and not together."""
        if self.wrist_frame and self.anchor_frame and self.wrist_frame.lstrip('/') == self.anchor_frame.lstrip('/'):
            raise UserError(
                f'Settings wrist_frame and anchor_frame are both {self.wrist_frame!r}, and a frame cannot be its own parent',
                'give the virtual wrist camera a frame of its own',
            )
        if self.wrist_mount and self.wrist_camera_frame:
            raise UserError('Settings wrist_mount and wrist_camera_frame are both given', 'give one of them')
        if self.wrist_mount_frame and not self.wrist_mount:
            raise UserError(
                'Setting wrist_mount_frame is given, and wrist_mount is not', 'give wrist_mount, or leave both out'
            )
        if self.wrist_mount and abs(sum(float(q) ** 2 for q in self.wrist_mount.split()[3:]) - 1) > 0.01:
            raise UserError(
                f'Setting wrist_mount is {self.wrist_mount!r}, whose last four numbers are no unit quaternion',
                'give x y z qx qy qz qw, with qw last and a quaternion of length 1',
            )


@dataclass(frozen=True)
class WindowSettings:
    """How a whole video is sampled, in overlapping windows; see `models.wan.windows`."""

    window: int | None = setting(
        None,
        "Video frames of a window; auto uses the model's clip (81 as published). With an autoencoder that makes 4 frames of one latent, rounded down to 4n + 1.",
        low=1,
        high=10000,
        none='auto',
    )
    overlap: int | None = setting(
        None,
        'Video frames that neighbouring windows share at least; auto is a third of a window.',
        low=1,
        high=10000,
        none='auto',
    )
    steps: int | None = setting(
        None, "Sampling steps; auto uses the model's (50 as published).", low=1, high=1000, none='auto'
    )
    solver: str = setting(
        'euler',
        'How the steps are integrated: euler as published, or unipc, which needs fewer.',
        choices=('euler', 'unipc'),
    )
    guidance: float | None = setting(
        None,
        "Scale of classifier-free guidance, 1 for none; auto uses the model's (5 as published).",
        low=0.1,
        high=30.0,
        none='auto',
    )
    shift: float | None = setting(
        None,
        "Shift of the noise levels towards noise, 1 for even spacing; auto uses the model's (5 as published).",
        low=0.01,
        high=100.0,
        none='auto',
    )
    one_batch: bool = setting(
        True, 'A guided step goes through the network as one batch; false takes two passes in half the memory.'
    )


@dataclass(frozen=True)
class CameraSettings:
    """What the `camera` node plays, and how."""

    source: str = setting('simulator', 'What is played: simulator, or videos.', choices=('simulator', 'videos'))
    videos: list = setting([], 'With source videos: one file per camera, in the order of anchors.')
    wrist_video: str | None = setting(
        None, 'With source videos: the recording of a real wrist camera, for comparison.', none='none'
    )
    anchors: list = setting(['left', 'right'], 'Names of the cameras; images go to anchor_<name>/image_raw.', **NAME)
    rate: float | None = setting(
        10.0,
        'Frames per second, with the simulator a whole number; auto uses the rate of the first video (10 for the simulator).',
        low=0.1,
        high=240.0,
        none='auto',
    )
    depth: bool = setting(
        True,
        'With the simulator: whether its anchors measure depth, on anchor_<name>/depth/image_raw (16UC1, millimetres).',
    )
    robot: bool = setting(
        True,
        'With the simulator: whether its arm says what a real one does: /joint_states, /robot_description, and TF of its links.',
    )
    sensor_errors: bool = setting(
        True,
        'With the simulator: whether depth has the noise and the holes of a real camera, and TF of the anchors the errors of a real calibration (0.5 %, 1 pixel, 0.5 degree, 5 mm); false: exact, apart from whole millimetres.',
    )
    objects: bool = setting(
        False,
        'With the simulator: whether true_wrist/objects/image_raw (mono8) says which object each pixel of the true wrist image shows, for measures.',
    )
    prerender: int | None = setting(
        None,
        'With the simulator: so many moments are rendered at the start and then played to and fro, which costs next to nothing; none renders each in its turn.',
        low=2, high=10_000, none='none',
    )  # fmt: skip
    loop: bool = setting(True, 'Start over at the end; otherwise the node falls silent.')
    transport: str = setting(
        'raw', 'What is published: image_raw, or JPEG on image_raw/compressed.', choices=('raw', 'compressed')
    )
    width: int | None = setting(
        320, 'Width of the images, pixels; auto keeps that of the videos.', low=1, high=8192, none='auto'
    )
    height: int | None = setting(
        240, 'Height of the images, pixels; auto keeps that of the videos.', low=1, high=8192, none='auto'
    )
    seed: int = setting(
        0, 'With the simulator: which episode is first; every further episode is the next.', low=0, high=2**31 - 1
    )
