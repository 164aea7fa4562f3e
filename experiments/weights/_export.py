"""Write trained weights to `data/weights`, kernels as float16, and their checksum to the manifest."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import h5py
import numpy as np

DATA = Path(__file__).resolve().parents[2] / "data"


def export(model, name, licence):
    """Save `model` as `data/weights/<name>.weights.h5`: Keras' own layout, kernels as float16.

    Returns:
        Path of the file. `model.load_weights` reads it; Keras casts to float32.
    """
    target = DATA / "weights" / f"{name}.weights.h5"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        wide, narrow = Path(folder, "wide.weights.h5"), Path(folder, "narrow.weights.h5")
        model.save_weights(wide)
        with h5py.File(wide) as source, h5py.File(narrow, "w", libver="latest") as out:  # a smaller frame
            source.visititems(lambda path, node: _copy(path, node, out))
        os.replace(narrow, target)
    enter(target, licence)
    return target


def _copy(path, node, out):
    if not isinstance(node, h5py.Dataset):
        out.require_group(path).attrs.update(node.attrs)
        return
    values = node[()]
    if values.dtype == np.float32 and values.ndim > 1:  # kernels; biases and normalization's vectors are small
        if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            raise ValueError(f"export: {path} reaches {np.abs(values).max():g}, which float16 can't hold")
        values = values.astype(np.float16)
    packing = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "chunks": values.shape}
    dataset = out.create_dataset(path, data=values, track_times=False, **packing if values.size > 512 else {})
    dataset.attrs.update(node.attrs)


def enter(path, licence):
    """Enter a file below `data` into the manifest, with its checksum, size and licence."""
    manifest = DATA / "manifest.json"
    content = json.loads(manifest.read_text()) if manifest.exists() else {"files": {}}
    content["files"][path.relative_to(DATA).as_posix()] = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "licence": licence,
    }
    content["files"] = dict(sorted(content["files"].items()))
    part = manifest.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(part, manifest)
