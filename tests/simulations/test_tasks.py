"""Learning tasks: bounds, splits that leak nothing, what is not public, importers that say what is wrong."""

from __future__ import annotations

import gzip
import shutil
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from simulations.tasks import agri, faults, npz, soil, speech, voice
from simulations.tasks.catalogue import TASKS, build
from simulations.tasks.tables import SHARED_DATA
from simulations.tasks.task import CLASSES_MAX, SAMPLES_PER_NODE_MAX, TaskError, macro_f1
from swarm.prng import Prng

needs_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"{SHARED_DATA} is not there")
needs_voice = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="apt-get install espeak-ng")


def made(name: str, nodes: int = 24, seed: int = 1):
    if name == "digits":
        pytest.importorskip("sklearn", reason="pip install 'loraswarm[bench]'")
    if name.startswith(("voice", "wake")) and shutil.which("espeak-ng") is None:
        pytest.skip("apt-get install espeak-ng")
    if (name.startswith(("soil", "faults")) or name.endswith("_real")) and not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is not there")
    return build(name, nodes, seed, None)


@pytest.mark.parametrize("name", ["agri", "digits", "soil", "faults", "disease_next"])
def test_a_task_is_within_bounds_and_follows_from_its_seed(name: str) -> None:
    """Goal: equal arguments, equal data; another seed, other data.  Method: build thrice, compare bytes."""
    one, same, other = made(name), made(name), made(name, seed=2)
    for part in ("public", "train", "validation", "test"):
        ours, theirs = getattr(one, part), getattr(same, part)
        assert ours.x.tobytes() == theirs.x.tobytes() and ours.label.tobytes() == theirs.label.tobytes()
        assert np.isfinite(ours.x).all() and ours.x.dtype == np.float32
    assert one.train.x.tobytes() != other.train.x.tobytes()
    assert len(one.classes) <= CLASSES_MAX and one.features <= 256
    assert np.bincount(one.train.node).max() <= SAMPLES_PER_NODE_MAX
    assert set(one.train.node) == set(range(one.nodes))
    # A node never leaves its context.
    for part in (one.train, one.validation, one.test):
        assert (one.node_context[part.node] == part.context).all()


def test_agri_leaves_public_data_without_half_of_the_crops() -> None:
    task = agri.agri(48, 1)
    assert set(task.public.context) == set(agri.PUBLIC_CROPS)
    assert set(task.test.context) == set(range(len(agri.CROPS)))
    # The rule knows the published crops better than the others.
    right = task.test.rule == task.test.label
    said = {crop: np.mean(right[task.test.context == crop]) for crop in range(6)}
    assert np.mean([said[c] for c in agri.PUBLIC_CROPS]) > np.mean([said[c] for c in (3, 4, 5)])


def test_digit_pictures_are_on_one_side_only() -> None:
    """Method: undistorted and without noise a node sees the very picture; count shared ones by pixels."""
    pytest.importorskip("sklearn", reason="pip install 'loraswarm[bench]'")
    from simulations.tasks import digits

    quiet = replace(digits.FIELDS[0], noise=0.0)
    patched = (quiet,) * 8
    original, digits.FIELDS = digits.FIELDS, patched
    try:
        task = digits.digits(16, 3)
    finally:
        digits.FIELDS = original

    def shapes(part) -> set[bytes]:
        # The wobble of the light scales a picture; its shape stays.
        return {np.rint(20 * row / max(row.max(), 1e-6)).astype(int).tobytes() for row in part.x}

    seen = [shapes(part) for part in (task.public, task.train, task.validation, task.test)]
    for i, ours in enumerate(seen):
        for theirs in seen[i + 1 :]:
            assert len(ours & theirs) <= 0.01 * len(theirs)


def channel(seed: int = 0) -> faults._Channel:
    rng = np.random.default_rng(seed)
    hours = np.arange(24 * 200)
    values = 15 + 6 * np.sin(2 * np.pi * hours / 24) + rng.normal(0, 0.3, len(hours))
    found = faults._channel("t", hours, values)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", range(1, 7))
