// What an Explainer says of a picture.

import { classScores, explainedTargets } from "./outputs.js";

export class Explanation {
  #explainer;
  #prepared;
  #placed = new Map();

  constructor(explainer, prepared, outputs, options) {
    this.#explainer = explainer;
    this.#prepared = prepared;
    this.image = prepared.pixels;
    this.outputs = outputs;
    this.labels = explainer.labels;
    this.options = options;
    this.scores = classScores(outputs, explainer.metadata.score);
    const each = explainedTargets(explainer.kernels, outputs, explainer.metadata, prepared, options);
    this.targets = each.map((one) => ({ label: this.labels?.[one.class] ?? null, score: this.scores[one.class], ...one }));
  }

  /** The same run with another threshold, connectivity or method; the model does not run again. */
  again(options) {
    const checked = this.#explainer.options({ ...this.options, ...options });
    return new Explanation(this.#explainer, this.#prepared, this.outputs, checked);
  }

  /** The classes with the highest scores. */
  top(count = 5) {
    const order = [...this.scores.keys()].sort((a, b) => this.scores[b] - this.scores[a] || a - b);
    return order.slice(0, count).map((index) => ({ class: index, label: this.labels?.[index] ?? null, score: this.scores[index] }));
  }

  /** The heatmap of a target at the size of the picture: float32 [height * width] in 0..1. */
  heatmap(target = 0) {
    if (!this.#placed.has(target)) {
      this.#placed.set(target, this.#explainer.kernels.place(this.targets[target].heatmap, this.#prepared.geometry));
    }
    return this.#placed.get(target);
  }

  /** The picture under the heatmap of a target: RGBA of the picture's size. */
  overlay(target = 0, alpha = 0.5) {
    return this.#explainer.kernels.overlay(this.image.data, this.heatmap(target), alpha);
  }

  /** Draw picture, heatmap and box onto a canvas, which takes the picture's size. */
  draw(canvas, target = 0, { alpha = 0.5, box = true } = {}) {
    const { width, height } = this.image;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const context = canvas.getContext("2d");
    context.putImageData(new ImageData(this.overlay(target, alpha), width, height), 0, 0);
    const found = this.targets[target].box;
    if (!box || !found) return;
    const [x0, y0, x1, y1] = found, line = Math.max(2, Math.round(Math.min(width, height) / 150));
    for (const [color, size] of [["#000", 2 * line], ["#fff", line]]) {
      context.strokeStyle = color;
      context.lineWidth = size;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
  }
}
