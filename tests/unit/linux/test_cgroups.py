# SPDX-License-Identifier: Apache-2.0
"""Control groups are found by id, and containers by the paths that their runtimes choose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.linux.cgroups import Cgroups, Container, container_of, find_mount, mount_point

ID = "0123456789abcdef" * 4
POD = "11111111-2222-3333-4444-555555555555"
POD_ = POD.replace("-", "_")


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"/docker/{ID}", Container("docker", ID)),
        (f"/system.slice/docker-{ID}.scope", Container("docker", ID)),
        (f"/machine.slice/libpod-{ID}.scope", Container("podman", ID)),
        (f"/machine.slice/libpod-{ID}.scope/container", Container("podman", ID)),
        (f"/machine.slice/libpod-conmon-{ID}.scope", None),
        (f"/kubepods/burstable/pod{POD}/{ID}", Container("unknown", ID, POD)),
        (
            "/kubepods.slice/kubepods-burstable.slice/"
            f"kubepods-burstable-pod{POD_}.slice/cri-containerd-{ID}.scope",
            Container("containerd", ID, POD),
        ),
        (
            f"/kubepods.slice/kubepods-pod{POD_}.slice/crio-{ID}.scope",
            Container("cri-o", ID, POD),
        ),
        (
            f"/kubepods.slice/kubepods-pod{POD_}.slice:cri-containerd:{ID}",
            Container("containerd", ID, POD),
        ),
        (f"/docker/{'f' * 64}/kubepods/pod{POD}/{ID}", Container("docker", ID, POD)),
        ("/lxc/web", Container("lxc", "web")),
        ("/lxc.payload.web-1", Container("lxc", "web-1")),
        ("/system.slice/nginx.service", None),
        (f"/system.slice/docker-{ID[:-1]}.scope", None),
        ("/", None),
        ("", None),
    ],
)
def test_containers(path: str, container: Container | None) -> None:
    assert container_of(path) == container


@settings(deadline=None)
@given(st.text(alphabet="/0123456789abcdefpodlxc-_.:é\x00", max_size=200))
def test_any_path_is_survived(path: str) -> None:
    container_of(path)


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/unified\\040here rw,nosuid shared:9 - cgroup2 cgroup2 rw
"""


def test_the_mount_point_of_version_2() -> None:
    assert mount_point(MOUNTS) == "/sys/fs/cgroup/unified here"


def test_every_cut_of_the_mounts_is_survived() -> None:
    for length in range(len(MOUNTS)):
        assert mount_point(MOUNTS[:length]) in (None, "/sys/fs/cgroup/unified here")


@settings(deadline=None)
@given(st.text(alphabet="- cgroup2\\0479\n/é", max_size=200))
def test_any_mounts_are_survived(text: str) -> None:
    mount_point(text)


def test_no_version_2(tmp_path: Path) -> None:
    assert mount_point(MOUNTS.replace("cgroup2", "cgroup")) is None
    assert find_mount(tmp_path) is None
    assert Cgroups(None).path(1, now_s=0.0) is None


def test_paths_by_id_follow_new_groups_but_not_at_every_question(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "file").touch()
    cgroups = Cgroups(tmp_path, rescan_s=1.0)
    assert cgroups.path(os.stat(tmp_path).st_ino, now_s=10.0) == "/"
    assert cgroups.path(os.stat(tmp_path / "a" / "b").st_ino, now_s=10.0) == "/a/b"
    assert cgroups.path(os.stat(tmp_path / "file").st_ino, now_s=20.0) is None

    (tmp_path / "new").mkdir()
    number = os.stat(tmp_path / "new").st_ino
    assert [cgroups.path(number, now_s) for now_s in (20.5, 21.0)] == [None, "/new"]
    (tmp_path / "new").rmdir()
    assert cgroups.path(number, now_s=30.0) == "/new"


def test_a_mount_that_is_gone_answers_nothing(tmp_path: Path) -> None:
    assert Cgroups(tmp_path / "gone").path(1, now_s=0.0) is None
