"""Operations of our own: compiled once, where there is a compiler, for the processor at hand."""

import os
import pathlib
import shutil
import subprocess

import pytest

from keras_backprop import native_library
from keras_backprop.privacy import noise
from keras_backprop.watch.native import figures

SOURCE = noise.SOURCE

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="a C compiler is needed: apt install gcc libc6-dev"
)


def loaded(source=SOURCE):
    return native_library._load.__wrapped__(source, noise.OPERATION)


@needs_compiler
def test_each_source_is_a_library_of_its_own(tmp_path):
    made = [native_library.compiled(source, ["cc"], tmp_path) for source in (noise.SOURCE, figures.SOURCE)]
    assert sorted(path.stem.split("-")[0] for path in made) == ["figures", "noise"]


def test_without_a_compiler_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    assert loaded() is False
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert loaded() is False
    monkeypatch.setenv("CC", "cc 'no end of it")
    assert loaded() is False
    monkeypatch.delenv("CC")
    monkeypatch.setenv("KERAS_BACKPROP_NATIVE", "0")
    assert loaded() is False


def no_home(path):
    raise RuntimeError("Could not determine home directory.")


@needs_compiler
def test_without_a_home_there_is_none(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "expanduser", no_home)
    assert loaded() is False


@pytest.mark.parametrize("given", ["", "relative/cache", None])
def test_a_cache_that_is_nowhere_is_in_the_home(given, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if given is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert native_library.cache_directory() == tmp_path / ".cache" / "keras_backprop"


@needs_compiler
def test_a_library_without_the_operation_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "nothing.c").write_bytes(b"int nothing; /* \xe2\x88\x91 */")
    assert loaded(tmp_path / "nothing.c") is False


@needs_compiler
def test_a_compiler_may_be_a_command(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "env IN_FRONT=1 cc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    assert loaded() is False  # for nothing was made
    assert commands[0][:3] == ["env", "IN_FRONT=1", "cc"]


@pytest.mark.parametrize(
    "told, native",
    [("flags\t\t: fpu avx2", True), ("Features\t: fp asimd", True), ("isa\t: rv64imafdc", False), (None, False)],
)
def test_only_what_is_told_of_the_processor_is_used(told, native, tmp_path):
    if told is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{told}\nprocessor\t: 1\n{told}\n")
    flags, processor = native_library._flags(tmp_path / "cpuinfo")
    assert ("-march=native" in flags) is native
    assert processor == (told if native else "")


def test_another_model_or_compiler_has_another_library(tmp_path):
    """`-march=native` goes by the model, too."""
    keys = set()
    for model, compiler in (("85", "gcc"), ("106", "gcc"), ("85", "clang")):
        (tmp_path / "cpuinfo").write_text(f"model\t\t: {model}\nmodel name\t: Any\nflags\t\t: avx2\n")
        flags, processor = native_library._flags(tmp_path / "cpuinfo")
        assert processor == f"flags\t\t: avx2\nmodel\t\t: {model}"
        keys.add(native_library._key(SOURCE, [compiler, *flags], processor))
    assert len(keys) == 3


@needs_compiler
@pytest.mark.parametrize("written_by_others", ["library", "owner"])
def test_what_others_may_write_is_not_loaded(written_by_others, monkeypatch, tmp_path):
    directory = tmp_path / "cache"
    library = native_library.compiled(SOURCE, ["cc"], directory)
    assert directory.stat().st_mode & 0o777 == library.stat().st_mode & 0o777 == 0o700
    if written_by_others != "owner":
        library.chmod(0o720)
    elif os.geteuid() == 0:
        os.chown(directory, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PermissionError, match="can be written by others: its mode is"):
        native_library.compiled(SOURCE, ["cc"], directory)


@needs_compiler
@pytest.mark.parametrize("mode", [0o775, 0o702])
def test_what_others_might_have_written_is_made_anew(mode, tmp_path):
    """In a directory of one's own, as one with the umask 002 is made."""
    directory = tmp_path / "cache"
    library = native_library.compiled(SOURCE, ["cc"], directory)
    made = library.read_bytes()
    library.write_bytes(b"of others")
    library.chmod(mode)
    directory.chmod(mode)
    assert native_library.compiled(SOURCE, ["cc"], directory) == library and library.read_bytes() == made
    assert directory.stat().st_mode & 0o777 == library.stat().st_mode & 0o777 == 0o700


@needs_compiler
def test_it_is_compiled_once(tmp_path, monkeypatch):
    made = native_library.compiled(SOURCE, ["cc"], tmp_path / "cache")
    assert [made] == list((tmp_path / "cache").iterdir())
    monkeypatch.setattr(subprocess, "run", None)
    assert native_library.compiled(SOURCE, ["cc"], tmp_path / "cache") == made
