"""ROS 2 bags of both kinds: images however they are packed, calibration, transforms and joints at the anchor's stamps."""

import struct

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from wristworld_ros.data.check import check_data_set
from wristworld_ros.data.formats.rosbag.content import camera_name
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError

STORE = get_typestore(Stores.ROS2_JAZZY)
T = STORE.types
START, STEP, FRAMES = 10**18, 100_000_000, 8


def header(stamp, frame):
    time = T['builtin_interfaces/msg/Time'](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return T['std_msgs/msg/Header'](stamp=time, frame_id=frame)


def raw(stamp, frame, array, encoding, padding=0):
    rows = np.pad(array.reshape(array.shape[0], -1).view(np.uint8), ((0, 0), (0, padding)))
    return T['sensor_msgs/msg/Image'](
        header=header(stamp, frame), height=array.shape[0], width=array.shape[1], encoding=encoding, is_bigendian=0,
        step=rows.shape[1], data=rows.reshape(-1),
    )  # fmt: skip


def packed(stamp, frame, data, form):
    return T['sensor_msgs/msg/CompressedImage'](
        header=header(stamp, frame), format=form, data=np.frombuffer(data, np.uint8)
    )


def transform(stamp, parent, child, x):
    vector, quaternion = T['geometry_msgs/msg/Vector3'], T['geometry_msgs/msg/Quaternion']
    moved = T['geometry_msgs/msg/Transform'](
        translation=vector(x=x, y=0.0, z=0.5), rotation=quaternion(x=0.0, y=0.0, z=1.0, w=0.0)
    )
    return T['geometry_msgs/msg/TransformStamped'](header=header(stamp, parent), child_frame_id=child, transform=moved)


def camera_info(stamp, frame, d=()):
    roi = T['sensor_msgs/msg/RegionOfInterest'](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    K = np.array([60.0, 0, 31.5, 0, 61, 23.5, 0, 0, 1])
    return T['sensor_msgs/msg/CameraInfo'](
        header=header(stamp, frame), height=48, width=64, distortion_model='plumb_bob', d=np.array(d), k=K, r=np.eye(3).reshape(-1),
        p=np.zeros(12), binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip


def image_of(i):
    return np.full((48, 64, 3), 20 + 10 * i, np.uint8)


def depth_codes(i):
    codes = np.full((48, 64), 500 + 10 * i, np.uint16)
    codes[0, 0] = 0
    return codes


def messages():
    """Topic, type, logged time, message."""
    tf, info, joints = 'tf2_msgs/msg/TFMessage', 'sensor_msgs/msg/CameraInfo', 'sensor_msgs/msg/JointState'
    yield '/tf_static', tf, START, T[tf](transforms=[transform(START, 'fr3_link0', 'left_optical', 1.0)])
    for i in range(FRAMES):
        t = START + i * STEP
        yield '/left/color/camera_info', info, t, camera_info(t, 'left_optical')
        yield (
            '/left/color/image_raw',
            'sensor_msgs/msg/Image',
            t + 5_000_000,
            raw(t, 'left_optical', image_of(i)[..., ::-1], 'bgr8', 6),
        )
        data = b'\0' * 12 + cv2.imencode('.png', depth_codes(i))[1].tobytes()
        yield '/left/aligned_depth_to_color/image_raw/compressedDepth', 'sensor_msgs/msg/CompressedImage', t + 6_000_000, packed(t, 'left_optical', data, '16UC1; compressedDepth png')  # fmt: skip
        # The wrist camera runs by its own clock, and its images are JPEG.
        late = t + 30_000_000
        jpeg = cv2.imencode('.jpg', image_of(i))[1].tobytes()
        yield (
            '/wrist/image_raw/compressed',
            'sensor_msgs/msg/CompressedImage',
            late + 1,
            packed(late, 'wrist_optical', jpeg, 'rgb8; jpeg compressed bgr8'),
        )
        names = ['fr3_joint2', 'fr3_joint1', 'fr3_finger_joint1', 'fr3_finger_joint2']
        state = T[joints](
            header=header(t, ''),
            name=names,
            position=np.array([2.0 + i, 1.0 + i, 0.01, 0.02]),
            velocity=np.array([]),
            effort=np.array([]),
        )
        yield '/joint_states', joints, t, state
        yield (
            '/tf',
            tf,
            t,
            T[tf](
                transforms=[
                    transform(t, 'fr3_link0', 'fr3_hand', 0.1 * i),
                    transform(t, 'fr3_hand', 'wrist_optical', 0.0),
                ]
            ),
        )


def write_bag(path, kind, content):
    with Writer(path, version=9, storage_plugin=kind) as bag:
        connections = {}
        for topic, msgtype, logged, message in content:
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, msgtype, typestore=STORE)
            bag.write(connections[topic], logged, STORE.serialize_cdr(message, msgtype))
    return path


@pytest.fixture(params=[StoragePlugin.SQLITE3, StoragePlugin.MCAP], ids=['sqlite3', 'mcap'])
def bag(request, tmp_path):
    return write_bag(tmp_path / 'bag', request.param, messages())


def test_a_bag_is_an_episode_at_the_anchor_s_stamps(bag):
    data = open_data_set(bag)
    episode = data.episode(0)
    assert data.format == 'ROS 2 bag' and len(data) == 1 and len(episode) == FRAMES and episode.fps == 10
    assert episode.stamps_ns.tolist() == [START + i * STEP for i in range(FRAMES)], (
        "the headers' stamps, not the logged ones"
    )
    assert [(c.name, c.role, c.width, c.height, c.has_depth) for c in episode.cameras] == [
        ('left', 'anchor', 64, 48, True),
        ('wrist', 'wrist', 64, 48, False),
    ]
    for i in (5, 0, 7):
        np.testing.assert_array_equal(episode.read('left', [i])[0], image_of(i))
    np.testing.assert_array_equal(episode.read('left', [6, 1, 1, 2])[:, 0, 0, 0], [80, 30, 30, 40])
    assert np.abs(episode.read('wrist', [3])[0].astype(int) - image_of(3)).max() <= 2
    assert (episode.times_ns('wrist') - episode.stamps_ns).tolist() == [30_000_000] * FRAMES
    depth = episode.read_depth('left', [4])
    assert depth[0, 0, 0] == 0 and depth[0, 5, 5] == pytest.approx(0.54)
    assert [problem.what for problem in check_data_set(data)] == []


def test_calibration_and_robot_come_from_the_topics(bag):
    episode = open_data_set(bag).episode(0)
    np.testing.assert_array_equal(episode.K('left')[3], [[60, 0, 31.5], [0, 61, 23.5], [0, 0, 1]])
    assert episode.K('wrist') is None
    T_base_left = np.linalg.inv(episode.T_camera_world('left')[2])
    np.testing.assert_allclose(T_base_left[:3, 3], [1, 0, 0.5], atol=1e-12)
    np.testing.assert_allclose(T_base_left[:3, :3], np.diag([-1, -1, 1]), atol=1e-12)
    np.testing.assert_allclose(episode.T_base_hand[:, 0, 3], 0.1 * np.arange(FRAMES), atol=1e-9)
    wrist = np.linalg.inv(episode.T_camera_world('wrist'))
    np.testing.assert_allclose(wrist[:, :3, 3], [[0.1 * i, 0, 1] for i in range(FRAMES)], atol=1e-9)
    np.testing.assert_allclose(episode.joints, [[1 + i, 2 + i] for i in range(FRAMES)])
    np.testing.assert_allclose(episode.gripper, 0.03)
    assert (episode.hand_link, episode.gripper_unit, episode.meta['base_frame']) == ('fr3_hand', 'metres', 'fr3_link0')


def test_a_folder_of_bags_and_a_bare_file_are_read_too(tmp_path):
    for name in ('b', 'a'):
        write_bag(tmp_path / 'bags' / name, StoragePlugin.MCAP, messages()) if (tmp_path / 'bags').mkdir(
            exist_ok=True
        ) is None else None
    data = open_data_set(tmp_path / 'bags')
    assert [data.episode(i).name for i in range(2)] == ['bag a', 'bag b']
    (file,) = (tmp_path / 'bags/a').glob('*.mcap')
    assert len(open_data_set(file).episode(0)) == FRAMES


def test_gaps_and_depth_of_another_size_are_told(tmp_path):
    def content():
        for topic, kind, logged, message in messages():
            if topic.startswith('/wrist') and START + 2 * STEP < logged < START + 6 * STEP:
                continue
            yield topic, kind, logged, message
        yield (
            '/wrist/depth/image_raw',
            'sensor_msgs/msg/Image',
            START,
            raw(START, 'wrist_optical', np.ones((24, 32), np.uint16), '16UC1'),
        )

    data = open_data_set(write_bag(tmp_path / 'bag', StoragePlugin.MCAP, content()))
    assert not data.episode(0).camera('wrist').has_depth
    assert [problem.what for problem in check_data_set(data)] == [
        "Bag bag: camera 'wrist' has no image within 0.170 s of frame 3, nor near 1 more.",
        "Bag bag: depth of camera 'wrist' (/wrist/depth/image_raw) is not of its images' size, so it is not registered to them.",
    ]


def test_an_image_that_is_damaged_is_named_and_others_are_read(tmp_path):
    def content():
        for topic, kind, logged, message in messages():
            if topic.startswith('/wrist') and logged == START + 3 * STEP + 30_000_001:
                message.data = message.data[:40]
            yield topic, kind, logged, message

    data = open_data_set(write_bag(tmp_path / 'bag', StoragePlugin.SQLITE3, content()))
    (found,) = [problem.what for problem in check_data_set(data)]
    assert found.startswith("Bag bag: frame 3 has no image of camera 'wrist' (message 3 on /wrist/image_raw/compressed")


def test_a_torn_bag_is_one_sentence(bag):
    file = next(path for path in bag.iterdir() if path.suffix in ('.mcap', '.db3'))
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(UserError, match='cannot be read as a ROS 2 bag') as error:
        open_data_set(bag).episode(0)
    assert '\n' not in str(error.value)


def test_a_bag_without_cameras_is_refused(tmp_path):
    path = write_bag(tmp_path / 'bag', StoragePlugin.MCAP, [m for m in messages() if m[0] == '/joint_states'])
    with pytest.raises(UserError, match='holds no colour images'):
        open_data_set(path).episode(0)


@pytest.mark.parametrize(
    ('encoding', 'array', 'pixel'),
    [
        ('rgb8', np.full((4, 6, 3), (10, 20, 30), np.uint8), (10, 20, 30)),
        ('bgra8', np.full((4, 6, 4), (30, 20, 10, 255), np.uint8), (10, 20, 30)),
        ('mono8', np.full((4, 6), 77, np.uint8), (77, 77, 77)),
    ],
)
def test_encodings_become_rgb(tmp_path, encoding, array, pixel):
    path = write_bag(
        tmp_path / 'bag',
        StoragePlugin.MCAP,
        [('/a/image_raw', 'sensor_msgs/msg/Image', START, raw(START, 'a', array, encoding))],
    )
    assert open_data_set(path).episode(0).read('a', [0])[0, 2, 3].tolist() == list(pixel)


def test_an_unknown_encoding_is_named(tmp_path):
    image = raw(START, 'a', np.zeros((4, 6, 3), np.uint8), 'nv12')
    path = write_bag(tmp_path / 'bag', StoragePlugin.MCAP, [('/a/image_raw', 'sensor_msgs/msg/Image', START, image)])
    with pytest.raises(UserError, match="encoding 'nv12'"):
        open_data_set(path).episode(0).read('a', [0])


@pytest.mark.parametrize('form', ['32FC1 raw', '32FC1 packed', '16UC1 raw'])
def test_depth_is_metres_however_it_is_packed(tmp_path, form):
    depth = np.linspace(0.3, 2.0, 24).reshape(4, 6).astype(np.float32)
    depth[0, 0] = 0
    if form == '32FC1 raw':
        depth[0, 0] = np.nan
        message, kind, topic = raw(START, 'a', depth, '32FC1'), 'Image', '/a/depth/image_raw'
        depth[0, 0] = 0
    elif form == '16UC1 raw':
        message, kind, topic = (
            raw(START, 'a', np.round(depth * 1000).astype(np.uint16), '16UC1'),
            'Image',
            '/a/depth/image_raw',
        )
    else:
        scale, offset = 100.0, -10.0
        codes = np.where(depth > 0, np.round(scale / np.where(depth > 0, depth, 1) + offset), 0).astype(np.uint16)
        data = struct.pack('<iff', 0, scale, offset) + cv2.imencode('.png', codes)[1].tobytes()
        message, kind, topic = (
            packed(START, 'a', data, '32FC1; compressedDepth'),
            'CompressedImage',
            '/a/depth/image_raw/compressedDepth',
        )
    color = (
        '/a/color/image_raw',
        'sensor_msgs/msg/Image',
        START,
        raw(START, 'a', np.zeros((4, 6, 3), np.uint8), 'rgb8'),
    )
    path = write_bag(tmp_path / 'bag', StoragePlugin.MCAP, [color, (topic, f'sensor_msgs/msg/{kind}', START, message)])
    found = open_data_set(path).episode(0).read_depth('a', [0])[0]
    np.testing.assert_allclose(found, depth, atol=0.02 if 'packed' in form else 6e-4)
    assert found[0, 0] == 0


def test_cameras_are_called_by_what_is_theirs_of_a_topic():
    assert (
        camera_name('/camera/left/color/image_raw')
        == camera_name('/camera/left/aligned_depth_to_color/image_raw')
        == 'camera_left'
    )
    assert camera_name('/anchor_left/image_raw/compressed') == 'anchor_left' and camera_name('/image_raw') == 'camera'
