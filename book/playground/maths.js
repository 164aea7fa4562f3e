// What the playground computes outside the networks: resizing, boxes, probabilities and maps. Pure functions of numbers
// and typed arrays, for the worker (as `maths`) and for tests in Node (as a module).
"use strict";

// Resize an image, by area where it shrinks and bilinearly where it grows, each axis for itself: on an axis that
// shrinks as cv2.INTER_AREA does, on one that grows as cv2.INTER_LINEAR.
//   image: {width, height, data: RGBA bytes}; the alpha is ignored
//   returns Float32Array (height · width · 3), whole numbers 0–255, red, green and blue of each pixel in turn
function resize(image, width, height) {
  const columns = weightsOfAxis(image.width, width), rows = weightsOfAxis(image.height, height);
  const output = new Float32Array(width * height * 3), line = new Float32Array(width * 3);
  const readers = Array.from({ length: image.height }, () => []); // which rows of the output read a row of the image
  rows.forEach((taps, row) => taps.forEach(([source, weight]) => readers[source].push([row, weight])));
  for (let y = 0; y < image.height; y++) {
    if (!readers[y].length) continue;
    const start = y * image.width * 4;
    for (let x = 0; x < width; x++) {
      let red = 0, green = 0, blue = 0;
      for (const [source, weight] of columns[x]) {
        const place = start + 4 * source;
        red += weight * image.data[place];
        green += weight * image.data[place + 1];
        blue += weight * image.data[place + 2];
      }
      line[3 * x] = red, line[3 * x + 1] = green, line[3 * x + 2] = blue;
    }
    for (const [row, weight] of readers[y]) {
      const place = row * width * 3;
      for (let i = 0; i < line.length; i++) output[place + i] += weight * line[i];
    }
  }
  for (let i = 0; i < output.length; i++) output[i] = Math.round(output[i]);
  return output;
}

// For each place of an axis of the output, the places of the input that it reads: a list of [place, weight].
function weightsOfAxis(from, to) {
  const scale = from / to, taps = [];
  for (let i = 0; i < to; i++) {
    if (scale > 1) {
      const first = i * scale, last = Math.min((i + 1) * scale, from), list = [];
      for (let j = Math.floor(first); j < last; j++) {
        const covered = Math.min(j + 1, last) - Math.max(j, first);
        if (covered > 1e-6) list.push([j, covered / (last - first)]);
      }
      taps.push(list);
    } else {
      const place = Math.min(Math.max((i + 0.5) * scale - 0.5, 0), from - 1), below = Math.floor(place);
      const share = place - below;
      taps.push(share ? [[below, 1 - share], [below + 1, share]] : [[below, 1]]);
    }
  }
  return taps;
}

// Resize a map of numbers, (height · width) Float32Array, to another size, as cv2.resize does with INTER_LINEAR.
function resizeMap(map, width, height, toWidth, toHeight) {
  const columns = weightsOfMap(width, toWidth), rows = weightsOfMap(height, toHeight);
  const output = new Float32Array(toWidth * toHeight);
  for (let y = 0; y < toHeight; y++) {
    const [top, down] = rows[y], bottom = Math.min(top + 1, height - 1);
    for (let x = 0; x < toWidth; x++) {
      const [left, over] = columns[x], right = Math.min(left + 1, width - 1);
      const above = map[top * width + left] * (1 - over) + map[top * width + right] * over;
      const below = map[bottom * width + left] * (1 - over) + map[bottom * width + right] * over;
      output[y * toWidth + x] = above * (1 - down) + below * down;
    }
  }
  return output;
}

function weightsOfMap(from, to) {
  return Array.from({ length: to }, (_, i) => {
    const place = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1), below = Math.floor(place);
    return [below, place - below];
  });
}

// Turn logits into probabilities, which sum to 1.
function softmax(logits) {
  let top = -Infinity, total = 0;
  for (const logit of logits) top = Math.max(top, logit);
  const output = Float32Array.from(logits, (logit) => Math.exp(logit - top));
  for (const value of output) total += value;
  return output.map((value) => value / total);
}