def test_a_fault_changes_the_last_day_only_and_as_it_is_called(kind: int) -> None:
    own, rng = channel(), np.random.default_rng(kind)
    for start in (0, 100, 1000):
        window = own.values[start : start + 48]
        broken = faults._injected(window, kind, own, rng)
        changed = np.flatnonzero(broken != window)
        assert len(changed) and changed.min() >= 24
        if kind == faults.SPIKE:
            assert len(changed) <= 3 and np.abs(broken - window).max() >= 2 * own.spread
        if kind == faults.STUCK:
            assert len(np.unique(broken[changed.min() - 1 :])) == 1
        if kind == faults.DROPOUT:
            assert (broken[changed] < own.lowest).all() and 4 <= len(changed) <= 12
        if kind == faults.OFFSET:
            assert np.allclose(np.diff(broken - window)[changed[:-1]], 0.0, atol=1e-9)
    assert np.array_equal(faults._injected(window, faults.OK, own, rng), window)


@needs_data
def test_two_kinds_of_fault_are_new_and_each_node_met_two() -> None:
    task, control = made("faults"), made("faults_known")
    assert len(np.unique(task.public.label)) == 5 and len(np.unique(control.public.label)) == 7
    assert control.negative_control and not task.negative_control
    for node in range(task.nodes):
        met = np.unique(task.train.label[task.train.node == node])
        assert 0 in met and len(met) == 3
    # Every kind, the new ones too, is met by somebody.
    assert len(np.unique(task.train.label)) == 7


def soil_file(path: Path, years: tuple[int, ...], loggers: int = 6) -> Path:
    rng = np.random.default_rng(1)
    lines = ["SOURCEID,Date,Port1VW,Port1C"]
    for logger in range(loggers):
        level = 0.25
        for day in range(366 * len(years)):
            when = date(years[0], 1, 1) + timedelta(days=day)
            level = max(0.1, level - 0.002 + (0.05 if rng.random() < 0.05 else 0.0))
            if when.year in years:
                lines.append(f"L{logger},{when},{level:.4f},{10 + 8 * np.sin(day / 58):.2f}")
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_soil_tests_on_the_last_year_or_on_blocks_with_a_week_around_them(tmp_path: Path) -> None:
    """Goal: no training label looks into validation or test.  Method: all days that labels look at."""
    day = np.arange(14_000, 14_000 + 730)
    for test_year in (None, 2009):
        training, validation, test = soil._parts(day, test_year)
        assert not (training & validation).any() and not (validation & test).any() and training.any()
        looked_at = np.unique(day[training][:, None] + np.arange(soil.AHEAD_DAYS + 1))
        assert not np.isin(day[validation | test], looked_at).any()
    task = soil.load(soil_file(tmp_path / "two.csv.gz", (2011, 2012)), 10, 1)
    assert task.nodes == 3 and len(task.test) > 3 * 300
    assert soil.load(soil_file(tmp_path / "one.csv.gz", (2011,)), 10, 1).nodes == 3


@needs_voice
def test_new_speakers_are_not_public_and_the_left_out_one_takes_no_part() -> None:
    clip = speech.spoken(0, 7, 0)
    assert clip.dtype == np.float32 and 0.2 < len(clip) / speech.RATE_HZ < 2.0
    assert speech.log_mel(clip).shape == (256,)
    # The same word is nearer to itself in noise than to another word.
    rng = Prng(1).numpy()
    heard = [speech.log_mel(speech.heard(speech.spoken(0, word, 0), rng)) for word in (7, 7, 4)]
    assert np.linalg.norm(heard[0] - heard[1]) < np.linalg.norm(heard[0] - heard[2])


def npz_voices(path: Path, **changes) -> Path:
    rng = np.random.default_rng(0)
    label = np.tile(np.arange(10), 60)
    speaker = np.repeat(["ann", "bob", "cem", "dan", "eva", "fay"], 100)
    arrays = {"features": rng.normal(0, 1, (600, 40)) + label[:, None], "label": label, "speaker": speaker}
    arrays |= changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_recorded_voices_come_in_as_features_or_clips(tmp_path: Path) -> None:
    task = voice.load(npz_voices(tmp_path / "f.npz"), 100, 1)
    assert task.nodes == 24 and task.features == 40
    clips = (np.random.default_rng(1).normal(0, 3000, (600, 4000))).astype(np.int16)
    heard = voice.load(npz_voices(tmp_path / "c.npz", features=None, clips=clips), 100, 1)
    assert heard.features == 256 and np.isfinite(heard.train.x).all()
    control = voice.load_left_out(npz_voices(tmp_path / "f.npz"), 100, 1)
    assert control.silent == (16,) and set(control.test.node) == {16} and control.negative_control
    assert (control.train.node == 16).sum() == voice.OWN_CLIPS


