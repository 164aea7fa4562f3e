"""Models laid open: through public Keras API alone, whatever is nested or shared, and left as they were."""

import ast
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

from cvlab import backend, deconv, explain, run
from cvlab.engine import activations, networks, opened

ROOT = run.book_root()
SIDE = (12, 16)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, *SIDE, 3)).astype(np.float32)


def numpy_of(tensor):
    return ops.convert_to_numpy(tensor)


def assert_scores_are_kept(model, images):
    """The opened model gives the logits of the model itself, with and without folding."""
    network, expected = networks.laid_open(model, "test"), numpy_of(model(images, training=False))
    for folds in (False, True):
        scores = numpy_of(network.plan(folds=folds).scores(ops.convert_to_tensor(images)))
        np.testing.assert_allclose(scores, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    return network


# No private API of Keras


def private_names_of_keras():
    """List the names with an underscore that Keras' layers, models, tensors, variables and optimizers have."""
    pixels = keras.Input((4,))
    functional, sequential = keras.Model(pixels, layers.Dense(1)(pixels)), keras.Sequential([pixels, layers.Dense(1)])
    objects = (functional, sequential, functional.layers[-1], pixels, functional.weights[0], keras.optimizers.SGD())
    names = {name for each in objects for name in dir(each)} | {"_nodes_by_depth", "_operations_by_depth"}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def functions_of(tree):
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def private_uses(source, names):
    """List where a source reaches for private names of Keras, or for its inner modules.

    An attribute that the source defines itself, as a method or by an assignment to `self`, belongs to it.
    """
    tree, uses = ast.parse(source), []
    assigned = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    names = names - functions_of(tree) - assigned
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names:
            uses.append(f"line {node.lineno}: .{node.attr}")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names:
            uses.append(f"line {node.lineno}: {node.value!r}")  # as in getattr(model, "_functional")
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            uses += [f"line {node.lineno}: {module}" for module in modules if module.startswith("keras.src")]
    return uses


def sources():
    """List (name, source) of the repository's Python files, and of each lesson's code."""
    paths = [path for folder in ("cvlab", "book", "experiments", "tests") for path in (ROOT / folder).rglob("*.py")]
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(paths)}
    for name in run.chapters():
        code = "\n".join(cell.source for cell in run.read_notebook(name).cells if cell.cell_type == "code")
        texts[name] = re.sub(r"^\s*[%!].*$", "", code, flags=re.M)
    return texts


@pytest.mark.house
def test_nothing_uses_a_private_attribute_of_keras():
    texts = sources()
    del texts["tests/test_networks.py"]  # which names some
    package = [ast.parse(text) for name, text in texts.items() if name.startswith("cvlab/")]
    names = private_names_of_keras().difference(*map(functions_of, package))  # such as `retinanet._losses`
    uses = {name: private_uses(text, names) for name, text in texts.items()}
    assert {name: lines for name, lines in uses.items() if lines} == {}


@pytest.mark.house
@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("model._nodes_by_depth", 1),
        ("for node in layer._inbound_nodes: node.operation._outbound_nodes", 2),
        ("getattr(model, '_functional', None)", 1),
        ("class A(keras.Layer):\n  def build(self): self._tracker.unlock()", 1),
        ("from keras.src.models import functional", 1),
        ("class A:\n  def __init__(self): self._functional = None\n  def f(self): return self._functional", 0),
        ("model.layers[0].output", 0),
    ],
)
def test_private_uses_are_seen(source, count):
    assert len(private_uses(source, private_names_of_keras())) == count


# What is opened


