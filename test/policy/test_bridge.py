"""The wrist camera over a socket: the same promises and codes as over ROS, for clients that come, go, stall and lie."""

import os
import socket
import stat
import struct
import threading
import time

import msgspec
import numpy as np
import pytest

from wristworld_client import (
    CameraClosedError,
    ConnectionFailedError,
    FrameTimeoutError,
    InvalidFrameError,
    StaleFrameError,
    WristCameraError,
    WristClient,
)
from wristworld_ros.errors import UserError
from wristworld_ros.policy.bridge import FITS, FrameServer
from wristworld_ros.policy.fitting import letterbox, stretch
from wristworld_ros.policy.settings import FIT_NAMES, BridgeSettings
from wristworld_ros.setting import check
from wristworld_ros.types import FrameStatus, Geometry

S = 1_000_000_000


@pytest.fixture(params=['tcp', 'tcp6', 'unix'])
def address(request, tmp_path):
    return {'tcp': 'tcp:127.0.0.1:0', 'tcp6': 'tcp:[::1]:0', 'unix': f'unix:{tmp_path}/wrist.sock'}[request.param]


@pytest.fixture
def serve(source):
    """Starts servers of the source; closes them."""
    source.time_ns = 1000 * S
    made = []

    def start(address='tcp:127.0.0.1:0', **settings):
        made.append(FrameServer(source, BridgeSettings(address=address, **settings)))
        return made[-1]

    yield start
    for server in made:
        server.close()


@pytest.fixture
def client(serve):
    with WristClient(serve().address) as one:
        yield one