def channels_file(path: Path, channels: int = 8, days: int = 120) -> Path:
    rng = np.random.default_rng(2)
    lines = ["time," + ",".join(f"c{i}" for i in range(channels))]
    begin = datetime(2024, 1, 1)
    for quarter in range(4 * 24 * days):
        when = begin + timedelta(minutes=15 * quarter)
        wave = 10 + 5 * np.sin(2 * np.pi * quarter / 96)
        cells = [f"{wave + i + rng.normal(0, 0.5):.2f}" for i in range(channels)]
        lines.append(f"{when.isoformat(' ', 'minutes')},{','.join(cells)}")
    path.write_text("\n".join(lines))
    return path


def test_own_channels_become_a_faults_task(tmp_path: Path) -> None:
    path = channels_file(tmp_path / "green.csv")
    task = faults.load(path, 100, 1)
    assert task.nodes == 6 and set(task.test.label) == set(range(7))
    assert faults.load_known(path, 3, 1).nodes == 3


def test_a_file_of_stations_has_a_channel_for_each_station_and_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    lines = ["station,when,wd,TEMP,PRES"]
    for name in ("a", "b", "c"):
        for hour in range(24 * 120):
            when = datetime(2024, 1, 1) + timedelta(hours=hour)
            lines.append(
                f"{name},{when.isoformat(' ')},NNW,{rng.normal(10, 3):.2f},{rng.normal(1000, 4):.1f}"
            )
    path = tmp_path / "stations.csv"
    path.write_text("\n".join(lines))
    names = [each.name for each in faults._own(path)]
    assert sorted(names) == ["a PRES", "a TEMP", "b PRES", "b TEMP", "c PRES", "c TEMP"]


def rows_file(path: Path, **changes) -> Path:
    rng = np.random.default_rng(3)
    node = np.repeat(np.arange(-2, 8).clip(-1), 40)
    arrays = {"x": rng.normal(0, 1, (400, 5)), "label": rng.integers(0, 4, 400), "node": node,
              "part": np.tile(np.arange(40) % 4 % 3, 10)}  # fmt: skip
    np.savez(path, **(arrays | changes))
    return path


def test_plain_rows_become_a_task(tmp_path: Path) -> None:
    task = npz.load_rows(rows_file(tmp_path / "r.npz"), "agri", "accuracy", 100)
    assert task.nodes == 8 and len(task.classes) == 4 and len(task.public) == 80
    assert npz.load_rows(rows_file(tmp_path / "r.npz"), "agri", "accuracy", 3).nodes == 3


BAD = {
    "soil": [b"", b"SOURCEID,Date\n", b"SOURCEID,Date,Port1VW,Port1C\nL,2011-01-01,wet,1\n",
             b"SOURCEID,Date,Port1VW,Port1C\nL,yesterday,0.2,1\n",
             b"SOURCEID,Date,Port1VW,Port1C\nL,2011-01-01\n",
             b"\xff\xfe\x00", b"SOURCEID,Date,Port1VW,Port1C\nL,2011-01-01,0.2,1\n"],
    "faults": [b"time\n", b"when,a\n", b"time,a\n2011-01-01,1\n", b"time,a\nnoon,1\n"],
    "voice": [b"PK", b"no zip"],
    "agri": [b"PK", b""],
    "disease": [b"", b"a,b\n1,2\n"],
}  # fmt: skip


@pytest.mark.parametrize(("task", "content"), [(task, one) for task, all_ in BAD.items() for one in all_])
def test_an_unusable_file_is_one_line_that_names_it(task: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "given.dat"
    path.write_bytes(content)
    with pytest.raises(TaskError) as error:
        TASKS[task].load(path, 10, 1)
    text = str(error.value)
    assert text.count("\n") <= 20 and (str(path) in text or task in text)


@pytest.mark.parametrize(
    "changes",
    [{"label": np.full(600, 11)}, {"label": np.zeros(5, int)}, {"features": np.full((600, 4), np.nan)},
     {"features": np.zeros((600, 300))}, {"features": None}, {"speaker": np.zeros(600, int)}],
)  # fmt: skip
def test_unusable_voices_are_one_line(changes, tmp_path: Path) -> None:
    with pytest.raises(TaskError):
        voice.load(npz_voices(tmp_path / "v.npz", **changes), 10, 1)


def test_macro_f1_counts_classes_alike() -> None:
    label = np.array([0, 0, 0, 1])
    assert macro_f1(np.array([0, 0, 0, 0]), label) == pytest.approx(0.5 * 6 / 7)
    assert macro_f1(label, label) == 1.0
