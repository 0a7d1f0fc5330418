"""Files on disk: which may be read and replaced, and the effects of killed processes and full disks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time

import fastgru
import numpy as np
import peers
import pytest
from concurrency import in_threads
from fastgru import Sequential, callbacks, layers, load_model
from fastgru._support.files import trial_name, write_atomically
from fastgru.cli import main
from models import FILE_NAMES, for_file

pytestmark = pytest.mark.isa_independent

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="making devices needs root")


def save(model, path):
    (model.save_weights if str(path).endswith(".weights.h5") else model.save)(path)


def load(path, like):
    if str(path).endswith(".weights.h5"):
        like.load_weights(path)
        return like
    return load_model(path)


@contextlib.contextmanager
def soon(seconds=5):
    """Make blocking calls fail instead."""

    def fail(*_):
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- Only regular files -------------------------------------------------------------------------------------------


def device(path):
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # another /dev/null


def unix_socket(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:  # names of sockets are short
        made.bind(path.name)


def loop(path):
    path.symlink_to(f"{path.name}.2")
    path.with_name(f"{path.name}.2").symlink_to(path.name)


SPECIAL = {
    "fifo": (os.mkfifo, "got a FIFO"),
    "link to a fifo": (lambda path: (os.mkfifo(path.with_name("fifo")), path.symlink_to("fifo")), "got a FIFO"),
    "device": (device, "got a character device"),
    "socket": (unix_socket, "got a socket"),
    "loop": (loop, "Too many levels of symbolic links"),
}
special = pytest.mark.parametrize("kind", [pytest.param(k, marks=needs_root if k == "device" else ()) for k in SPECIAL])


def listing(folder):
    return {path.name: path.lstat().st_mode for path in folder.iterdir()}


@special
@pytest.mark.parametrize("name", peers.parameters(FILE_NAMES))
def test_nothing_but_a_regular_file_is_replaced(kind, name, tmp_path):
    make, message = SPECIAL[kind]
    make(tmp_path / name)
    before = listing(tmp_path)
    with soon(), pytest.raises(OSError, match=f"{name}.*{message}|{message}.*{name}"):
        save(for_file(name), tmp_path / name)
    assert listing(tmp_path) == before


@special
@pytest.mark.parametrize("name", peers.parameters(FILE_NAMES))
def test_nothing_but_a_regular_file_is_read(kind, name, tmp_path):
    make, message = SPECIAL[kind]
    make(tmp_path / name)
    with soon(), pytest.raises(OSError, match=message):
        load(tmp_path / name, for_file(name))
    if not name.endswith(".weights.h5"):
        for form in fastgru.formats.KINDS:
            if form == "onnx" and not name.endswith("onnx"):
                continue
            with soon(), pytest.raises(OSError, match=message):
                load_model(tmp_path / name, format=form)


@pytest.mark.parametrize("name", peers.parameters(name for name in FILE_NAMES if name != "m.json"))
def test_a_folder_is_no_file(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match=name):
        save(for_file(name), tmp_path / name)
    with pytest.raises(IsADirectoryError, match=name):
        load(tmp_path / name, for_file(name))
    assert list((tmp_path / name).iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == [name]


@special
def test_other_writers_replace_no_special_file_either(kind, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install matplotlib")
    make, message = SPECIAL[kind]
    for name in ("log.csv", "checkpoint.safetensors", "plot.png", "out.npz", "resume.safetensors"):
        make(tmp_path / name)
        if kind == "link to a fifo":
            (tmp_path / "fifo").unlink()
    if kind == "link to a fifo":
        os.mkfifo(tmp_path / "fifo")
    before = listing(tmp_path)
    model = for_file("m.safetensors")
    model.compile("adam", "mse")
    x, y = np.zeros((4, 3, 2), np.float32), np.zeros((4, 3, 2), np.float32)
    for told in (
        callbacks.CSVLogger(tmp_path / "log.csv"),
        callbacks.CSVLogger(tmp_path / "log.csv", append=True),
        callbacks.ModelCheckpoint(tmp_path / "checkpoint.safetensors"),
    ):
        with soon(), pytest.raises(OSError, match=message):
            model.fit(x, y, verbose=0, callbacks=[told])
    assert model.optimizer.step == 0  # the error came before the first epoch
    with soon(), pytest.raises(OSError, match=message):
        model.fit(x, y, verbose=0, resume_from=tmp_path / "resume.safetensors")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    model.save(tmp_path / "model.safetensors")
    for arguments in (
        ["train", "data.npz", "--plot", "plot.png"],
        ["train", "data.npz", "--save", "checkpoint.safetensors"],
        ["predict", "model.safetensors", "data.npz", "--out", "out.npz"],
        ["convert", "model.safetensors", "checkpoint.safetensors"],
    ):
        with soon(20), contextlib.chdir(tmp_path):
            assert main(arguments) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "data.npz").unlink()
    (tmp_path / "model.safetensors").unlink()
    assert listing(tmp_path) == before


def test_a_link_to_nothing_is_followed(tmp_path):
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", b"contents")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"contents"


# --- Names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", peers.parameters(FILE_NAMES))
def test_a_nul_in_a_name_is_refused_and_leaves_nothing(name, tmp_path):
    path = f"{tmp_path}/{'x' * 40}\0{name}"
    with pytest.raises(ValueError, match="path: expected the name of a file, which cannot have a NUL character"):
        save(for_file(name), path)
    with pytest.raises(ValueError, match=r"path: .*NUL"):
        load(path, for_file(name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", peers.parameters(FILE_NAMES))
def test_a_name_that_is_too_long_is_refused_and_leaves_nothing(name, tmp_path):
    path = tmp_path / f"{'x' * 300}{name}"
    with pytest.raises(OSError, match="File name too long") as caught:
        save(for_file(name), path)
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_keeps_its_permissions_and_a_new_one_has_ordinary_ones(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"1")
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    for mode in (0o600, 0o640, 0o444, 0o755):
        path.chmod(mode)
        write_atomically(path, b"2")
        assert stat.S_IMODE(path.stat().st_mode) == mode


# --- A full disk --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_of(size):
    """Limit the size of files, so that `write` raises the system's own error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", peers.parameters(FILE_NAMES))