def test_an_image_arrives_to_the_bit_with_all_that_was_said_of_it(serve, source, address):
    server = serve(address)
    with WristClient(server.address) as client:
        sent_ns = source.put(stamp_ns=source.time_ns - S // 8)
        wrist, theirs = source.latest.get()[1].image, client.read_latest()
    np.testing.assert_array_equal(theirs.image, wrist.image)
    assert theirs.image.dtype == np.uint8 and theirs.image.flags.writeable and theirs.image.flags.c_contiguous
    assert theirs.stamp_ns == sent_ns and theirs.age == pytest.approx(0.125)
    np.testing.assert_array_equal(theirs.K, wrist.camera.K)
    np.testing.assert_array_equal(theirs.T_camera_world, wrist.camera.T_camera_world)
    np.testing.assert_array_equal(theirs.residuals, wrist.residuals)
    assert (theirs.world, theirs.frame_id) == ('fr3_link0', 'virtual_wrist_optical_frame')
    assert (theirs.coverage, theirs.confidence, int(theirs.geometry)) == (0.75, 0.5, Geometry.RGBD)
    assert np.isnan(theirs.agreement)


def test_read_waits_for_a_frame_that_comes_after_the_call(client, source, in_a_thread):
    source.put(stamp_ns=source.time_ns - 1)
    client.read_latest()
    result = in_a_thread(lambda: client.read(timeout=10))
    stamp_ns = source.put()
    assert result().stamp_ns == stamp_ns


def test_async_read_gives_every_frame_once_to_every_client(serve, source, in_a_thread):
    server = serve()
    with WristClient(server.address) as one, WristClient(server.address) as two:
        stamp_ns = source.put()
        assert one.async_read(0).stamp_ns == two.async_read(0).stamp_ns == one.read_latest().stamp_ns == stamp_ns
        result = in_a_thread(lambda: one.async_read(10))
        stamp_ns = source.put(stamp_ns=stamp_ns + 1)
        assert result().stamp_ns == two.async_read(0).stamp_ns == stamp_ns


@pytest.mark.parametrize('status', [s for s in FrameStatus if s is not FrameStatus.VALID])
def test_an_invalid_frame_raises_with_the_same_code_and_sentence(client, source, status):
    source.put()
    source.put(status=status)
    for read in (client.read_latest, lambda: client.async_read(0)):
        with pytest.raises(WristCameraError, match='The cup is in the way') as error:
            read()
        assert error.value.status == status and error.value.status.name == status.name
        assert type(error.value) is (StaleFrameError if status is FrameStatus.STALE else InvalidFrameError)


def test_old_frames_and_silence_are_timeout_errors(client, source):
    with pytest.raises(FrameTimeoutError, match=r'the test sends nothing\); send something\.') as error:
        client.read(timeout=0.05)
    assert error.value.status is None and isinstance(error.value, TimeoutError)
    source.put()
    source.time_ns += S
    with pytest.raises(StaleFrameError, match=r'1\.00 s old') as error:
        client.read_latest()
    assert error.value.status == FrameStatus.STALE and isinstance(error.value, TimeoutError)
    assert client.read_latest(max_age=2.0).age == pytest.approx(1.0)
    assert client.read_latest(max_age=np.float32(2.0)).age == pytest.approx(1.0)


def test_after_an_error_the_connection_goes_on(client, source):
    with pytest.raises(WristCameraError, match='max_age is'):
        client.read_latest(max_age=-1)
    for wrong in (61, None, '1', float('nan')):
        with pytest.raises(WristCameraError, match='timeout is'):
            client.read(timeout=wrong)
    source.put()
    assert client.read_latest().image.shape == (96, 128, 3)


def test_images_come_at_the_size_of_the_policy(serve, source):
    for fit, hw, how in (('openpi_droid', (224, 224), letterbox), ('octo', (128, 128), stretch)):
        server = serve(fit=fit)
        with WristClient(server.address) as client:
            source.put()
            theirs, wrist = client.read_latest(), source.latest.get()[1].image
            np.testing.assert_array_equal(theirs.image, how(wrist.image, *hw))
            assert theirs.K[1, 2] != wrist.camera.K[1, 2] and client.hello()['fit'] == fit
    assert tuple(FITS) == FIT_NAMES


def test_the_server_says_who_it_is(client):
    hello = client.hello()
    assert hello['server'] == 'wristworld' and hello['protocol'] == 1 and hello['max_age'] == 0.5


def test_a_server_that_ends_wakes_its_clients_and_a_new_one_is_found_by_the_next_call(
    serve, source, tmp_path, in_a_thread
):
    address = f'unix:{tmp_path}/wrist.sock'
    server = serve(address)
    client = WristClient(address)
    result = in_a_thread(lambda: client.read(60))
    server.close()
    source.put()  # the thread that kept the promise finds its client gone
    assert isinstance(result(), ConnectionFailedError) and not (tmp_path / 'wrist.sock').exists()
    with pytest.raises(ConnectionFailedError, match='wristworld serve') as error:
        client.read_latest()
    assert isinstance(error.value, ConnectionError)
    serve(address)
    source.put()
    assert client.read_latest().image.shape == (96, 128, 3)
    client.close()


def test_a_camera_that_closes_is_said_to_be_closed(client, source, in_a_thread):
    result = in_a_thread(lambda: client.read(60))
    source.latest.close()
    assert isinstance(result(), CameraClosedError)
    with pytest.raises(CameraClosedError):
        client.read_latest()


def test_a_client_that_closes_wakes_its_own_thread_and_stays_closed(serve, in_a_thread):
    client = WristClient(serve().address)
    result = in_a_thread(lambda: client.read(60))
    client.close()
    assert isinstance(result(), CameraClosedError)
    with pytest.raises(CameraClosedError):
        client.read_latest()


def test_more_clients_than_allowed_are_told_and_room_is_made_by_those_who_leave(serve, source):
    server = serve(clients=1)
    source.put()
    one, two = WristClient(server.address), WristClient(server.address)
    one.read_latest()
    with pytest.raises(WristCameraError, match=r'1 clients, which is all it takes.*--clients'):
        two.read_latest()
    one.close()
    end = time.monotonic() + 10
    while server.clients:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert two.read_latest().image.shape == (96, 128, 3)
    two.close()


# Strangers


def exchange(address, data):
    """Send bytes to a server; the map that it answers, None where it closes."""
    host, port = address.removeprefix('tcp:').rsplit(':', 1)
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        with connection.makefile('rb') as file:
            lengths = file.read(8)
            if len(lengths) < 8:
                return None
            size, pixels = struct.unpack('>II', lengths)
            answer = msgspec.msgpack.decode(file.read(size))
            assert len(file.read(pixels)) == pixels
            return answer


def framed(value):
    body = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    return struct.pack('>II', len(body), 0) + body


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'GET / HTTP/1.1\r\n\r\n', 'what is no request'),
        (struct.pack('>II', 1 << 30, 0), 'what is no request'),
        (struct.pack('>II', 0, 0), 'what is no request'),
        (struct.pack('>II', 5, 7) + b'x' * 12, 'what is no request'),
        (framed(b'\xc1'), 'not msgpack'),
        (framed(b'\x91' * 4000), 'not msgpack'),
        (framed([1, 2]), 'protocol None'),
        (framed({'protocol': 2, 'call': 'read'}), 'protocol 2, and the server 1'),
        (framed({'protocol': 1}), 'calls .None.'),
        (framed({'protocol': 1, 'call': ['read']}), 'call one of hello, read'),
        (framed({'protocol': 1, 'call': 'read', 'timeout': 'soon'}), 'timeout is soon'),
        (framed({'protocol': 1, 'call': 'read', 'timeout': float('nan')}), 'timeout is nan'),
        (framed({'protocol': 1, 'call': 'read', 'timeout': 1e9}), '0 to 60'),
        (framed({'protocol': 1, 'call': 'read_latest', 'max_age': True}), 'max_age is True'),
    ],
)
def test_what_is_no_request_is_answered_with_a_sentence(serve, data, words):
    import re

    answer = exchange(serve().address, data)
    assert re.search(words, answer['error']['what'] + answer['error']['fix']) and answer['error']['kind'] == 'request'


