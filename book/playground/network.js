// A network as a list of layers (see describe.py), run and differentiated with TensorFlow.js. Its WebAssembly has no
// kernels for the gradients of convolutions; so these are computed by those of inference: the gradient of a convolution
// is a convolution with the kernel turned round, after zeros have been put between the numbers where it strides.
"use strict";

const LARGE = 1e30; // makes at least 1 of all that is not 0

class Network {
  // tf: TensorFlow.js; layers, outputs: of models.json; arrays: weights, Float32Array each
  constructor(tf, { layers, outputs }, arrays) {
    Object.assign(this, { tf, layers, outputs, arrays, kernels: new Map(), turned: new Map() });
  }

  // The tensor of weights that a layer refers to, made anew.
  tensor([array, place, shape]) {
    const count = shape.reduce((product, side) => product * side, 1);
    return this.tf.tensor(this.arrays[array].subarray(place, place + count), shape, "float32");
  }

  // Kernel and bias of a layer, with batch normalization in them: kept from the first use on.
  weightsOf(layer) {
    if (!this.kernels.has(layer)) {
      const { tf } = this;
      this.kernels.set(layer, tf.tidy(() => {
        let kernel = layer.kernel && this.tensor(layer.kernel);
        const scale = layer.scale && this.tensor(layer.scale), bias = layer.bias && this.tensor(layer.bias);
        if (kernel && scale) kernel = tf.mul(kernel, layer.depthwise ? tf.reshape(scale, [-1, 1]) : scale);
        return { kernel, scale, bias };
      }));
      Object.values(this.kernels.get(layer)).filter(Boolean).forEach(tf.keep); // also where a tidy around this ends
    }
    return this.kernels.get(layer);
  }

  // The kernel with which the gradient of a convolution is a convolution: turned round, inputs and outputs exchanged.
  turnedKernel(layer) {
    if (!this.turned.has(layer)) {
      const { tf } = this, { kernel } = this.weightsOf(layer);
      this.turned.set(layer, tf.keep(tf.tidy(() => {
        const turned = kernel.shape[0] > 1 ? tf.reverse(kernel, [0, 1]) : kernel;
        return layer.depthwise ? tf.clone(turned) : tf.transpose(turned, [0, 1, 3, 2]);
      })));
    }
    return this.turned.get(layer);
  }

  // Compute the outputs of all layers from images (N, H, W, 3): a list, the images first. To be called within tf.tidy.
  // A value is disposed of when no later layer needs it, unless `keep` says to keep all.
  values(images, keep = false) {
    const values = [images], last = new Map(), kept = new Set(Object.values(this.outputs));
    this.layers.forEach((layer, i) => layer.from.forEach((number) => last.set(number, i)));
    this.layers.forEach((layer, i) => {
      values.push(FORWARD[layer.op](this.tf, layer, layer.from.map((number) => values[number]), this.weightsOf(layer)));
      if (keep) return;
      for (const number of new Set(layer.from)) {
        if (number && last.get(number) === i && !kept.has(number)) values[number].dispose();
      }
    });
    return values;
  }

  // Run the network: images is {data: Float32Array, dims: [N, H, W, 3]}; gives {name: {data, dims}}.
  async run({ data, dims }) {
    const { tf } = this, names = Object.keys(this.outputs);
    const tensors = tf.tidy(() => {
      const values = this.values(tf.tensor(data, dims, "float32"));
      return names.map((name) => tf.clone(values[this.outputs[name]]));
    });
    const results = await Promise.all(tensors.map((tensor) => tensor.data()));
    tf.dispose(tensors);
    return Object.fromEntries(names.map((name, i) => [name, { data: results[i], dims: tensors[i].shape }]));
  }

  // The gradient of one class's logit with respect to each of the images, (N · H · W · 3), and the logits (N · K).
  // Without a target, the class is the most probable one of the first image.
  async gradient({ data, dims }, target = null) {
    const { tf } = this, last = this.outputs.logits;
    let logits;
    const slope = tf.tidy(() => {
      const values = this.values(tf.tensor(data, dims, "float32"), true), [count, classes] = values[last].shape;
      logits = values[last].dataSync();
      target ??= logits.subarray(0, classes).indexOf(Math.max(...logits.subarray(0, classes)));
      const isTarget = (_, i) => Number(i % classes === target);
      const gradients = new Map([[last, tf.tensor(Float32Array.from(logits, isTarget), [count, classes])]]);
      for (let number = last; number > 0; number--) {
        const gradient = gradients.get(number), layer = this.layers[number - 1];
        gradients.delete(number);
        if (!gradient) continue;
        if (!BACKWARD[layer.op]) throw new Error(`the gradient of “${layer.op}” is not written yet`);
        const parts = tf.tidy(() => {
          const inputs = layer.from.map((from) => values[from]);
          const own = BACKWARD[layer.op](this, layer, gradient, inputs, values[number]);
          return own.map((part, i) => {
            const before = gradients.get(layer.from[i]);
            return before ? tf.add(before, part) : part;
          });
        });
        layer.from.forEach((from, i) => gradients.set(from, parts[i]));
        values[number].dispose();
      }
      return gradients.get(0);
    });
    const result = await slope.data();
    slope.dispose();
    return { gradient: result, logits };
  }