@pytest.mark.contract
def test_a_layer_and_a_model_that_are_called_twice_give_steps_for_each_call(images):
    backend.set_seed(0)
    twice = layers.Conv2D(3, 3, padding="same", activation="relu", name="twice")
    inner = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(3, 3, name="inner")], name="body")
    pixels = keras.Input((*SIDE, 3))
    x = layers.Add(name="sum")([inner(twice(pixels)), inner(twice(twice(pixels)))])
    model = keras.Model(pixels, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    network = assert_scores_are_kept(model, images)
    assert [step.name for step in network.steps].count("twice") == 2 + 1
    assert [step.name for step in network.steps].count("body/inner") == 2
    assert network.last_maps("test") == network.named["sum"]


@pytest.mark.contract
def test_a_nested_model_with_two_inputs_and_two_outputs_is_opened(images):
    backend.set_seed(0)
    one, other = keras.Input((None, None, 3), name="p"), keras.Input((None, None, 2), name="q")
    joined = layers.Concatenate(name="join")([layers.Conv2D(2, 3, padding="same", name="a")(one), other])
    inner = keras.Model({"p": one, "q": other}, [layers.Conv2D(4, 3, name="b")(joined), joined], name="inner")
    pixels = keras.Input((*SIDE, 3))
    deep, flat = inner({"q": layers.Conv2D(2, 1)(pixels), "p": pixels / 2})
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(deep), layers.GlobalMaxPooling2D()(flat)])
    model = keras.Model(pixels, layers.Dense(3)(x))
    network = assert_scores_are_kept(model, images)
    assert {"inner/a", "inner/join", "inner/b"} <= {step.name for step in network.steps}
    assert network.shapes[network.named["inner/b"]] == (None, SIDE[0] - 2, SIDE[1] - 2, 4)  # sharper than in the model


@pytest.mark.contract
def test_models_in_models_and_operations_are_opened_in_the_order_of_computing(images):
    backend.set_seed(0)
    innermost = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(3, 1, name="conv")], name="innermost")
    middle = keras.Sequential([keras.Input((None, None, 3)), innermost, layers.ReLU(name="relu")], name="middle")
    pixels = keras.Input((*SIDE, 3))
    model = keras.Model(pixels, layers.Dense(2)(ops.mean(middle(2 * pixels + 1), axis=(1, 2))))
    network = assert_scores_are_kept(model, images)
    names = [step.name for step in network.steps]
    assert names[2:4] == ["middle/innermost/conv", "middle/relu"]
    assert network.named["middle"] == network.named["middle/relu"]


def test_a_model_that_was_compiled_with_a_readers_own_loss_is_opened(images):
    model = keras.Sequential([keras.Input((*SIDE, 3)), layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()])

    def unregistered(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred))

    model.compile("sgd", unregistered)
    assert_scores_are_kept(model, images)


def test_a_model_with_a_call_of_its_own_is_a_layer_and_not_opened(images):
    class Doubled(keras.Model):
        def call(self, x):
            return 2 * super().call(x)

    backend.set_seed(0)
    pixels = keras.Input((*SIDE, 3))
    doubled = Doubled(pixels, layers.Conv2D(2, 3)(pixels), name="doubled")
    model = keras.Model(pixels, layers.GlobalAveragePooling2D()(doubled(pixels)))
    network = assert_scores_are_kept(model, images)
    assert [step.name for step in network.steps][0] == "doubled"
    with pytest.raises(ValueError, match="test: model is a Doubled, expected a Sequential or functional"):
        networks.laid_open(doubled, "test")


