"""ROS 2 bags get a camera: topics as the live node publishes them, with the stamps of the anchors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.apps.augment.result import DEPTH, LOSSLESS, EpisodeResult, read_columns
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.apps.augment.source import AugmentSource, sha256_of
from wristworld_ros.data.formats.lerobot.adding import link_or_copy
from wristworld_ros.data.formats.lerobot.columns import short_name
from wristworld_ros.data.formats.rosbag import is_bag, messages
from wristworld_ros.data.formats.rosbag.adding import Added, add_messages, topics_of
from wristworld_ros.data.formats.rosbag.reader import BagEpisode, BagSet
from wristworld_ros.data.lossless_video import DEPTH_UNIT
from wristworld_ros.data.poses import inverse
from wristworld_ros.data.video_access import VideoFrames
from wristworld_ros.errors import UserError
from wristworld_ros.types import FrameStatus

_BLOCK = 16  # images that are held at once
_USUAL = AugmentSettings().out_key
_FRAME = 'virtual_wrist_optical_frame'  # as the live node's


class BagSource(AugmentSource):
    """A bag or a folder of bags. Each becomes a bag of the same storage; one that cannot be read stays as it is."""

    folder, lossless = 'wristworld', True

    def __init__(self, path: Path):
        self.data: BagSet = BagSet(path)
        names = [_name(bag) for bag in self.data.bags]
        if len(set(names)) < len(names):
            raise UserError(f'{path} has two bags that would be called {max(names, key=names.count)}', 'rename one')

    def marker(self, settings: AugmentSettings) -> str:
        """See `AugmentSource.marker`."""
        return f'{self.folder}/{short_name(settings.out_key)}.json'

    def check(self, settings: AugmentSettings) -> None:
        """See `AugmentSource.check`."""
        prefix = f'/{_prefix(settings)}/'
        for bag in self.data.bags:
            try:
                topics = topics_of(bag)
            except UserError:  # named when its episode is made
                continue
            if taken := [topic for topic in topics if topic.startswith(prefix)]:
                raise UserError(
                    f'{bag} has {taken[0]} already',
                    'give other topics: with --out-key observation.images.NAME they begin with NAME/',
                )

    def depends(self, place: int, anchors: tuple[str, ...]) -> dict[str, Any]:
        """See `AugmentSource.depends`."""
        bag = self.data.bags[place]
        return {'episode': bag.name, 'files': {path.name: sha256_of(path) for path in _files(bag)}}

    def write(
        self,
        folder: Path,
        results: Sequence[EpisodeResult],
        work: Path,
        settings: AugmentSettings,
        anchors: tuple[str, ...],
    ) -> None:
        """See `AugmentSource.write`."""
        is_one = is_bag(self.data.path)
        for place, result in enumerate(results):
            bag = self.data.bags[place]
            target = folder if is_one or (bag.is_file() and not result.frames) else folder / _name(bag)
            if not result.frames:
                _link(bag, target, set())
                continue
            making = folder / '.adding' / _name(bag)  # the library names files by their folder
            episode = self.data.episode(place)
            add_messages(bag, making, _messages(episode, result, work / result.folder, settings, anchors))
            target.mkdir(exist_ok=True)
            for path in sorted(making.iterdir()):
                path.rename(target / path.name)
            shutil.rmtree(making.parent)
            if bag.is_dir():
                _link(bag, target, {path.name for path in _files(bag)})
        if not is_one:
            _link(self.data.path, folder, {bag.name for bag in self.data.bags})

    def reopened(self, folder: Path) -> BagSet:
        """See `AugmentSource.reopened`."""
        return BagSet(folder)

    def camera(self, settings: AugmentSettings) -> str:
        """See `AugmentSource.camera`."""
        return _prefix(settings)


def _prefix(settings: AugmentSettings) -> str:
    """First part of the topics: as the live node's, unless a key is given."""
    return 'wrist' if settings.out_key == _USUAL else short_name(settings.out_key).replace('-', '_')


def _name(bag: Path) -> str:
    return bag.stem if bag.is_file() else bag.name


def _files(bag: Path) -> list[Path]:
    """The files that the messages are in, and what says so."""
    if bag.is_file():
        return [bag]
    return sorted(
        path for path in bag.iterdir() if path.name == 'metadata.yaml' or {'.mcap', '.db3'} & {*path.suffixes}
    )


def _link(source: Path, target: Path, without: set[str]) -> None:
    """Everything of a folder, or one file, but what is named, as hard links where possible."""
    if source.is_file():
        link_or_copy(source, target / source.name)
        return
    for path in sorted(source.iterdir()):
        if path.name in without:
            continue
        if path.is_dir():
            _link(path, target / path.name, set())
        elif path.is_file():
            link_or_copy(path, target / path.name)


def _messages(
    episode: BagEpisode, result: EpisodeResult, folder: Path, settings: AugmentSettings, anchors: tuple[str, ...]
) -> Iterator[Added]:
    """What a bag gets, frame by frame, logged with the image whose stamp the frame has: status of each frame, and image, calibration, pose
    and transform of those that a policy may use."""
    columns, video = read_columns(folder, settings.out_key), VideoFrames(folder / LOSSLESS)
    depth = VideoFrames(folder / DEPTH) if settings.depth else None
    world = str(episode.meta['base_frame']) if result.in_base else episode.frame_id(anchors[0])
    T_camera_world = columns['T_camera_base' if result.in_base else 'T_camera_anchor'].reshape(-1, 4, 4)
    topic, frame = f'/{_prefix(settings)}', _FRAME
    logged = np.maximum.accumulate(episode.logged_ns())
    for start in range(0, len(episode), _BLOCK):
        numbers = np.arange(start, min(start + _BLOCK, len(episode)))
        maps = None if depth is None else depth.read(numbers, 'gray16le').astype(np.float32) * DEPTH_UNIT
        for place, (number, image) in enumerate(zip(numbers, video.read(numbers))):
            stamp, time = int(episode.stamps_ns[number]), int(logged[number])
            head, status = messages.header(stamp, frame), FrameStatus(int(columns['status'][number, 0]))
            said = {'status': str(int(status)), 'confidence': f'{columns["confidence"][number, 0]:.4f}'}
            is_valid = status is FrameStatus.VALID
            yield Added(
                time, f'{topic}/status', messages.DIAGNOSTICS,
                messages.diagnostics(f'{topic[1:]}/image_raw', is_valid, status.name, said, head),
            )  # fmt: skip
            if not is_valid:
                continue
            T_world_camera = inverse(T_camera_world[number])
            if world:
                moved = messages.transform(T_world_camera, messages.header(stamp, world), frame)
                yield Added(time, '/tf', messages.TF, messages.make(messages.TF, transforms=[moved]))
                pose = messages.pose_stamped(T_world_camera, messages.header(stamp, world))
                yield Added(time, f'{topic}/pose', messages.POSE, pose)
            K = columns['K'][number].reshape(3, 3)
            info = messages.camera_info(K, result.width, result.height, head)
            yield Added(time, f'{topic}/camera_info', messages.INFO, info)
            yield Added(time, f'{topic}/image_raw', messages.IMAGE, messages.raw_image(image, head))
            if maps is not None:
                yield Added(time, f'{topic}/depth/image_raw', messages.IMAGE, messages.raw_image(maps[place], head))
