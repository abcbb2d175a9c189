// From the outputs of a run to scores, heatmaps and boxes, as FastCAM's Python has them.

import { STATUS } from "./kernels.js";

export const NAMES = { targets: "fastcam.targets", classes: "fastcam.classes", activations: "fastcam.activations",
  weights: "fastcam.weights", gradients: "fastcam.gradients", cam: "fastcam.cam" };

function halfToFloat(bits) {
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; ++i) {
    const sign = bits[i] & 0x8000 ? -1 : 1, exponent = (bits[i] >> 10) & 31, fraction = bits[i] & 1023;
    if (exponent === 31) out[i] = fraction ? NaN : sign * Infinity;
    else out[i] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  }
  return out;
}

// The numbers of a tensor, float32.
function floats(tensor) {
  if (tensor.data instanceof Float32Array) return tensor.data;
  if (tensor.type === "float16" && tensor.data instanceof Uint16Array) return halfToFloat(tensor.data);
  return Float32Array.from(tensor.data, Number);
}

// The weight of a channel from its activations and its gradient, both [h, w]; sums are in double precision.
const WEIGHTS = {
  "gradcam++"(activations, gradient) {
    let all = 0, weight = 0;
    for (const value of activations) all += value;
    for (const g of gradient) {
      const below = 2 + g * all;
      if ((g > 0 && below !== 0) || !Number.isFinite(g)) weight += g / (below || 1);
    }
    return weight;
  },
  xgradcam(activations, gradient) {
    let all = 0, product = 0;
    activations.forEach((value, i) => {
      all += value;
      product += value * gradient[i];
    });
    return all === 0 ? 0 : product / all;
  },
};

// What a channel adds to the map at one position.
const ADDENDS = {
  hirescam: (a, g) => a * g,
  elementwise: (a, g) => (a * g + Math.abs(a * g)) / 2,
  layercam: (a, g) => a * Math.max(g, 0),
};

// Grad-CAM's weights; below a share of the gradient's size all of a mean is rounding.
function means(gradients, { targets, channels, area }) {
  const weights = new Float32Array(targets * channels);
  for (let t = 0; t < targets; ++t) {
    const mean = new Float64Array(channels);
    let largest = 0, size = 0;
    for (let k = 0; k < channels; ++k) {
      let sum = 0, absolute = 0;
      for (let i = (t * channels + k) * area, end = i + area; i < end; ++i) {
        sum += gradients[i];
        absolute += Math.abs(gradients[i]);
      }
      mean[k] = sum / area;
      largest = Math.max(largest, Math.abs(mean[k]));
      size = Math.max(size, absolute / area);
    }
    if (largest > 1e-5 * size || Number.isNaN(size)) weights.set(mean, t * channels);
  }
  return weights;
}

/** Methods that a file with the whole gradient serves. */
export const FROM_GRADIENTS = ["gradcam", ...Object.keys(WEIGHTS), ...Object.keys(ADDENDS)];

// Weights [T, K], or maps [T, h, w], from the whole gradient [T, K, h, w] and the activations [K, h, w].
function fromGradients(method, gradients, { activations, targets, channels, area }) {
  if (method === "gradcam") return { weights: means(gradients, { targets, channels, area }) };
  const channel = (values, k) => values.subarray(k * area, (k + 1) * area);
  if (method in WEIGHTS) {
    const weight = (_, n) => WEIGHTS[method](channel(activations, n % channels), channel(gradients, n));
    return { weights: Float32Array.from({ length: targets * channels }, weight) };
  }
  const maps = new Float32Array(targets * area), sum = new Float64Array(area);
  for (let t = 0; t < targets; ++t) {
    sum.fill(0);
    for (let k = 0; k < channels; ++k) {
      const a = channel(activations, k), g = channel(gradients, t * channels + k);
      for (let i = 0; i < area; ++i) sum[i] += ADDENDS[method](a[i], g[i]);
    }
    maps.set(sum, t * area);
  }
  return { maps };
}

// The numbers of the first image.
const first = (tensor) => ({ data: tensor.data.subarray(0, tensor.data.length / tensor.dims[0]), type: tensor.type });

// What the kernels take: activations and weights, or maps.
function kernelInputs(outputs, { emit }, method, targets) {
  const shown = outputs[emit === "cam" ? NAMES.cam : NAMES.activations], here = first(shown);
  const [, channels, height, width] = shown.dims, sizes = { targets, channels, height, width, area: height * width };
  if (emit === "weights") {
    const half = shown.type === "float16" && here.data instanceof Uint16Array;  // which the kernels read
    return { ...sizes, activations: half ? here.data : floats(here), weights: floats(first(outputs[NAMES.weights])) };
  }
  const activations = floats(here);
  if (emit === "cam") return { ...sizes, activations, weights: null };
  const made = fromGradients(method, floats(first(outputs[NAMES.gradients])), { ...sizes, activations });
  return { ...sizes, activations: made.maps ?? activations, weights: made.weights ?? null };
}

function sameEverywhere(map) {
  let low = Infinity, high = -Infinity;
  for (const value of map) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return high - low <= 1e-6 * high;
}

/** Heatmap, boxes and status of each target of a run. */
export function explainedTargets(kernels, outputs, metadata, { size, geometry }, { method, threshold, connectivity }) {
  const classes = outputs[NAMES.classes], targets = classes.dims[1];
  const inputs = kernelInputs(outputs, metadata, method, targets), { area, height, width } = inputs;
  const found = kernels.explain({ ...inputs, size, threshold, connectivity, window: Int32Array.from(geometry.subarray(8, 12)) });
  const large = size[0] * size[1], each = [];
  for (let t = 0, row = 0; t < targets; row += found.counts[t++]) {
    const map = found.maps.subarray(t * area, (t + 1) * area), heatmap = found.heatmaps.subarray(t * large, (t + 1) * large);
    let status = STATUS[found.status[t]];
    if (metadata.emit === "cam" && (status === "all_negative" || status === "zero_gradient")) status = "no_positive";
    if (status === "ok" && sameEverywhere(map)) status = "constant";
    if (status === "constant") heatmap.fill(0);
    const count = status === "constant" ? 0 : found.counts[t];
    const components = Array.from({ length: count }, (_, i) => {
      const values = found.components.subarray(5 * (row + i), 5 * (row + i) + 5);
      return { box: kernels.toOriginal(geometry, values.subarray(0, 4)), pixels: values[4] };
    });
    const box = count ? kernels.toOriginal(geometry, found.largest.subarray(5 * t, 5 * t + 4)) : null;
    each.push({ class: Number(classes.data[t]), status, box, components, map, mapSize: [height, width], heatmap, heatmapSize: size });
  }
  return each;
}

/** Scores of the classes of the first image, float32 [classes]. */
export function classScores(outputs, score) {
  const tensor = outputs[score.output], rank = tensor.dims.length, values = floats(first(tensor));
  if (score.single) return Float32Array.of(score.single === "logit" ? -values[0] : 1 - values[0], values[0]);
  const axis = score.axis ?? 1, classes = rank > 1 ? tensor.dims[axis] : 1;
  const inner = tensor.dims.slice(axis + 1).reduce((a, b) => a * b, 1), sums = new Float64Array(classes);
  values.forEach((value, i) => (sums[Math.floor(i / inner) % classes] += value));
  return Float32Array.from(sums);
}
