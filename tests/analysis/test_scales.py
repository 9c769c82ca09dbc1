"""Cells for larger machines run too, cut short, on files made up in the format of MNIST."""

import dataclasses
import struct

import numpy as np
import pytest

from analysis.studies import STUDIES, study

FEW = {
    "steps": 8, "epochs": 1, "tuning_epochs": 8, "samples": 5, "draws": 1, "tuning_draws": 1,
    "runs": 4, "width": 8, "widths": (4, 4, 4, 4), "blocks": 1, "seeds": (0,), "tuning_seeds": (0,),
    "side": 12, "examples": 512, "tuning_examples": 512, "per_class": 20, "held_out": 50,
    "faces": 600, "units": 8, "seen": 50, "values": (2,),
}  # fmt: skip


def cut_short(cell):
    """The cell with fewer steps, seeds, examples and units, where it says how many."""
    fields = {field.name: getattr(cell, field.name) for field in dataclasses.fields(cell)}
    changed = {
        name: (4,) * len(value)
        if name == "filters"
        else FEW[name]
        if name in FEW and isinstance(value, int | tuple)
        else cut_short(value)
        if dataclasses.is_dataclass(value)
        else value
        for name, value in fields.items()
    }
    return dataclasses.replace(cell, **changed)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A folder with grey noise, one class brighter than the other, named as MNIST's files are."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part, number in (("train", 60_000), ("t10k", 10_000)):
        labels = rng.integers(0, 10, number).astype(np.uint8)
        images = rng.integers(0, 150, (number, 28, 28), dtype=np.uint8) + 10 * labels[:, None, None]
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{part}-{name}-ubyte").write_bytes(header + array.tobytes())
    np.savez(
        folder / "cifar10.npz",
        **{
            f"x_{part}": rng.integers(0, 256, (600, 32, 32, 3), np.uint8)
            for part in ("train", "test")
        },
        **{f"y_{part}": np.arange(600) % 10 for part in ("train", "test")},
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["medium", "full"])
@pytest.mark.parametrize("name", STUDIES)
def test_a_cell_of_larger_scale_runs(name, scale, made_up, monkeypatch):
    monkeypatch.setenv("IGR_DATA", str(made_up))
    run = study(name, scale).run
    quick = set(study(name, "quick").cells)
    others = [cell for cell in study(name, scale).cells if cell not in quick]
    for cell in others[-1:]:
        values = run(cut_short(cell))
        arrays = {key: value for key, value in values.items() if hasattr(value, "__array__")}
        assert arrays
        numbers = [np.asarray(v) for v in arrays.values() if np.asarray(v).dtype.kind == "f"]
        assert any(np.isfinite(v).any() for v in numbers)