def test_strangers_disturb_nobody(serve, source):
    server = serve()
    source.put()
    with WristClient(server.address) as client:
        client.read_latest()
        for data in (b'', b'\x00\x00', framed({'protocol': 1, 'call': 'hello'})[:-3]):
            host, port = server.address.removeprefix('tcp:').rsplit(':', 1)
            with socket.create_connection((host, int(port))) as stranger:
                stranger.sendall(data)
        exchange(server.address, b'nonsense' * 100)
        assert client.read_latest().image.shape == (96, 128, 3)


@pytest.mark.parametrize(
    ('answer', 'words'),
    [
        (b'HTTP/1.1 400 Bad Request\r\n\r\n', 'no wristworld server'),
        (framed({'protocol': 7}), 'speaks protocol 7, and this client 1'),
        (framed({'protocol': 1}), 'does not answer'),
        (framed({'protocol': 1, 'error': None, 'server': 'another'}), 'no wristworld server'),
        (framed(b'\xc1'), 'does not answer'),
        (b'', 'closed the connection'),
        (struct.pack('>II', 100, 0) + b'abc', 'closed the connection'),
    ],
)
def test_a_client_takes_nothing_from_another_server(answer, words):
    with socket.create_server(('127.0.0.1', 0)) as listener:

        def reply():
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(answer)
            connection.close()

        thread = threading.Thread(target=reply)
        thread.start()
        client = WristClient(f'tcp:127.0.0.1:{listener.getsockname()[1]}')
        with pytest.raises(ConnectionFailedError, match=words):
            client.read_latest()
        thread.join(10)
        client.close()


# Addresses


def test_a_unix_socket_is_for_this_user_alone_and_taken_off_at_the_end(serve, tmp_path):
    server = serve(f'unix:{tmp_path}/wrist.sock')
    assert stat.S_IMODE((tmp_path / 'wrist.sock').stat().st_mode) == 0o600
    server.close()
    assert not (tmp_path / 'wrist.sock').exists()


def test_the_socket_of_a_dead_server_is_replaced_and_that_of_a_live_one_is_not(serve, source, tmp_path):
    path = tmp_path / 'wrist.sock'
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    server = serve(f'unix:{path}')
    with pytest.raises(UserError, match='taken by another program'):
        serve(f'unix:{path}')
    source.put()
    with WristClient(server.address) as client:
        client.read_latest()


def test_an_address_that_cannot_be_taken_is_one_sentence(serve, tmp_path):
    (tmp_path / 'file').touch()
    taken = serve().address
    for address, words in (
        (taken, 'taken by another program'),
        (f'unix:{tmp_path}/file', 'is no socket'),
        (f'unix:{tmp_path}/no/folder/s', 'No such file'),
        (f'unix:{tmp_path}/{"x" * 200}', 'too long'),
        ('tcp:127.0.0.1:99999', 'is 99999; give 0 to 65535'),
    ):
        with pytest.raises(UserError, match=words):
            serve(address)
    assert os.path.exists(tmp_path / 'file')


@pytest.mark.parametrize(
    'address', ['tcp:0.0.0.0:5650', 'tcp:192.168.0.2:5650', 'tcp:127.0.0.1', 'unix:', '5650', 'tcp:example.com:1']
)
def test_only_loopback_and_unix_sockets_are_allowed(address):
    with pytest.raises(UserError, match='address is'):
        check(BridgeSettings(address=address))


@pytest.mark.parametrize('address', ['127.0.0.1:5650', 'tcp:127.0.0.1', 'unix:', 'tcp::1', 'tcp:127.0.0.1:99999', ''])
def test_a_client_says_what_an_address_is(address):
    with pytest.raises(WristCameraError, match='give tcp:HOST:PORT or unix:PATH'):
        WristClient(address)


@pytest.mark.parametrize(
    'address', ['tcp:127.0.0.1:0', 'tcp:localhost:5650', 'tcp:[::1]:5650', 'unix:/run/user/1000/wrist.sock']
)
def test_addresses_of_this_machine_are_allowed(address):
    check(BridgeSettings(address=address))