  dispose() {
    for (const { kernel, scale, bias } of this.kernels.values()) this.tf.dispose([kernel, scale, bias].filter(Boolean));
    this.tf.dispose([...this.turned.values()]);
    this.kernels.clear(), this.turned.clear();
  }
}

const FORWARD = {
  affine: (tf, layer, [x], { scale, bias }) => tf.add(tf.mul(x, scale), bias),
  conv(tf, { stride, padding, depthwise, top }, [x], { kernel, bias }) {
    const activation = top === 0 ? "linear" : top === 6 ? "relu6" : "relu";
    const settings = { x, filter: kernel, strides: stride, pad: padding, bias, activation };
    return depthwise ? tf.fused.depthwiseConv2d(settings) : tf.fused.conv2d(settings);
  },
  transposed(tf, { stride, top }, [x], { kernel, bias }) {
    const [count, height, width] = x.shape, shape = [count, height * stride, width * stride, kernel.shape[2]];
    const scores = tf.conv2dTranspose(x, kernel, shape, stride, "same"), shifted = bias ? tf.add(scores, bias) : scores;
    return top ? tf.relu(shifted) : shifted;
  },
  relu: (tf, { top }, [x]) => (top === 6 ? tf.relu6(x) : tf.relu(x)),
  add: (tf, layer, xs) => xs.reduce((sum, x) => tf.add(sum, x)),
  pool: (tf, layer, [x]) => tf.mean(x, [1, 2]),
  dense: (tf, layer, [x], { kernel, bias }) => tf.add(tf.matMul(x, kernel), bias),
  nearest: (tf, { size }, [x]) => tf.image.resizeNearestNeighbor(x, size),
  bilinear: (tf, { size }, [x]) => tf.image.resizeBilinear(x, size, false, true),
  reshape: (tf, { shape }, [x]) => tf.reshape(x, [x.shape[0], ...shape]),
  concat: (tf, { axis }, xs) => tf.concat(xs, axis),
  classes: (tf, layer, [x]) => tf.argMax(x, 3),
};

// What an operation hands down: function of (network, layer, gradient of its output, its inputs, its output) that gives
// the gradients of the inputs.
const BACKWARD = {
  affine: (network, layer, gradient) => [network.tf.mul(gradient, network.weightsOf(layer).scale)],
  conv(network, layer, gradient, [x], output) {
    const { tf } = network, { stride, padding, depthwise } = layer, through = rectified(tf, layer, gradient, output);
    const turned = network.turnedKernel(layer), side = turned.shape[0];
    const convolve = (y, pad) => (depthwise ? tf.depthwiseConv2d(y, turned, 1, pad) : tf.conv2d(y, turned, 1, pad));
    if (stride === 1 && padding === "same") return [convolve(through, "same")];
    const spread = dilated(tf, through, stride);
    const pads = [1, 2].map((axis) => {
      const length = x.shape[axis], count = output.shape[axis];
      const total = padding === "same" ? Math.max((count - 1) * stride + side - length, 0) : 0;
      const before = side - 1 - Math.floor(total / 2);
      return [before, length + side - 1 - before - spread.shape[axis]];
    });
    return [convolve(padded(tf, spread, pads), "valid")];
  },
  relu: ({ tf }, layer, gradient, inputs, output) => [rectified(tf, layer, gradient, output)],
  add: ({ tf }, layer, gradient, inputs) => inputs.map(() => tf.clone(gradient)),
  pool({ tf }, layer, gradient, [{ shape: [count, height, width, channels] }]) {
    const share = tf.reshape(tf.div(gradient, height * width), [count, 1, 1, channels]);
    return [tf.tile(share, [1, height, width, 1])];
  },
  dense: (network, layer, gradient) => [network.tf.matMul(gradient, network.weightsOf(layer).kernel, false, true)],
};

// Let the gradient pass where ReLU's slope is 1: where its output lies above 0, and below the top. The factor, 0 or 1,
// is made by multiplying and clipping, for which this runtime is twice as fast as with comparisons.
function rectified(tf, { top }, gradient, output) {
  if (top === 0) return gradient;
  const within = top === 6 ? tf.mul(output, tf.sub(6, output)) : output;
  return tf.mul(gradient, tf.clipByValue(tf.mul(within, LARGE), 0, 1));
}

// Put stride − 1 zeros behind each row and each column.
function dilated(tf, x, stride) {
  if (stride === 1) return x;
  const [count, height, width, channels] = x.shape, behind = [[0, 0], [0, stride - 1], [0, 0]];
  const rows = tf.pad(tf.reshape(x, [count * height, 1, width * channels]), behind);
  const places = tf.pad(tf.reshape(rows, [count * height * stride * width, 1, channels]), behind);
  return tf.reshape(places, [count, height * stride, width * stride, channels]);
}

// Pad rows and columns with zeros before and behind; a negative number cuts off.
function padded(tf, x, pads) {
  const wider = tf.pad(x, [[0, 0], ...pads.map((pair) => pair.map((n) => Math.max(n, 0))), [0, 0]]);
  const cut = pads.map((pair) => Math.max(-pair[1], 0));
  if (!cut[0] && !cut[1]) return wider;
  const [count, height, width, channels] = wider.shape;
  return tf.slice(wider, [0, 0, 0, 0], [count, height - cut[0], width - cut[1], channels]);
}

if (typeof module !== "undefined") module.exports = { Network };
