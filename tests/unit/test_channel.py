"""Messages, and what becomes of nonsense from the other side."""

import io
import json
import os
import struct
import threading

import numpy as np
import pytest

from prepare.channel import (
    MAX_FRAME_BYTES,
    Channel,
    ChannelClosed,
    ProtocolError,
    SharedFile,
    shared_array,
)


def receive(data: bytes) -> dict:
    return Channel(io.BytesIO(data), io.BytesIO()).receive()


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def test_a_message_arrives_as_it_was_sent():
    wire = io.BytesIO()
    Channel(io.BytesIO(), wire).send("progress", step=3, loss=1.5)
    assert receive(wire.getvalue()) == {"kind": "progress", "step": 3, "loss": 1.5}


def test_the_end_of_the_stream_is_a_closed_channel():
    for data in (b"", b"\0\0", frame(b'{"kind": "x"}')[:-1]):
        with pytest.raises(ChannelClosed):
            receive(data)


@pytest.mark.parametrize(
    "payload",
    [b"not json", b"[1, 2]", b'{"no": "kind"}', b'{"kind": 3}', b"\xff\xfe", b"[" * 10**5],
)
def test_what_is_no_message_is_a_protocol_error(payload):
    with pytest.raises(ProtocolError):
        receive(frame(payload))


def test_a_frame_has_a_largest_size():
    with pytest.raises(ProtocolError, match="at most"):
        receive(struct.pack(">I", MAX_FRAME_BYTES + 1) + b"x")


def test_sending_to_nobody_says_so():
    wire = io.BytesIO()
    wire.close()
    with pytest.raises(ChannelClosed):
        Channel(io.BytesIO(), wire).send("hello")


@pytest.mark.parametrize("named", [False, True])
def test_both_sides_of_a_shared_array_see_each_other(named, monkeypatch):
    if named:
        monkeypatch.setattr("prepare.channel._sealed_memory", lambda size: None)
    ours = SharedFile(12)
    theirs = shared_array(ours.address, (2, 3), "uint16")
    ours.write(6, np.array([[1, 2, 65535]], dtype=np.uint16))
    assert theirs.tolist() == [[0, 0, 0], [1, 2, 65535]]
    theirs[0, 1] = 7
    copy = ours.read(0, 6).view(np.uint16)
    theirs[0, 1] = 8
    assert copy.tolist() == [0, 7, 0]
    ours.close()
    assert not any(path.exists() for path in ours.paths)


def test_shared_memory_keeps_its_size():
    ours = SharedFile(8)
    if not ours.handles:
        pytest.skip("no memory without a name on this system")
    for size in (0, 4, 16):
        with pytest.raises(PermissionError):
            os.truncate(ours.handles[0], size)
    ours.close()


def test_what_is_sent_in_the_middle_of_sending_goes_with_the_next_message():
    wire = io.BytesIO()

    class Interrupted:
        """A stream in the middle of whose first write Python runs something else."""

        calls = 0

        def write(self, data):
            self.calls += 1
            if self.calls == 1:
                channel.send_soon("report", n=1)
            return wire.write(data)

        def flush(self):
            pass

    channel = Channel(io.BytesIO(), Interrupted())  # type: ignore[arg-type]
    channel.send("progress", step=1)
    reader = Channel(io.BytesIO(wire.getvalue()), io.BytesIO())
    assert [reader.receive()["kind"] for _ in range(2)] == ["progress", "report"]


def test_messages_are_plain_json():
    wire = io.BytesIO()
    Channel(io.BytesIO(), wire).send("x", value=None)
    assert json.loads(wire.getvalue()[4:]) == {"kind": "x", "value": None}


def test_the_other_side_can_not_move_where_the_harness_writes():
    """An inherited file has one position for both processes, and mapping it moves that."""
    if not hasattr(os, "pwrite"):
        pytest.skip("no positioned writes: no file is inherited here")
    ours = SharedFile(1 << 16)
    inherited = [os.dup(handle) for handle in ours.handles]
    stop = threading.Event()

    def seek() -> None:
        while not stop.is_set():
            for handle in inherited:
                os.lseek(handle, 0, os.SEEK_END)

    thread = threading.Thread(target=seek)
    thread.start()
    try:
        for round_ in range(300):
            block = np.full(1 << 12, round_ % 251, np.uint8)
            ours.write(round_ % 8 << 12, block)
            assert (ours.read(round_ % 8 << 12, 1 << 12) == block).all()
    finally:
        stop.set()
        thread.join()
        for handle in inherited:
            os.close(handle)
        ours.close()