def test_a_full_disk_names_the_file_and_leaves_the_old_one(name, tmp_path):
    path = tmp_path / name
    save(for_file(name), path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    larger = for_file(name, 30)
    with disk_of(4096), pytest.raises(OSError, match="File too large") as caught:
        save(larger, path)
    # A TensorFlow.js model has its weights in a separate file.
    assert caught.value.filename == str(path) or (name == "m.json" and caught.value.filename.endswith(".bin"))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_full_disk_names_the_log(tmp_path):
    model = for_file("m.safetensors")
    model.compile("adam", "mse")
    x = np.zeros((4, 3, 2), np.float32)
    with disk_of(40), pytest.raises(OSError, match="File too large") as caught:
        model.fit(x, x, epochs=9, verbose=0, callbacks=[callbacks.CSVLogger(tmp_path / "log.csv")])
    assert caught.value.filename == str(tmp_path / "log.csv")


@needs_root
@pytest.mark.parametrize("name", peers.parameters(FILE_NAMES))
def test_a_real_full_disk(name, tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("cannot mount a file system here")
    try:
        path = tmp_path / name
        save(for_file(name), path)
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        with pytest.raises(OSError, match="No space left on device") as caught:
            save(for_file(name, 100), path)
        assert caught.value.errno == errno.ENOSPC
        assert name.partition(".")[0] in caught.value.filename
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# --- Files of killed processes ------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from fastgru import Sequential, layers
path, calls = sys.argv[1], int(sys.argv[2])
gru = {"reset_after": False, "recurrent_activation": "hard_sigmoid_tfjs"} if path.endswith("m.json") else {}
model = Sequential([layers.GRU(5, return_sequences=True, input_shape=(None, 2), **gru), layers.Dense(2)])
replace, unlink = os.replace, os.unlink

def die(act):
    def counted(*arguments, **options):
        global calls
        if calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        calls -= 1
        return act(*arguments, **options)
    return counted

os.replace, os.unlink = die(replace), die(unlink)
(model.save_weights if path.endswith(".weights.h5") else model.save)(path)
"""


def killed_while_saving(path, calls=0):
    done = subprocess.run([sys.executable, "-c", KILLED, path, str(calls)], capture_output=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", peers.parameters(FILE_NAMES))
def test_the_next_save_removes_what_a_killed_one_left(name, tmp_path):
    for _ in range(3):
        assert killed_while_saving(tmp_path / name)
        assert len(names(tmp_path)) == 1  # that of the last process
    save(for_file("m.safetensors"), tmp_path / "another.safetensors")
    assert names(tmp_path) == ["another.safetensors"]


@pytest.mark.slow
def test_shards_that_a_killed_save_left_are_removed(tmp_path):
    """Killed at any point: before the JSON was renamed, after it, and while the old shards were removed."""
    path = tmp_path / "m.json"
    save(for_file("m.json"), path)
    (tmp_path / "m-shard1of1-0123456789abcdef.bin").write_bytes(b"not what its name says")
    (tmp_path / "mm-shard1of1-0123456789abcdef.bin").write_bytes(b"of another model")
    kills = 0
    while killed_while_saving(path, kills):
        kills += 1
        load_model(path)
        save(for_file("m.json", 3 + kills), path)
        current = json.loads(path.read_text())["weightsManifest"][0]["paths"]
        assert names(tmp_path) == sorted(
            [*current, "m-shard1of1-0123456789abcdef.bin", "m.json", "mm-shard1of1-0123456789abcdef.bin"]
        )
    assert kills >= 3


def test_a_file_that_a_living_process_writes_stays(tmp_path):
    code = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "print('ready', flush=True); sys.stdin.readline()")
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "theirs.safetensors", "0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        (temporary,) = names(tmp_path)
        for number in range(3):
            save(for_file("m.safetensors"), tmp_path / f"ours{number}.safetensors")
        assert temporary in names(tmp_path)
        process.stdin.write("go on\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdin.close()
        assert process.wait() == 0
    load_model(tmp_path / "theirs.safetensors")


def test_files_of_others_stay(tmp_path, monkeypatch):
    (tmp_path / "killed").mkdir()
    assert killed_while_saving(tmp_path / "killed" / "m.safetensors")
    (left,) = (tmp_path / "killed").iterdir()
    _, _, name = left.name.rpartition(".safetensors.")
    machine = name.partition("-")[0]
    other = "0" * 8 if machine != "0" * 8 else "1" * 8
    stay = [
        ".m.abcd1234.tmp",  # of another program
        f".m.{machine}-12345678.fastgru.tmp.bak",
        f".m.{machine}-1234567.fastgru.tmp",
        f"m.{machine}-12345678.fastgru.tmp",
        f".m.{other}-12345678.fastgru.tmp",  # of another machine, which may be writing it
    ]
    for each in stay:
        (tmp_path / each).write_bytes(b"x")
    (tmp_path / "target").write_bytes(b"x")
    (tmp_path / f".link.{machine}-12345678.fastgru.tmp").symlink_to("target")
    os.link(tmp_path / "target", tmp_path / f".name.{machine}-12345678.fastgru.tmp")
    os.mkfifo(tmp_path / f".fifo.{machine}-12345678.fastgru.tmp")
    (tmp_path / f".folder.{machine}-12345678.fastgru.tmp").mkdir()
    before = names(tmp_path)
    (tmp_path / f".m.{machine}-12345678.fastgru.tmp").write_bytes(b"x")
    (tmp_path / f".m.{other}-87654321.fastgru.tmp").write_bytes(b"x")
    day_old = time.time() - 25 * 3600
    os.utime(tmp_path / f".m.{other}-87654321.fastgru.tmp", (day_old, day_old))
    if os.geteuid() == 0:
        strange = tmp_path / f".strange.{machine}-12345678.fastgru.tmp"
        strange.write_bytes(b"x")
        os.chown(strange, 12345, 12345)
        before = sorted([*before, strange.name])
    with soon():
        write_atomically(tmp_path / "target", b"y")
    assert names(tmp_path) == before


def test_a_trial_folder_is_removed_when_its_process_has_died(tmp_path):
    with trial_name(tmp_path / "m.onnx") as trial:
        trial.write_bytes(b"x")
        write_atomically(tmp_path / "other", b"y")  # which removes what nobody uses
        assert trial.exists()
    assert names(tmp_path) == ["other"]
    child = os.fork()
    if child == 0:
        with trial_name(tmp_path / "m.onnx") as trial:
            trial.write_bytes(b"x")
            os._exit(0)
    os.waitpid(child, 0)
    assert len(names(tmp_path)) == 2
    write_atomically(tmp_path / "other", b"z")
    assert names(tmp_path) == ["other"]


@pytest.mark.slow
def test_without_locks_files_are_written_and_none_is_removed(tmp_path, monkeypatch):
    path = tmp_path / "m.json"
    assert killed_while_saving(path)
    assert killed_while_saving(path, 1)
    before = set(names(tmp_path))

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    save(for_file("m.json"), path)
    assert before < set(names(tmp_path))
    load_model(path)


def test_another_program_that_locks_the_folder_delays_nobody_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(fastgru._support.files, "_PATIENCE_SECONDS", 0.1)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with soon():
        save(for_file("m.json"), tmp_path / "m.json")
    os.close(folder)
    load_model(tmp_path / "m.json")


def test_many_saves_at_once_leave_whole_files_and_nothing_else(tmp_path):
    """Threads replace processes: each opens its own files, and locks belong to open files."""
    failures = []

    def work(number):
        try:
            model = for_file("m.json", 3 + number)
            for _ in range(8):
                save(model, tmp_path / "m.json")
                save(model, tmp_path / "m.safetensors")
                save(model, tmp_path / f"{number}.safetensors")
        except BaseException as error:
            failures.append(error)

    in_threads(4, work, numbered=True)
    assert not failures
    load_model(tmp_path / "m.json")
    load_model(tmp_path / "m.safetensors")
    (shard,) = json.loads((tmp_path / "m.json").read_text())["weightsManifest"][0]["paths"]
    assert names(tmp_path) == sorted(["m.json", "m.safetensors", shard, *(f"{n}.safetensors" for n in range(4))])
    assert hashlib.sha256((tmp_path / shard).read_bytes()).hexdigest()[:16] in shard


# --- Files that change while they are read --------------------------------------------------------------------------

CUT = """
import os, sys
import fastgru
from fastgru.formats import native
path, after_open = sys.argv[1], native._require_known_format

def cut(*arguments):  # the file is open, and its header has been read
    after_open(*arguments)
    os.truncate(path, 4096)

native._require_known_format = cut
model = fastgru.load_model(path)
print(model.parameters.size)
"""


@pytest.mark.slow
def test_a_file_that_is_cut_while_it_is_read_does_not_end_the_process(tmp_path):
    """Reading a memory-mapped file that was truncated ends the process with SIGBUS."""
    path = tmp_path / "m.safetensors"
    model = for_file("m.safetensors", 300)
    model.save(path)
    done = subprocess.run([sys.executable, "-c", CUT, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{model.parameters.size}\n"


LOAD_OFTEN = """
import sys
import fastgru
from fastgru import Sequential, layers
path = sys.argv[1]
load = fastgru.load_model
if path.endswith(".weights.h5"):
    load = Sequential([layers.GRU(300, return_sequences=True, input_shape=(None, 50)), layers.Dense(2)]).load_weights
print("ready", flush=True)
loaded = refused = 0
for _ in range(10):
    try:
        load(path)
        loaded += 1
    except fastgru.ModelFileError:
        refused += 1
print(loaded + refused)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", peers.parameters(FILE_NAMES))
def test_a_file_overwritten_in_place_while_it_is_read_is_one_error_or_none(name, tmp_path):
    path = tmp_path / name
    gru = {"reset_after": False, "recurrent_activation": "hard_sigmoid_tfjs"} if name == "m.json" else {}
    units = 50 if name == "m.rtneural.json" else 300
    save(Sequential([layers.GRU(units, return_sequences=True, input_shape=(None, 50), **gru), layers.Dense(2)]), path)
    data = path.read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", LOAD_OFTEN, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        with path.open("r+b") as file:
            while process.poll() is None:
                file.truncate(len(data) // 8)
                file.seek(0)
                file.write(data)
                file.flush()
        assert process.returncode == 0, process.stderr.read()
        assert process.stdout.read() == "10\n"