def test_a_sequential_model_is_opened_again_when_a_layer_was_added(images):
    backend.set_seed(0)
    model = keras.Sequential([keras.Input((*SIDE, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
    first = assert_scores_are_kept(model, images)
    assert networks.laid_open(model, "test") is first
    model.add(layers.Dense(3))
    second = assert_scores_are_kept(model, images)
    assert second is not first
    model.pop()
    assert_scores_are_kept(model, images)


def test_a_sequential_model_is_built_for_the_images(images):
    model = keras.Sequential([layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="expected a Sequential or functional Keras model, built"):
        networks.laid_open(model, "test")
    assert networks.laid_open(model, "test", images).shapes[0] == (None, *SIDE, 3)


@pytest.mark.house
def test_opening_a_model_leaves_no_trace_in_it_or_in_the_names_of_later_layers(images):
    def build():
        backend.set_seed(0)
        keras.utils.clear_session()
        body = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, activation="relu")])
        pixels = keras.Input((*SIDE, 3))
        return keras.Model(pixels, layers.Dense(2)(layers.GlobalAveragePooling2D()(body(pixels))))

    def names_of_the_next():
        x = keras.Input((*SIDE, 3))
        model = keras.Model(x, layers.Dense(1)(layers.Conv2D(1, 1)(x)))
        return [model.name, *(layer.name for layer in model.layers)]

    build()
    expected = names_of_the_next()
    model = build()
    tensors = [layer.output for layer in model.layers]
    opened._functional_class.cache_clear()
    networks.laid_open(model, "test")
    assert names_of_the_next() == expected
    assert all(layer.output is tensor for layer, tensor in zip(model.layers, tensors))


@pytest.mark.contract
@pytest.mark.parametrize("layer", ["early", "late"])
def test_a_split_goes_on_from_the_layer_to_the_same_scores(layer, images):
    backend.set_seed(0)
    pixels = keras.Input((*SIDE, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="early")(pixels)
    x = layers.Concatenate()([x, layers.Conv2D(4, 3, padding="same", name="late")(x), pixels])  # two ways past "late"
    model = keras.Model(pixels, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(x)))
    network = networks.laid_open(model, "test")
    plan = network.plan(network.find(layer, "test"))
    features, head = plan.split(ops.convert_to_tensor(images))
    expected = numpy_of(keras.Model(pixels, model.get_layer(layer).output)(images))
    np.testing.assert_allclose(numpy_of(features), expected, atol=1e-6)
    np.testing.assert_allclose(numpy_of(ops.softmax(head(features))), numpy_of(model(images)), atol=1e-6)
    assert np.abs(numpy_of(head(2 * features)) - numpy_of(head(features))).max() > 1e-3


def test_the_way_back_to_the_pixels_is_reached_through_explain_too():
    assert explain.deconvnet is deconv.deconvnet
    assert explain.strongest is deconv.strongest


# Activations are recognised by what they do


def test_random_tensors_are_small_and_large_of_either_sign_and_exact_in_half_precision():
    tensors = activations.random_tensors([40, 50])
    assert tensors.shape == (8, 40, 50)
    assert tensors.dtype == np.float32
    np.testing.assert_allclose(tensors.std(axis=(1, 2)), [1 / 8, 1, 8, 64] * 2, rtol=0.1)
    assert np.all(np.abs(tensors.mean(axis=(1, 2))) < 0.1 * tensors.std(axis=(1, 2)))
    for dtype in ("float16", "bfloat16"):
        np.testing.assert_array_equal(numpy_of(ops.cast(ops.cast(tensors, dtype), "float32")), tensors)
    assert len(np.unique(tensors[:4] / np.reshape([1 / 8, 1, 8, 64], (4, 1, 1)), axis=0)) == 4  # none is scaled anew
    np.testing.assert_array_equal(tensors, activations.random_tensors([40, 50]))
    assert activations.random_tensors([5]).shape == (8, 5)


ALMOST = {  # functions that differ from an activation only among small, or only among large numbers
    "linear, but for large numbers": lambda x: ops.clip(x, -60, 60),
    "linear, but for small numbers": lambda x: x + 0.05 * ops.exp(-100 * ops.square(x)),
    "linear, but for negative numbers": lambda x: ops.where(x < -100, -100, x),
    "relu, but for large numbers": lambda x: ops.clip(x, 0, 60),
    "relu, but for negative numbers": lambda x: ops.where(x < -100, -x, ops.relu(x)),
    "sigmoid, but for large numbers": lambda x: ops.where(ops.abs(x) > 100, 0.5, ops.sigmoid(x)),
    "softmax with a temperature": lambda x: ops.softmax(x / 1.01),
    "log-softmax, but for large numbers": lambda x: ops.maximum(ops.log_softmax(x), -60),
}


@pytest.mark.parametrize("name", ALMOST)
def test_a_function_that_is_almost_an_activation_is_not_taken_for_it(name):
    assert activations.activation_name(ALMOST[name], (None, 5, 6, 8)) is None
    assert activations.activation_name(ALMOST[name], (None, 40)) is None


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_each_activation_is_recognised_also_of_few_channels(name):
    for channels in (2, 3, 10):
        function = activations.ACTIVATIONS[name]
        assert activations.activation_name(lambda x, f=function: f(x), (None, channels)) == name
        assert activations.activation_name(lambda x, f=function: f(x), (None, None, 7, channels)) == name


def test_probabilities_of_large_random_tensors_look_like_some_and_logits_do_not():
    tensors = activations.random_tensors([5])
    assert activations.kind_of_probabilities(numpy_of(ops.softmax(tensors))) == "probabilities"
    assert activations.kind_of_probabilities(numpy_of(ops.log_softmax(tensors))) == "logarithms"
    assert activations.kind_of_probabilities(tensors) is None
    assert activations.kind_of_probabilities(np.tanh(tensors)) is None
    assert activations.kind_of_probabilities(None) is None