// List the most probable classes: [{index, label, probability}, …] by falling probability, of equal ones the first.
function topClasses(logits, labels, count) {
  const probabilities = softmax(logits);
  return Array.from(probabilities.keys())
    .sort((a, b) => probabilities[b] - probabilities[a] || a - b)
    .slice(0, count)
    .map((index) => ({ index, label: labels[index], probability: probabilities[index] }));
}

// Lay out the anchors of a feature pyramid on a square image, as `cvlab.boxes.anchors` does: Float32Array
// (anchors · 4), x_min, y_min, x_max and y_max in pixels of that image.
function anchors(side, { strides, anchor_sizes: sizes, ratios, scales }) {
  const output = [];
  strides.forEach((stride, level) => {
    const cells = Math.ceil(side / stride);
    for (let row = 0; row < cells; row++) {
      for (let column = 0; column < cells; column++) {
        const x = (column + 0.5) * stride, y = (row + 0.5) * stride;
        for (const ratio of ratios) {
          for (const scale of scales) {
            const half = (sizes[level] * scale) / 2, width = half / Math.sqrt(ratio), height = half * Math.sqrt(ratio);
            output.push(x - width, y - height, x + width, y + height);
          }
        }
      }
    }
  });
  return Float32Array.from(output);
}

// Turn the detector's outputs into boxes, as `cvlab.retinanet.suppress` does.
//   outputs: Float32Array (anchors · (classes + 4)): logits, then the offsets from the anchor
//   options: {threshold, iou, most: boxes at most, candidates: boxes at most that suppression sees}
//   returns [{box: [x_min, y_min, x_max, y_max] in pixels of the network's input, index, score}, …], best first
function detections(outputs, places, numClasses, variances, { threshold, iou, most = 100, candidates = 1000 }) {
  const width = numClasses + 4, least = Math.log(threshold / (1 - threshold));
  let likely = [];
  for (let anchor = 0, start = 0; start < outputs.length; anchor++, start += width) {
    for (let index = 0; index < numClasses; index++) {
      if (outputs[start + index] >= least) likely.push({ anchor, index, logit: outputs[start + index] });
    }
  }
  likely.sort((a, b) => b.logit - a.logit || a.anchor - b.anchor || a.index - b.index);
  likely = likely.slice(0, candidates);
  for (const each of likely) {
    const offsets = outputs.subarray(each.anchor * width + numClasses, (each.anchor + 1) * width);
    each.box = decode(offsets, places.subarray(4 * each.anchor, 4 * each.anchor + 4), variances);
  }
  const kept = suppress(likely, iou, most);
  return kept.map(({ box, index, logit }) => ({ box, index, score: 1 / (1 + Math.exp(-logit)) }));
}

// Turn four offsets from an anchor into a box, as `cvlab.boxes.decode` does.
function decode(offsets, anchor, variances) {
  const [x0, y0, x1, y1] = anchor, width = x1 - x0, height = y1 - y0;
  const x = x0 + width / 2 + offsets[0] * variances[0] * width;
  const y = y0 + height / 2 + offsets[1] * variances[1] * height;
  const halfWidth = (width * Math.exp(offsets[2] * variances[2])) / 2;
  const halfHeight = (height * Math.exp(offsets[3] * variances[3])) / 2;
  return [x - halfWidth, y - halfHeight, x + halfWidth, y + halfHeight];
}

// Greedy non-maximum suppression within each class, of boxes that come best first: `most` at most are kept.
function suppress(sorted, threshold, most) {
  const kept = [];
  for (const each of sorted) {
    if (kept.length === most) break;
    if (!kept.some((other) => other.index === each.index && overlap(other.box, each.box) > threshold)) kept.push(each);
  }
  return kept;
}

// The intersection over union of two boxes, 0–1.
function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const both = width * height;
  return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both);
}

// Sum feature maps, (cells · channels), with one weight a channel; the mean over the cells stands for the pooling. So
// a class's weights of the dense layer give its class activation map; and as the logit's gradient with respect to each
// cell is just weight / cells, the same sum is Grad-CAM on these maps.
function weightedSum(features, weights) {
  const channels = weights.length, cells = features.length / channels, output = new Float32Array(cells);
  for (let cell = 0; cell < cells; cell++) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) sum += weights[channel] * features[cell * channels + channel];
    output[cell] = sum / cells;
  }
  return output;
}

