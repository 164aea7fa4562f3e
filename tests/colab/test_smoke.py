"""On Colab's versions, in seconds: the package, a control, an explanation, a training step."""

import os
import subprocess

from cvlab import run

SMOKE = """
import numpy as np, keras
from cvlab import classify, explain, explore, requirements

requirements.prepare()
keras.utils.set_random_seed(0)
pixels = keras.Input((32, 32, 3))
x = keras.layers.Conv2D(8, 3, padding="same")(pixels)
x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
scores = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
model = keras.Model(pixels, scores)
images = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), "uint8")
for method in (explain.saliency, explain.grad_cam, explain.cam):
    maps = method(model, images)
    assert maps.shape == (8, 32, 32) and maps.min() >= 0 and maps.max() <= 1, method
losses = classify.fit(model, images.astype("float32"), np.arange(8) % 3, steps=3)
assert len(losses) == 3 and np.isfinite(losses).all()
bundle = explore.explore(lambda k: images[k], k=[0, 1, 2])._repr_mimebundle_()
assert "application/vnd.jupyter.widget-view+json" in bundle
print("fine")
"""


def test_the_package_works_on_colabs_versions(colab, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(run.book_root()), "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([colab, "-c", SMOKE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip().endswith("fine"), done.stderr[-3000:]