// Sum the absolute values of each pixel's three numbers: (pixels · 3) → (pixels).
function pixelSums(values) {
  return Float32Array.from({ length: values.length / 3 }, (_, i) =>
    Math.abs(values[3 * i]) + Math.abs(values[3 * i + 1]) + Math.abs(values[3 * i + 2]));
}

// Cut off what is negative, and divide by the maximum: 0 to 1. A map without anything positive is 0 all over.
function scaled(map) {
  let top = 0;
  for (const value of map) top = Math.max(top, value);
  return map.map((value) => (top > 0 ? Math.max(value, 0) / top : 0));
}

// The places that a window takes along an axis: by `stride`, the last step may be shorter.
function windowStarts(length, window, stride) {
  const starts = [];
  for (let start = 0; start < length - window; start += stride) starts.push(start);
  return [...starts, length - window];
}

// The mean of each channel of an image, (pixels · 3).
function meanColour(pixels) {
  const sums = [0, 0, 0];
  for (let i = 0; i < pixels.length; i++) sums[i % 3] += pixels[i];
  return sums.map((sum) => sum / (pixels.length / 3));
}

// Give each pixel the mean fall over all windows that hide it.
//   falls: one number for each window, row by row of tops and lefts
function meanFalls(falls, tops, lefts, window, width, height) {
  const sums = new Float32Array(width * height), counts = new Float32Array(width * height);
  tops.forEach((top, i) => lefts.forEach((left, j) => {
    for (let y = top; y < top + window; y++) {
      for (let x = left; x < left + window; x++) {
        sums[y * width + x] += falls[i * lefts.length + j];
        counts[y * width + x] += 1;
      }
    }
  }));
  return sums.map((sum, i) => sum / counts[i]);
}

// A seeded generator of normal deviates: a function that gives one at a call. (Mulberry32, then Box and Muller.)
function normalGenerator(seed) {
  let state = seed >>> 0, spare = null;
  function uniform() {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  return () => {
    if (spare !== null) {
      const value = spare;
      spare = null;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform())), angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

// The place of the largest number, of equal ones the first.
function largest(values) {
  let place = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[place]) place = i;
  return place;
}

// The smallest and the largest number.
function range(values) {
  let least = Infinity, most = -Infinity;
  for (const value of values) least = Math.min(least, value), most = Math.max(most, value);
  return [least, most];
}

// Unpack a file of weights: `half` numbers of float16, all their first bytes before all second ones, then `single`
// numbers of float32 in the same way. Returns Float32Array (half + single).
function unpackWeights(bytes, half, single) {
  if (bytes.length !== 2 * half + 4 * single) {
    throw new Error(`the weights have ${bytes.length} bytes, expected ${2 * half + 4 * single}`);
  }
  const output = new Float32Array(half + single), bits = new Uint32Array(output.buffer), table = halfTable();
  for (let i = 0; i < half; i++) bits[i] = table[bytes[i] | (bytes[half + i] << 8)];
  for (let i = 0, first = 2 * half; i < single; i++) {
    const [a, b, c, d] = [0, 1, 2, 3].map((plane) => bytes[first + plane * single + i]);
    bits[half + i] = (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
  }
  return output;
}

// The bits of float32 for all 65,536 bits of float16.
function halfTable() {
  const table = new Uint32Array(65536), value = new Float32Array(1), bits = new Uint32Array(value.buffer);
  for (let i = 0; i < 65536; i++) {
    const exponent = (i >> 10) & 31, fraction = i & 1023;
    if (exponent === 0) value[0] = fraction * 2 ** -24;
    else if (exponent < 31) value[0] = (1 + fraction / 1024) * 2 ** (exponent - 15);
    else value[0] = fraction ? NaN : Infinity;
    table[i] = (bits[0] | ((i & 0x8000) << 16)) >>> 0;
  }
  return table;
}

const maths = {
  anchors, decode, detections, largest, meanColour, meanFalls, normalGenerator, overlap, pixelSums, range, resize,
  resizeMap, scaled, softmax, suppress, topClasses, unpackWeights, weightedSum, windowStarts,
};
if (typeof module !== "undefined") module.exports = maths;
